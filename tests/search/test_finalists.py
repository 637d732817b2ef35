"""The confirmed trials, their slots and the final choice: made-up results on both databases."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from mhist_tune.definition import study_file
from mhist_tune.report import confirmation
from mhist_tune.search import costs, finalists
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.leases import Claim, LeaseObserver
from mhist_tune.storage.outcome import Outcome
from mhist_tune.storage.payloads import SearchPayload, fold_set
from mhist_tune.storage.predictions import record_predictions
from mhist_tune.storage.studies import Study
from mhist_tune.worker.stages import confirm

DEFINITION = """
[study]
name = "small"
n_trials = 4

[space]
learning_rate = { low = 1e-4, high = 1e-1, log = true }

[confirm]
top = 2
n_folds = 2

[[start]]
learning_rate = 1e-3
"""
LABELS = [0, 0, 1, 0, 1, 1]
IMAGE_SETS = {
    "train": [[f"{n}.png", label, 7 * label, None] for n, label in enumerate(LABELS)],
    "val": [["v.png", 1, 7, None]],
    "fold0": [[f"{n}.png", LABELS[n], 7 * LABELS[n], None] for n in (0, 1, 2)],
    "fold1": [[f"{n}.png", LABELS[n], 7 * LABELS[n], None] for n in (3, 4, 5)],
}
RATES = [1e-3, 1e-2, 2e-2, 3e-2]


@pytest.fixture
def study(storage: Storage) -> Study:
    return studies.create_study(
        storage, study_file.parse(DEFINITION, "test"), dataset={"fingerprint": "f"}, image_sets=IMAGE_SETS
    )


def finish(storage: Storage, study: Study, stage: str, outcome_of: Callable[[Claim], Mapping[str, Any]]) -> list[Claim]:
    """Give every free slot of a stage its outcome and predictions, if it has some, and return the claims."""
    claims = []
    observer = LeaseObserver()
    while (claim := ledger.claim(storage, study, [stage], worker="w", observer=observer)) is not None:
        number = claim.slot if stage == "search" else 100 + claim.slot
        ledger.attach_trial(storage, claim, number, number)
        outcome = dict(outcome_of(claim))
        if "predictions" in outcome:
            image_set = fold_set(claim.payload.fold)
            record_predictions(storage, claim, image_set, outcome.pop("predictions"))
        assert ledger.decide(storage, claim, Outcome.from_json(outcome))
        assert ledger.finish(storage, claim)
        claims.append(claim)
    return claims


def searched(*values: float | None) -> Callable[[Claim], Mapping[str, Any]]:
    """Return the outcomes of search slots: a value for each, None for a pruned one."""

    def outcome(claim: Claim) -> Mapping[str, Any]:
        value = values[claim.slot]
        common = {"params": {"learning_rate": RATES[claim.slot]}, "best_epoch": 3, "stopped_epoch": 5}
        return {**common, "state": "PRUNED" if value is None else "COMPLETE", "value": value}

    return outcome


def inner(claim: Claim) -> Mapping[str, Any]:
    """The best epoch of an inner split: 4 + the trial's number in fold 0, 9 in fold 1."""
    return {"state": "COMPLETE", "value": 0.5, "best_epoch": 9 if claim.payload.fold else 4 + claim.payload.trial}


def predicted(tables: Mapping[int, list[list[float]]]) -> Callable[[Claim], Mapping[str, Any]]:
    """Return the outcomes of slots that predict a fold, from the probabilities by trial and fold."""
    return lambda claim: {
        "state": "COMPLETE",
        "value": 0.5,
        "predictions": tables[claim.payload.trial][claim.payload.fold],
    }


GOOD, FAIR, POOR = [[0.1, 0.2, 0.9], [0.1, 0.8, 0.9]], [[0.1, 0.6, 0.9], [0.1, 0.8, 0.9]], [[0.9] * 3, [0.1] * 3]


