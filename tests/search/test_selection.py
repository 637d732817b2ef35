"""The best trial of a search, and the best row of a table: by the mean over its seeds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mhist_tune.definition import study_file
from mhist_tune.report import status, status_text
from mhist_tune.search import selection
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.leases import LeaseObserver
from mhist_tune.storage.outcome import Outcome
from mhist_tune.storage.studies import Study
from tests.conftest import IMAGE_SETS

TABLE = """
[study]
name = "table"
n_seeds = 2

[[row]]
label = "lucky"
augmentation = "none"

[[row]]
label = "steady"
augmentation = "flip"

[[row]]
label = "diverging"
augmentation = "rotate"
"""


@pytest.fixture
def storage(tmp_path: Path):
    with open_storage(f"sqlite:///{tmp_path}/table.db") as opened:
        yield opened


def finish(storage: Storage, text: str, outcomes: Mapping[int, dict[str, Any]]) -> Study:
    """Create a study and give its slots, in the order of their claims, these outcomes."""
    study = studies.create_study(
        storage, study_file.parse(text, "x"), dataset={"fingerprint": "f"}, image_sets=IMAGE_SETS
    )
    observer = LeaseObserver()
    for number in range(len(outcomes)):
        claim = ledger.claim(storage, study, ["search"], worker="w", observer=observer)
        assert claim is not None
        ledger.attach_trial(storage, claim, 100 + claim.slot, claim.slot)
        common = {"best_epoch": number + 1, "stopped_epoch": 9, "params": claim.payload.params or {}}
        ledger.decide(storage, claim, Outcome.from_json({**common, **outcomes[claim.slot]}))
        ledger.finish(storage, claim)
    return study


def complete(value: float) -> dict[str, Any]:
    return {"state": "COMPLETE", "value": value}


def test_the_row_with_the_best_mean_is_the_best(storage: Storage) -> None:
    """Another row has the best single training. A row with a diverged seed is not eligible."""
    diverged = {"state": "PRUNED", "value": 0.1, "reason": "diverged"}
    values = [0.9, 0.7, 0.95, 0.3, 0.72]  # slots: three rows with seed 0, then with seed 1
    study = finish(storage, TABLE, {**{i: complete(value) for i, value in enumerate(values)}, 5: diverged})
    scores = selection.row_scores(study, ledger.slots(storage, study, "search"))

    assert [(score.label, len(score.slots), score.n_failed) for score in scores] == [
        ("lucky", 2, 0),
        ("steady", 2, 0),
        ("diverging", 1, 1),
    ]
    assert [score.mean for score in scores] == pytest.approx([0.6, 0.71, 0.95])
    best = selection.best(study, ledger.slots(storage, study, "search"))
    assert best is not None
    assert (best.payload.label, best.payload.seed) == ("steady", 0)
    row_status = status.best(storage, study)
    assert row_status is not None
    assert (row_status.label, row_status.n_seeds, row_status.number) == ("steady", 2, 1)
    assert row_status.value == pytest.approx(0.71)
    assert row_status.params == {"augmentation": "flip"}
    assert '"steady" (trial 1), val F1 0.710, the mean of 2 seeds' in status_text.to_text(
        status.of_study(storage, study)
    )


def test_the_best_of_a_search_is_its_best_trial(storage: Storage) -> None:
    """Without rows the single best complete trial counts, of equal ones the first."""
    text = '[study]\nname = "s"\nn_trials = 3\n[space]\nlearning_rate = { low = 1e-4, high = 1e-2 }\n'
    study = finish(storage, text, {0: complete(0.5), 1: complete(0.7), 2: complete(0.7)})

    best = selection.best(study, ledger.slots(storage, study, "search"))

    assert best is not None
    assert best.slot == 1
    assert isinstance(status.best(storage, study), status.BestOfSearch)


def test_nothing_is_best_before_anything_is_done(storage: Storage) -> None:
    """A table without a finished training has no best row."""
    study = finish(storage, TABLE, {})

    assert selection.best(study, ledger.slots(storage, study, "search")) is None
    assert status.best(storage, study) is None


def test_trials_within_the_standard_error_of_the_best_are_ties(storage: Storage) -> None:
    """A trial is counted if its value is at least the best value minus its standard error."""
    text = '[study]\nname = "s"\nn_trials = 4\n[space]\nlearning_rate = { low = 1e-5, high = 1e-1, log = true }'
    best = {**complete(0.8), "standard_error": 0.03}
    study = finish(
        storage, text, {0: complete(0.775), 1: best, 2: complete(0.76), 3: {"state": "PRUNED", "value": 0.79}}
    )

    search_status = status.best(storage, study)
    assert search_status is not None
    assert (search_status.number, search_status.standard_error, search_status.n_ties) == (1, 0.03, 1)
    assert (
        status_text.best_text(search_status)
        == "trial 1, val F1 0.800 ± 0.030 at epoch 2; 1 more within this standard error"
    )


def test_equal_values_are_ranked_by_the_second_score(storage: Storage) -> None:
    """A study by AUROC records it; without it the lower number is ahead."""
    text = '[study]\nname = "s"\nn_trials = 3\nscore = "auroc"\n'
    text += "[space]\nlearning_rate = { low = 1e-5, high = 1e-1, log = true }"
    equal = complete(0.8)
    study = finish(storage, text, {0: equal, 1: {**equal, "tie_break": 0.6}, 2: {**equal, "tie_break": 0.7}})

    assert [slot.slot for slot in selection.ranked(study, ledger.slots(storage, study, "search"))] == [2, 1, 0]


def test_a_trivial_model_is_never_called_best_beside_another(storage: Storage) -> None:
    """It is ranked after every model that has learned, whatever its value, and status names it and its F1."""
    text = '[study]\nname = "s"\nn_trials = 3\nscore = "mean_f1"\n'
    text += "[space]\nlearning_rate = { low = 1e-5, high = 1e-1, log = true }"
    trivial = {**complete(0.9), "is_trivial": True}
    study = finish(storage, text, {0: trivial, 1: complete(0.5), 2: {**trivial, "value": 0.8}})
    slots = ledger.slots(storage, study, "search")

    assert [slot.slot for slot in selection.ranked(study, slots)] == [1, 0, 2]
    assert selection.best(study, slots) == slots[1]
    found = status.of_study(storage, study)
    labels = [row[1] for row in IMAGE_SETS["val"]]
    share = sum(labels) / len(labels)
    assert (found.n_trivial, found.trivial_f1) == (2, pytest.approx(2 * share / (1 + share)))
    assert "2 trials call all validation images one class (calling all SSA has an F1 of" in status_text.to_text(found)
    assert "  best: trial 1," in status_text.to_text(found)


@pytest.mark.parametrize("tables", ['score = "mean_f1"\n', ""])
def test_a_search_of_trivial_models_has_none_that_is_called_best(storage: Storage, tables: str) -> None:
    """Status says which one leads, and that no model has learned anything; so too with F1 at the best epoch."""
    text = f'[study]\nname = "s"\nn_trials = 2\n{tables}'
    text += "[space]\nlearning_rate = { low = 1e-5, high = 1e-1, log = true }"
    study = finish(storage, text, {0: {**complete(0.9), "is_trivial": True}})

    shown = status_text.to_text(status.of_study(storage, study))

    assert "best:" not in shown
    assert "  leading: trial 0," in shown
    assert "no trial that is complete has learned more" in shown
