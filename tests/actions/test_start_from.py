"""`create-study --from`: what a new study takes from finished ones, its record, and what is refused."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mhist_tune.definition import study_file
from mhist_tune.report import status, status_text, transferred
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.epochs import record_epoch
from mhist_tune.storage.leases import LeaseObserver
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study

Run = Callable[..., tuple[int, str, str]]

DEFINITION = """
[study]
name = "{name}"
n_trials = {n_trials}
pruner = {{ name = "none" }}

[fixed]
model = "fcnn"
weights = "random"
image_size = 16
augmentation = "{augmentation}"

[space]
{field} = {{ low = {low}, high = 0.2, log = true }}

[[start]]
{field} = {start}
"""


def write(name: str, **changes: Any) -> str:
    """Write a definition and return the name of its file."""
    values = {"n_trials": 8, "low": 1e-5, "field": "learning_rate", "start": 1e-2, "augmentation": "none", **changes}
    Path(f"{name}.toml").write_text(DEFINITION.format(name=name, **values))
    return f"{name}.toml"


def finish(storage: Storage, name: str, rates: Sequence[float]) -> Study:
    """Complete a trial with each learning rate, which is the better the nearer it is to 1e-3. Leave other slots."""
    study = studies.load_study(storage, name)
    for number, rate in enumerate(rates):
        claim = ledger.claim(storage, study, [Stage.SEARCH], worker="w", observer=LeaseObserver())
        assert claim is not None
        ledger.attach_trial(storage, claim, number, number)
        value = 0.8 - 0.1 * abs(math.log10(rate / 1e-3))
        record_epoch(storage, claim, epoch=1, score=value, value=value, metrics={})
        params = {"learning_rate": rate}
        ledger.decide(storage, claim, Outcome(state=EndState.COMPLETE, value=value, best_epoch=1, params=params))
        ledger.finish(storage, claim)
    return study


RATES = (1e-2, 3e-5, 1e-4, 3e-4, 1.1e-3, 3e-3, 1e-2, 1e-1)


@pytest.fixture
def create(run: Run, generated: Path) -> Callable[..., tuple[int, str, str]]:
    """Return `create-study` on the generated images."""
    return lambda *arguments: run("create-study", *arguments, "--data", str(generated))


def test_a_study_starts_from_a_portfolio_of_finished_ones(create: Run, run: Run, storage_url_sqlite: str) -> None:
    """Its own start entry stays the first one. A quarter of its trials follow, and their origin is on record."""
    for name in ("first", "other", "unfinished"):
        assert create(write(name))[0] == 0
    with open_storage(storage_url_sqlite) as storage:
        finish(storage, "first", RATES)
        finish(storage, "other", (*RATES[:4], 1.2e-3, *RATES[5:]))
        finish(storage, "unfinished", RATES[:7])
    code, out, err = create(write("second", n_trials=12), "--from", "first", "--from", "other")
    assert code == 0, err

    with open_storage(storage_url_sqlite) as storage:
        study = studies.load_study(storage, "second")
        payloads = [slot.payload.params for slot in ledger.slots(storage, study, Stage.SEARCH)]
        text = status_text.to_text(status.of_study(storage, study))
    taken = [one["learning_rate"] for one in payloads if one is not None]
    assert (taken[0], len(taken), len(payloads)) == (1e-2, 4, 12)
    assert {1.1e-3, 1.2e-3} & set(taken[1:3])
    assert study.definition.default_params() == {"learning_rate": 1e-2}
    record = transferred.of_study(study)
    assert record is not None
    assert [pick.params["learning_rate"] for pick in record.picks] == taken[1:]
    origin = {one.params["learning_rate"]: one.origins for one in record.picks}
    assert all((one.study, one.trials) == ("first", [4]) for one in origin.get(1.1e-3, []))
    assert [(one.study, one.n_tried, one.n_confirmed, one.n_outside) for one in record.sources] == [
        ("first", 7, 0, 0),  # 1e-2 was tried twice
        ("other", 7, 0, 0),
    ]
    said = f"3 configurations found by first ({record.sources[0].definition_sha256[:8]}) and other ("
    assert f"started from {said}" in text
    assert f"Starting from {said}" in err
    assert create("second.toml", "--from", "first", "--from", "other")[0] == 0  # changes nothing

    code, _, err = create(write("third"), "--from", "all")
    assert code == 0, err
    assert "found by first (" in err
    assert "unfinished" not in err
    code, out, err = create(write("fourth"), "--from", "all", "--dry-run")
    assert (code, "Starting from 2 configurations" in err) == (0, True), err
    assert len(study_file.parse(out, "stdout").start) == 3


def test_configurations_outside_the_new_space_are_left_out(create: Run, storage_url_sqlite: str) -> None:
    """They are counted in a line; no value is moved into the space."""
    create(write("first"))
    with open_storage(storage_url_sqlite) as storage:
        finish(storage, "first", RATES)
    code, out, err = create(write("second", low=5e-4), "--from", "first")

    assert code == 0, err
    assert "3 of 7 configurations of first are outside this space and were left out." in err
    assert [one["learning_rate"] for one in study_file.parse(out, "stdout").start] == [1e-2, 1.1e-3, 3e-3]


REFUSED: list[tuple[tuple[str, ...], dict[str, Any], str]] = [
    (("nothing",), {}, 'there is no study "nothing"'),
    (("unfinished",), {}, "unfinished has not finished: 1 of its 8 trials have not ended"),
    (("first",), {"field": "weight_decay"}, "does not search weight_decay and searches learning_rate, too"),
    (
        ("first",),
        {"low": 0.15, "start": 0.2},
        "none of the 7 configurations that first compared is in the space of new",
    ),
    (("first", "all"), {"n_trials": 3}, "new has 3 trials, and at most a quarter come from other studies"),
    (("all",), {"field": "weight_decay"}, "no finished study has the space of new"),
    (("report-fcnn",), {}, "report-fcnn is a table of chosen rows"),
    (("empty",), {}, "empty has no complete trial to start from"),
    (("first",), {"name": "first"}, "first cannot start from itself"),
]


def test_what_cannot_be_a_source_is_refused_in_one_line(create: Run, storage_url_sqlite: str) -> None:
    """Exit code 2, and no study is made."""
    for definition in (write("first"), write("unfinished"), write("empty"), "report-fcnn"):
        assert create(definition)[0] == 0
    with open_storage(storage_url_sqlite) as storage:
        finish(storage, "first", RATES)
        ledger.cancel_free(storage, finish(storage, "empty", ()))
        finish(storage, "unfinished", RATES[:7])
    for names, new, problem in REFUSED:
        arguments = [write(**{"name": "new", **new}), *(word for name in names for word in ("--from", name))]
        for mode in ([], ["--dry-run"]):
            code, out, err = create(*arguments, *mode)
            assert (code, out) == (2, ""), err
            assert problem in err
            assert err.count("error:") == 1
            assert len(err.splitlines()) <= 2
    with open_storage(storage_url_sqlite) as storage:
        assert len(studies.list_studies(storage)) == 4


def test_choices_made_on_test_images_are_carried_on(create: Run, storage_url_sqlite: str) -> None:
    """The record names those of a source, and those of the sources of a source."""
    create(write("first", augmentation="flip_rotate"))
    with open_storage(storage_url_sqlite) as storage:
        finish(storage, "first", RATES)
    create(write("second", n_trials=8), "--from", "first")
    with open_storage(storage_url_sqlite) as storage:
        finish(storage, "second", RATES)
    create(write("third"), "--from", "second")
    with open_storage(storage_url_sqlite) as storage:
        found = [transferred.of_study(studies.load_study(storage, name)) for name in ("first", "second", "third")]

    assert found[0] is None
    assert [one.inherited for one in found[1:] if one] == [["flips with rotation"]] * 2
    assert found[2] is not None
    assert "second (flips with rotation)" in transferred.inherited_sentence(found[2])