def kinds(claims: list[Claim]) -> list[tuple[str, int, int]]:
    return [(claim.payload.fit, claim.payload.trial, claim.payload.fold) for claim in claims]


def test_slots_are_added_after_the_search_and_after_the_inner_splits(storage: Storage, study: Study) -> None:
    """First the inner splits of the two best trials and the default, then the folds with the median epoch."""
    confirm.add_slots(storage, study)
    assert ledger.slots(storage, study, "confirm") == []
    finish(storage, study, "search", searched(0.5, 0.7, None, 0.8))
    for _ in range(2):
        confirm.add_slots(storage, study)
    first = finish(storage, study, "confirm", inner)
    assert kinds(first) == [("inner", trial, fold) for trial in (3, 1, 0) for fold in (0, 1)]
    confirmed = finalists.load(storage, study)
    assert confirmed is not None
    assert (confirmed.n_open, confirmed.finalists, confirmed.chosen) == (3, (), None)
    for _ in range(2):
        confirm.add_slots(storage, study)
    second = finish(storage, study, "confirm", predicted({3: FAIR, 1: GOOD, 0: POOR}))
    assert kinds(second) == [("fold", trial, fold) for trial in (3, 1, 0) for fold in (0, 1)]
    assert [claim.payload.stop_epoch for claim in second] == [7, 7, 5, 5, 4, 4]  # of two the lower
    confirm.add_slots(storage, study)
    assert ledger.counts(storage, study, "confirm") == {"done": 12}


def test_the_best_confirmed_trial_is_chosen(storage: Storage, study: Study) -> None:
    """The best of the search is second out of fold: its optimism is stated and the other is chosen."""
    finish(storage, study, "search", searched(0.5, 0.7, None, 0.95))
    confirm.add_slots(storage, study)
    finish(storage, study, "confirm", inner)
    confirm.add_slots(storage, study)
    finish(storage, study, "confirm", predicted({3: FAIR, 1: GOOD, 0: POOR}))
    confirmed = finalists.load(storage, study)
    assert confirmed is not None
    assert confirmed.chosen is not None
    assert confirmed.chosen.candidate.trial == 1
    assert confirmed.default is not None
    assert confirmed.default.candidate.trial == 0
    searched_slots = ledger.slots(storage, study, "search")
    choice, best = (finalists.final_choice(study, searched_slots, results) for results in (confirmed, None))
    assert (choice.trial_number, best.trial_number) == (1, 3)
    document = confirmation.document(confirmed)
    assert [finalist.trial for finalist in document.finalists] == [1, 3, 0]
    assert [finalist.f1 for finalist in document.finalists] == pytest.approx([1.0, 6 / 7, 1 / 3])
    assert document.search_best == confirmation.SearchBest(
        trial=3,
        search_value=0.95,
        confirmed_value=pytest.approx(6 / 7),
        optimism=pytest.approx(0.95 - 6 / 7),
        optimism_se=pytest.approx(0.18, abs=0.02),
        auroc=None,
    )
    assert sum(finalist.selected for finalist in document.finalists) == pytest.approx(1.0)
    [fall] = [line for line in confirmation.sentences(document) if "+0.093 (standard error" in line]
    assert fall.endswith("no optimism is shown, since F1 did not fall beyond its error")


