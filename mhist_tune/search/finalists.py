"""The finalists of a search and the final choice among them.

The finalists are the best trials and the default. The best value of a search is too high, because it is the maximum of
many noisy values. So each finalist is trained again on folds, for a fixed number of epochs.
Each image of the train partition is predicted once, by a model that was not trained on it. All finalists share folds
and seeds.
"""

import math
import statistics as numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mhist_tune.arrays import FloatArray
from mhist_tune.definition.scores import Score
from mhist_tune.search import race, selection
from mhist_tune.search.race import Dropped
from mhist_tune.statistics import out_of_fold
from mhist_tune.statistics.out_of_fold import OutOfFold
from mhist_tune.storage import ledger
from mhist_tune.storage.database import Storage
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.payloads import INNER, OUTER, fold_set
from mhist_tune.storage.predictions import image_rows, predictions_of
from mhist_tune.storage.slot_rows import ConfirmSlot, SearchSlot
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.storage.studies import Study


@dataclass(frozen=True)
class Candidate:
    """A configuration to be confirmed.

    Attributes:
        trial: the number of its search trial.
        params: its hyperparameters.
        search_value: the trial's value; None if it was pruned or failed.
        is_default: whether it is the study's default.
    """

    trial: int
    params: dict[str, Any]
    search_value: float | None
    is_default: bool


@dataclass(frozen=True)
class Finalist:
    """A confirmed configuration.

    Attributes:
        candidate: its configuration and search trial.
        stop_epoch: the fixed number of epochs, see `stop_epoch`.
        probabilities: of SSA, out of fold, [n] in the order of `Confirmation.labels`.
        scores: each score of `probabilities`.
    """

    candidate: Candidate
    stop_epoch: int
    probabilities: FloatArray
    scores: OutOfFold


@dataclass(frozen=True)
class Confirmation:
    """The results of the confirm stage of a study so far.

    Attributes:
        score: the study's score, by which the finalists are ranked.
        finalists: the confirmed candidates, the highest score first. A second score decides between equal ones, see
            `out_of_fold.second_score`.
        search_best: the candidate with the highest value in the search.
        search_auroc: the validation AUROC of `search_best` in the epoch of its value; None if it is not recorded.
        n_open: number of candidates with unfinished trainings, plus one while the search is unfinished, and one while
            a look of the race is due.
        n_failed: number of candidates that are not confirmed because a training failed.
        dropped: the candidates that the race dropped, in that order. They are never chosen, even if other workers
            trained them on more folds before the race dropped them.
        labels: 0 or 1 for each image, fold by fold, [n] int64.
        folds: the fold of each image, [n] int64.
        groups: the patient or slide of each image, [n]; None if they are not known.
    """

    score: Score
    finalists: tuple[Finalist, ...]
    search_best: Candidate
    search_auroc: float | None
    n_open: int
    n_failed: int
    dropped: tuple[Dropped, ...]
    labels: npt.NDArray[np.int64]
    folds: npt.NDArray[np.int64]
    groups: tuple[str, ...] | None

    @property
    def chosen(self) -> Finalist | None:
        """The finalist with the highest confirmed score; None while anything is open."""
        return self.finalists[0] if self.finalists and not self.n_open else None

    @property
    def default(self) -> Finalist | None:
        """The study's default, if it is confirmed."""
        return next((finalist for finalist in self.finalists if finalist.candidate.is_default), None)

    def of_trial(self, trial: int) -> Finalist | None:
        """Return the finalist of the search trial with that number; None if there is none."""
        return next((finalist for finalist in self.finalists if finalist.candidate.trial == trial), None)


def candidates(study: Study, searched: Sequence[SearchSlot]) -> list[Candidate]:
    """Return the best complete trials and the default, the best first.

    The `top` best trials with different params are taken. The default is added if it is not among them.

    Args:
        study: its definition has `[confirm]`.
        searched: all its search slots.
    """
    assert study.definition.confirm is not None
    default_params = study.definition.default_params()
    distinct: list[Candidate] = []
    for slot in selection.ranked(study, searched):
        params = slot.outcome.params if slot.outcome else None
        if slot.trial_number is None or params is None or any(candidate.params == params for candidate in distinct):
            continue
        distinct.append(Candidate(slot.trial_number, params, selection.value_of(slot), params == default_params))
    # a definition with [confirm] has a [[start]], and the first one is slot 0
    first = next((slot for slot in searched if slot.slot == 0 and slot.trial_number is not None), None)
    default = [candidate for candidate in distinct if candidate.is_default]
    if distinct and not default and first is not None and first.trial_number is not None:
        default = [Candidate(first.trial_number, default_params, None, True)]
    top = distinct[: study.definition.confirm["top"]]
    return top + [candidate for candidate in default if candidate not in top]


def final_choice(study: Study, searched: Sequence[SearchSlot], confirmation: Confirmation | None) -> SearchSlot | None:
    """Return the search slot of the best confirmed trial, or of the best trial if none is confirmed."""
    if confirmation and confirmation.chosen:
        trial = confirmation.chosen.candidate.trial
        return next(slot for slot in searched if slot.trial_number == trial)
    return selection.best(study, searched)


