"""Degenerate studies go through every command that reads them. Parts of a report that fail say so in their place."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from mhist_tune.actions import verify
from mhist_tune.dashboard.access import Access
from mhist_tune.dashboard.server import app
from mhist_tune.definition.study_file import parse
from mhist_tune.errors import StorageError
from mhist_tune.plots import canvas, predictions
from mhist_tune.report import build, figures, files, optuna_note, parts, report_text, threshold
from mhist_tune.search import trials
from mhist_tune.storage import kept_weights, ledger, studies, thumbnails
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.epochs import record_epoch
from mhist_tune.storage.leases import LeaseObserver
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.predictions import record_predictions, save_image_set
from mhist_tune.storage.studies import Study
from tests.conftest import Run
from tests.support import made_up
from tests.support.web import PASSWORD, Client

N_TRIALS = 24  # enough for the importance of a hyperparameter
DEFINITION = """
[study]
name = "{name}"
n_trials = {n_trials}
pruner = {{ name = "promotion", audit = 0.5 }}

[fixed]
model = "fcnn"
weights = "random"
image_size = 8

[space]
learning_rate = {{ low = 1e-4, high = 1e-2, log = true }}
drop_rate = {{ low = 0.0, high = 0.5 }}
sampling = {{ choices = ["none", "smote"] }}
"""
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("report", "--json"),
    ("status",),
    ("status", "--json"),
    ("best-trial", "--json"),
    ("best-trial", "--export", "model"),
    ("export", "records"),
    ("replay",),
)
Votes = Sequence[int]
BOTH_CLASSES = (0, 1, 2, 3, 4, 5, 6, 7)


@dataclass(frozen=True)
class Degenerate:
    """A study, described by what its records hold.

    Attributes:
        scores: the scores of each trial's epochs, by the trial's number.
        state: of each trial.
        probability: of SSA, of a test or validation image with these votes.
        seeds: retrained; none where the search chose nothing.
        val, test: the votes of the images.
        groups: of the test images.
    """

    scores: Callable[[int], Sequence[float]] = lambda number: (0.0, 0.5 + number / 100)
    state: EndState = EndState.COMPLETE
    n_trials: int = 3
    probability: Callable[[int], float] = lambda votes: 0.2 + votes / 12
    seeds: Sequence[int] = (0, 1, 2)
    val: Votes = BOTH_CLASSES
    test: Votes = BOTH_CLASSES * 3
    groups: Callable[[int], str] | None = None


STUDIES = {
    "every F1 is 0": Degenerate(lambda _: (0.0, 0.0), n_trials=N_TRIALS, probability=lambda votes: votes / 20),
    "trials tie at the first rung": Degenerate(lambda number: (0.0, 0.5)[: 1 + number % 2], n_trials=N_TRIALS),
    "trials tie but for one": Degenerate(lambda number: (0.3 if number == 5 else 0.0, 0.0), n_trials=N_TRIALS),
    "one trial": Degenerate(n_trials=1),
    "every trial is pruned": Degenerate(lambda _: (0.0,), state=EndState.PRUNED, seeds=()),
    "every trial diverged": Degenerate(lambda _: (), state=EndState.FAIL, seeds=()),
    "SSA is never called": Degenerate(probability=lambda votes: votes / 20),
    "SSA is always called": Degenerate(probability=lambda votes: 0.6 + votes / 20),
    "one seed": Degenerate(seeds=(0,)),
    "one SSA image in validation": Degenerate(val=(0, 1, 2, 7)),
    "no SSA image in validation": Degenerate(val=(0, 1, 2)),
    "one SSA image in test": Degenerate(test=(0, 1, 2, 3, 0, 1, 7)),
    "one HP image in test": Degenerate(test=(4, 5, 6, 7, 4, 5, 0)),
    "no SSA image in test": Degenerate(test=(0, 1, 2, 3)),
    "one image in test": Degenerate(test=(7,)),
    "one group in test": Degenerate(groups=lambda _: "only"),
    "every probability is 0": Degenerate(probability=lambda _: 0.0),
    "every probability is 1": Degenerate(probability=lambda _: 1.0),
    "every probability is 0 or 1, and wrong": Degenerate(probability=lambda votes: float(votes < 4)),
}

DRAWN = ("SSA is never called", "one group in test", "every probability is 0 or 1, and wrong")
"""Of these the comparison is written with its figures, which take most of the time."""


def store(storage: Storage, name: str, of: Degenerate) -> Study:
    """Store a study with the records of a search and a retraining."""
    votes = {"train": BOTH_CLASSES, "val": of.val}
    study = studies.create_study(
        storage,
        parse(DEFINITION.format(name=name, n_trials=of.n_trials), name),
        dataset={"fingerprint": "f" * 64},
        image_sets={
            part: [[f"{part}{index}.png", int(n >= 4), n, None] for index, n in enumerate(counts)]
            for part, counts in votes.items()
        },
    )
    study = studies.set_setting(storage, study, "probed", {"precision": "fp32", "memory_format": "contiguous"})
    rng, observer = random.Random(0), LeaseObserver()
    for number in range(of.n_trials):
        claim = ledger.claim(storage, study, ["search"], worker="w", observer=observer)
        assert claim is not None
        ledger.attach_trial(storage, claim, 100 + number, number)
        scores = of.scores(number)
        for epoch, score in enumerate(scores, start=1):
            metrics = {"train_loss": 0.6, "val_loss": 0.5, "val_f1": score, "val_auroc": 0.5, "elapsed_s": 1.0}
            best = max(scores[:epoch])
            predictions = [of.probability(n) for n in of.val]
            record_epoch(storage, claim, epoch=epoch, score=score, value=best, metrics=metrics, predictions=predictions)
        params = {"learning_rate": 10 ** rng.uniform(-4, -2), "drop_rate": rng.uniform(0, 0.5), "sampling": "none"}
        outcome = Outcome(
            state=of.state,
            params=params | {"sampling": rng.choice(["none", "smote"])},
            value=max(scores) if scores else None,
            best_score=max(scores) if scores else None,
            best_epoch=1 if scores else None,
            stopped_epoch=len(scores) or None,
            standard_error=0.0 if scores else None,
        )
        assert ledger.decide(storage, claim, outcome)
        assert ledger.finish(storage, claim)
    if of.seeds:
        retrain(storage, study, of)
    return study


def retrain(storage: Storage, study: Study, of: Degenerate) -> None:
    """Finish a retraining of trial 0, with the weights of its first seed."""
    params = {"learning_rate": 1e-3, "drop_rate": 0.5, "sampling": "none"}
    made_up.open_test(storage, study, trial=0, seeds=of.seeds, params=params)
    rows = [
        [f"{index:02}.png", int(n >= 4), n, of.groups(index) if of.groups else None] for index, n in enumerate(of.test)
    ]
    save_image_set(storage, study, "test", rows)
    for _ in of.seeds:
        claim = ledger.claim(storage, study, ["retrain"], worker="w", observer=LeaseObserver())
        assert claim is not None
        record_epoch(storage, claim, epoch=1, score=0.0, value=None, metrics={"train_loss": 0.7, "elapsed_s": 1.0})
        record_predictions(storage, claim, "test", np.array([of.probability(n) for n in of.test]))
        ledger.decide(storage, claim, Outcome(state=EndState.COMPLETE))
        assert ledger.finish(storage, claim)
        path = kept_weights.path_of(storage, study, claim.payload)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")


@pytest.fixture
def storage(storage_url_sqlite: str) -> Iterator[Storage]:
    with open_storage(storage_url_sqlite) as opened:
        yield opened


@pytest.mark.parametrize("kind", STUDIES)
def test_a_degenerate_study_goes_through_every_command(storage: Storage, run: Run, tmp_path: Path, kind: str) -> None:
    """Each command prints its document or refuses in one line; pages of the dashboard open; records are verified."""
    of = STUDIES[kind]
    study, _ = store(storage, "odd", of), store(storage, "twin", of)
    commands = [(command, "odd", *options) for command, *options in COMMANDS]
    commands += [(command, "odd", "twin") for command in ("compare", "ensemble")]
    if kind in DRAWN:
        commands.append(("compare", "odd", "twin", "--output", "comparison", "--json"))
    may_refuse = {"best-trial", "report", "compare", "ensemble"} if not of.seeds else set()
    if len({n >= 4 for n in of.test}) < 2 or min(sum(n >= 4 for n in of.test), sum(n < 4 for n in of.test)) < 2:
        may_refuse.add("compare")
    for command in commands:
        code, out, err = run(*command)
        assert "Traceback" not in err
        allowed = {0, 2} if command[0] in may_refuse else {0, 1} if command[0] == "replay" else {0}
        assert code in allowed, (command, err)
        assert "unexpected" not in err, (command, err)
        assert "nan" not in out.split(), command
    if of.seeds:
        assert "odd, trial 0" in report_text.to_table(build.build(storage, "odd"))
        checked = verify.of_records(storage, "odd", tmp_path / "storage" / "reports" / "odd")
        assert [one.state for one in checked if one.state == "differs"] == []
    browser = Client(app(storage, Access(PASSWORD)))
    browser.log_in()
    pages = ["/", f"/study/{study.name}", f"/study/{study.name}?sort=value"]
    for path in [*pages, f"/study/{study.name}/trial/0"]:
        assert browser.get(path).status == 200, path
    assert browser.get(f"/study/{study.name}/report").status == (200 if of.seeds else 409)


def test_scores_that_are_all_equal_have_no_importance(storage: Storage) -> None:
    """Trials with the same score after the last common epoch have no variance, and the report says so."""
    store(storage, "odd", STUDIES["trials tie at the first rung"])
    report = build.build(storage, "odd")
    assert report.search.importance.shares == {}
    assert report.search.importance.missing == "all 24 trials have the same score after epoch 1"
    assert any("have the same score after epoch 1" in line for line in report_text.search_lines(report))


def test_a_part_that_fails_is_replaced_by_the_reason(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Importance, calibration, a figure, the contact sheet and the note may fail; the report is written and says so."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("zero <variance>")

    store(storage, "odd", STUDIES["one trial"])
    whole = build.build(storage, "odd")
    for place, name in (
        (trials, "importance"),
        (threshold, "document"),
        (predictions, "roc"),
        (thumbnails, "read"),
        (optuna_note, "write_report"),
    ):
        monkeypatch.setattr(place, name, fail)
    report = files.write(storage, "odd", tmp_path / "report")
    reason = "could not be made (RuntimeError: zero <variance>)"

    assert report.metrics == whole.metrics
    assert report.search.importance.missing == reason
    assert f"The threshold and the recalibration {reason}." in report.caveats
    assert report.caveats[-1] == f"The note for optuna-dashboard {reason}."
    page = unescape((tmp_path / "report" / "report.html").read_text(encoding="utf-8"))
    assert f"ROC on the test partition {reason}." in page
    assert f"The sheet of misclassified images {reason}." in page
    assert (tmp_path / "report" / "roc.png").stat().st_size > 1000


def test_a_figure_that_cannot_be_rendered_is_replaced(tmp_path: Path) -> None:
    """A label that matplotlib cannot parse is found when the figure is saved; file and page then hold the reason."""
    bad = canvas.message("fine")
    bad.axes[0].set_title("$\\frac{$")
    figure = figures.ReportFigure("bad", "A title", "A caption.", bad)
    figure.write(tmp_path)
    assert (tmp_path / "bad.png").stat().st_size > 1000
    assert "A title could not be made (ValueError" in unescape(figure.svg())


def test_a_fault_of_the_database_is_no_missing_part() -> None:
    """An error that is meant for the user ends the report: the part is not at fault."""

    def fail() -> None:
        raise StorageError("the database does not answer")

    with pytest.raises(StorageError):
        parts.attempt(fail, lambda reason: None)