def test_a_tie_is_broken_by_auroc_and_said(storage: Storage, study: Study) -> None:
    """Of finalists that never call SSA, F1 is 0. The better ranking decides, not the search, and sentences say so."""
    low = [[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]]
    upside_down = [[0.3, 0.2, 0.1], [0.3, 0.2, 0.1]]
    finish(storage, study, "search", searched(0.5, 0.7, None, 0.95))
    confirm.add_slots(storage, study)
    finish(storage, study, "confirm", inner)
    confirm.add_slots(storage, study)
    finish(storage, study, "confirm", predicted({3: upside_down, 1: low, 0: upside_down}))
    confirmed = finalists.load(storage, study)
    assert confirmed is not None
    document = confirmation.document(confirmed)
    assert [finalist.trial for finalist in document.finalists] == [1, 3, 0]
    assert [finalist.never_calls for finalist in document.finalists] == ["SSA", "SSA", "SSA"]
    assert document.finalists[0].selected < 1
    assert document.finalists[1].selected == document.finalists[2].selected
    text = "; ".join(confirmation.sentences(document))
    assert "trials 0, 1, 3 have the same F1, so the higher AUROC decides" in text
    assert "trial 1 never calls SSA at the threshold 0.5" in text


@pytest.mark.parametrize(
    ("f1", "auroc", "ending"),
    [
        ((0.64, 0.62, 0.02), (0.77, 0.76, 0.01), "no optimism is shown, since F1 did not fall beyond its error"),
        (
            (0.64, 0.17, 0.03),
            (0.765, 0.761, 0.02),
            "the share of images above a threshold rather than the ranking",
        ),
        ((0.64, 0.50, 0.03), (0.80, 0.70, 0.02), "the search's value was optimistic"),
        ((0.64, 0.50, 0.03), None, "the search's value was optimistic"),
    ],
    ids=["within its error", "threshold", "optimism", "AUROC not recorded"],
)
def test_a_fall_is_called_optimism_only_beyond_its_error(
    f1: tuple[float, float, float], auroc: tuple[float, float, float] | None, ending: str
) -> None:
    """The sentence has both differences with their standard errors, and says what they show."""
    fall = auroc and confirmation.Fall(auroc[0], auroc[1], auroc[0] - auroc[1], auroc[2])
    best = confirmation.SearchBest(3, f1[0], f1[1], f1[0] - f1[1], f1[2], fall)
    text = confirmation.fall(best, "f1")
    assert text.endswith(ending)
    assert f"{f1[0] - f1[1]:+.3f} (standard error {f1[2]:.3f})" in text
    assert (auroc is None) or f"{auroc[0] - auroc[1]:+.3f} ({auroc[2]:.3f})" in text


def test_an_extended_search_confirms_what_is_new(storage: Storage, study: Study) -> None:
    """After an extension only a new trial among the best gets slots. The earlier finalists remain."""
    finish(storage, study, "search", searched(0.5, 0.7, None, 0.8))
    confirm.add_slots(storage, study)
    finish(storage, study, "confirm", inner)
    confirm.add_slots(storage, study)
    finish(storage, study, "confirm", predicted({3: FAIR, 1: GOOD, 0: POOR}))
    ledger.add_slots(storage, study, "search", [SearchPayload()])
    waiting = finalists.load(storage, study)
    assert waiting is not None
    assert (len(waiting.finalists), waiting.chosen) == (3, None)  # the search goes on
    RATES_AND = {"params": {"learning_rate": 5e-2}, "best_epoch": 3, "stopped_epoch": 5}
    finish(storage, study, "search", lambda _: {**RATES_AND, "state": "COMPLETE", "value": 0.9})
    confirm.add_slots(storage, study)
    assert kinds(finish(storage, study, "confirm", inner)) == [("inner", 4, 0), ("inner", 4, 1)]
    confirm.add_slots(storage, study)
    finish(storage, study, "confirm", predicted({4: FAIR}))
    confirmed = finalists.load(storage, study)
    assert confirmed is not None
    assert confirmed.chosen is not None
    assert [finalist.candidate.trial for finalist in confirmed.finalists] == [1, 4, 3, 0]