def stop_epoch(study: Study, candidate: Candidate, trainings: Sequence[ConfirmSlot]) -> int | None:
    """Return the number of epochs that a candidate is trained for on the folds; None if it is not known yet.

    In a study with `at = "last"` it is the length of the schedule. Otherwise it is the median (of two, the lower) of
    the best epochs on the inner splits, once all of these are complete.

    Args:
        study: the study.
        candidate: the candidate.
        trainings: the confirm slots of the candidate.
    """
    if study.definition.at == "last":
        return study.definition.hyperparameters(candidate.params).epochs
    inner = [slot for slot in trainings if slot.payload.fit == INNER]
    if not inner or not all(selection.is_complete(slot) for slot in inner):
        return None
    return int(numbers.median_low([selection.best_epoch_of(slot) for slot in inner]))


def load(storage: Storage, study: Study) -> Confirmation | None:
    """Return the results of the confirm stage so far.

    Returns:
        The results; None without `[confirm]`, before the search has ended, or if no trial is complete.
    """
    searched = ledger.slots(storage, study, Stage.SEARCH)
    return of_slots(storage, study, searched, ledger.slots(storage, study, Stage.CONFIRM))


def of_slots(
    storage: Storage, study: Study, searched: Sequence[SearchSlot], slots: Sequence[ConfirmSlot]
) -> Confirmation | None:
    """Return the same as `load`, from all slots of the search and of the confirm stage.

    Finalists of an earlier, shorter search remain: they were confirmed on the same folds.
    """
    is_searching = bool(selection.unfinished(searched))
    if study.definition.confirm is None or (is_searching and not slots):
        return None
    current = candidates(study, searched)
    if not current:
        return None
    names = [fold_set(fold) for fold in range(study.definition.confirm["n_folds"])]
    images = [image_rows(storage, study, name) for name in names]
    labels = np.concatenate([fold.labels for fold in images])
    folds = np.repeat(np.arange(len(images)), [len(fold.names) for fold in images])
    stored = {
        slot: probabilities
        for name in names
        for slot, probabilities in predictions_of(storage, study, Stage.CONFIRM, name).items()
    }
    earlier = [
        Candidate(slot.payload.trial, slot.payload.params, slot.payload.search_value, False)
        for slot in slots
        if slot.payload.fit == OUTER and slot.payload.fold == 0
    ]
    looks = race.recorded(storage, study)
    dropped = race.dropped(looks)
    out = {one.trial for one in dropped}
    by_trial = {one.trial: one for one in [*earlier, *current] if one.trial not in out}
    finalists, n_open, n_failed = [], int(is_searching), 0
    if race.is_due(study, slots, looks):  # nothing is final before it is taken
        n_open += 1
    for candidate in by_trial.values():
        trainings = [slot for slot in slots if slot.payload.trial == candidate.trial]
        outer = sorted((slot for slot in trainings if slot.payload.fit == OUTER), key=lambda slot: slot.payload.fold)
        if outer and all(slot.state == SlotState.DONE and slot.slot in stored for slot in outer):
            probabilities = np.concatenate([stored[slot.slot] for slot in outer])
            scores = out_of_fold.scores(labels, folds, probabilities)
            n_trained = outer[0].payload.stop_epoch
            assert n_trained is not None
            finalists.append(Finalist(candidate, n_trained, probabilities, scores))
        elif (
            not trainings
            or selection.unfinished(trainings)
            or (not outer and stop_epoch(study, candidate, trainings) is not None)
        ):
            n_open += 1
        else:
            n_failed += 1
    score = study.definition.score
    finalists.sort(key=lambda finalist: _rank(finalist, score))
    groups = [group for fold in images for group in fold.groups or ()]
    return Confirmation(
        score=score,
        finalists=tuple(finalists),
        search_best=current[0],
        search_auroc=_search_auroc(storage, study, searched, current[0]),
        n_open=n_open,
        n_failed=n_failed,
        dropped=tuple(dropped),
        labels=labels,
        folds=folds,
        groups=tuple(groups) or None,
    )


def _search_auroc(storage: Storage, study: Study, searched: Sequence[SearchSlot], best: Candidate) -> float | None:
    """Return the validation AUROC of a complete trial in the epoch of its value; None if it is not recorded."""
    slot = next(slot for slot in searched if slot.trial_number == best.trial)
    epochs = epochs_of(storage, study, Stage.SEARCH, slot.slot)
    valued = next((row for row in epochs if row.epoch == selection.best_epoch_of(slot)), None)
    return valued.metrics.get("val_auroc") if valued else None


def _rank(finalist: Finalist, score: Score) -> tuple[float, float, float, int]:
    candidate, scores = finalist.candidate, finalist.scores
    first, second = (
        0.0 if math.isnan(value) else round(value, 12)
        for value in (scores.of(score), scores.of(out_of_fold.second_score(score)))
    )
    return -first, -second, -(candidate.search_value or 0.0), candidate.trial