def test_a_failed_finalist_is_not_confirmed(storage: Storage, study: Study) -> None:
    """A finalist with a diverged inner split is not confirmed. The choice is among the others."""
    finish(storage, study, "search", searched(0.5, 0.7, None, 0.8))
    confirm.add_slots(storage, study)

    def diverging(claim: Claim) -> Mapping[str, Any]:
        return {"state": "FAIL", "value": None} if claim.payload.trial == 3 else inner(claim)

    finish(storage, study, "confirm", diverging)
    confirm.add_slots(storage, study)
    finish(storage, study, "confirm", predicted({1: GOOD, 0: POOR}))
    confirmed = finalists.load(storage, study)
    assert confirmed is not None
    assert (confirmed.n_open, confirmed.n_failed) == (0, 1)
    document = confirmation.document(confirmed)
    assert (document.chosen, document.n_failed) == (1, 1)
    assert document.search_best.confirmed_value is None
    assert not any("search's best" in line for line in confirmation.sentences(document))


def test_equal_params_are_one_candidate(storage: Storage, study: Study) -> None:
    """Two trials with the same params count once, with the better value. A default among the best is not added."""
    same = {"params": {"learning_rate": 1e-3}, "best_epoch": 3, "stopped_epoch": 5, "state": "COMPLETE"}
    finish(storage, study, "search", lambda claim: {**same, "value": 0.5 + claim.slot / 10})
    [only] = finalists.candidates(study, ledger.slots(storage, study, "search"))
    assert (only.trial, only.search_value, only.is_default) == (3, pytest.approx(0.8), True)


def test_cancelled_slots_confirm_nothing(storage: Storage, study: Study) -> None:
    """A study that was stopped in its confirm stage has nothing open and nothing confirmed."""
    finish(storage, study, "search", searched(0.5, 0.7, None, 0.8))
    confirm.add_slots(storage, study)
    ledger.cancel_free(storage, study)
    confirm.add_slots(storage, study)
    confirmed = finalists.load(storage, study)
    assert confirmed is not None
    assert (confirmed.n_open, confirmed.n_failed, confirmed.chosen) == (0, 3, None)
    assert np.array_equal(confirmed.folds, [0, 0, 0, 1, 1, 1])


def test_at_the_last_epoch_there_are_no_inner_splits(storage: Storage) -> None:
    """The folds are trained at once for the whole schedule, and the finalists are ranked by the study's score."""
    text = DEFINITION.replace("n_trials = 4", 'n_trials = 4\nscore = "auroc"\nat = "last"')
    definition = study_file.parse(f"{text}\n[fixed]\nepochs = 7\n", "test")
    study = studies.create_study(storage, definition, dataset={"fingerprint": "f"}, image_sets=IMAGE_SETS)
    finish(storage, study, "search", searched(0.5, 0.7, None, 0.6))
    confirm.add_slots(storage, study)
    open_ones = finalists.load(storage, study)
    # trial 3 has the better F1 at 0.5, trial 1 the better ranking
    ranked, flat = [[0.6, 0.7, 0.9], [0.6, 0.8, 0.9]], [[0.1, 0.2, 0.9], [0.1, 0.8, 0.05]]
    claims = finish(storage, study, "confirm", predicted({0: POOR, 1: ranked, 3: flat}))
    confirm.add_slots(storage, study)

    confirmed = finalists.load(storage, study)

    assert open_ones is not None
    assert (open_ones.n_open, open_ones.chosen) == (3, None)
    assert kinds(claims) == [("fold", trial, fold) for trial in (1, 3, 0) for fold in (0, 1)]
    assert {claim.payload.stop_epoch for claim in claims} == {7}
    assert len(claims) == costs.n_trainings(definition)
    assert confirmed is not None
    assert confirmed.chosen is not None
    assert confirmed.chosen.candidate.trial == 1
    assert confirmed.chosen.scores.f1 < confirmed.of_trial(3).scores.f1
    document = confirmation.document(confirmed)
    assert document.search_best.confirmed_value == confirmed.chosen.scores.auroc == 1.0
    assert "a confirmed AUROC of 1.000 (F1 0.667)" in confirmation.sentences(document)[0]
    assert "inner" not in confirmation.cost(study)
