"""Advice on more trials: what twenty more are expected to bring, and the difference that the images can show.

It is never a reason to stop by itself. The numbers are those of `statistics.more_trials`.
"""

from dataclasses import dataclass

import numpy as np

from mhist_tune.definition.scores import SCORE_NAMES, Score, sets_trivial_apart
from mhist_tune.search import finalists, selection
from mhist_tune.statistics import more_trials
from mhist_tune.storage.database import Storage
from mhist_tune.storage.outcome import EndState
from mhist_tune.storage.predictions import image_rows, predictions_of
from mhist_tune.storage.slot_rows import StudySlots
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.storage.studies import Study

N_MORE = 20
"""The number of trials that the advice is about, and the fewest that it is given from."""
_MIN_COMPLETE = 4
_MOST_COMPARED = 40  # the best trials whose predictions are compared
_Z = 1.96


@dataclass(frozen=True)
class MoreTrials:
    """What more trials are expected to bring.

    Attributes:
        score: the study's score, which all differences are in.
        n_ended: number of trials so far that were judged, pruned and waiting ones included.
        n_complete: number of these that the numbers rest on: complete and not trivial.
        expected_gain: in the true score of the choice; None where `missing` says why.
        ci90: its 90% prediction interval.
        visible_on_split: a smaller difference of two of the best trials is within its error (1.96 standard errors).
        visible_on_folds: the same of two finalists on the folds; None before two are confirmed.
        missing: the reason why there are no numbers.
    """

    score: Score
    n_more: int
    n_ended: int
    n_complete: int
    expected_gain: float | None = None
    ci90: tuple[float, float] | None = None
    visible_on_split: float | None = None
    visible_on_folds: float | None = None
    missing: str | None = None


def of_slots(storage: Storage, study: Study, slots: StudySlots) -> MoreTrials | None:
    """Return the advice from the slots of a study; None for a table."""
    if study.definition.rows:
        return None
    score = study.definition.score
    apart = sets_trivial_apart(score, study.definition.at)
    complete = [slot for slot in selection.ranked(study, slots.search) if not (apart and selection.is_trivial(slot))]
    n_ended = sum(
        slot.state is SlotState.WAITING or (slot.outcome is not None and slot.outcome.state is not EndState.FAIL)
        for slot in slots.search
    )
    if n_ended < N_MORE or len(complete) < _MIN_COMPLETE:
        missing = (
            f"{n_ended} trials have ended, {len(complete)} of them complete; {N_MORE} and {_MIN_COMPLETE} are needed"
        )
        return MoreTrials(score, N_MORE, n_ended, len(complete), missing=missing)
    stored = predictions_of(storage, study, Stage.SEARCH, "val")
    compared = [stored[slot.slot] for slot in complete[:_MOST_COMPARED] if slot.slot in stored]
    if len(compared) < _MIN_COMPLETE:
        return MoreTrials(score, N_MORE, n_ended, len(complete), missing="too few trials have stored predictions")
    images = image_rows(storage, study, "val")
    noise = more_trials.noise(score, images.labels, np.stack(compared), groups=images.groups)
    values = np.array([selection.value_of(slot) for slot in complete])
    standard_error = float(np.sqrt(np.square(noise.own).mean()))
    gain = more_trials.gain(values, standard_error, n_ended, N_MORE)
    return MoreTrials(
        score,
        N_MORE,
        n_ended,
        len(complete),
        gain.expected,
        (gain.low, gain.high),
        _Z * noise.of_difference,
        _on_folds(storage, study, slots),
    )


def _on_folds(storage: Storage, study: Study, slots: StudySlots) -> float | None:
    found = finalists.of_slots(storage, study, slots.search, slots.confirm) if slots.confirm else None
    if found is None or len(found.finalists) < 2:
        return None
    noise = more_trials.noise(
        found.score,
        found.labels,
        np.stack([finalist.probabilities for finalist in found.finalists]),
        folds=found.folds,
        groups=found.groups,
    )
    return _Z * noise.of_difference


def sentence(advice: MoreTrials) -> str | None:
    """Return the advice in a sentence without a full stop; None where it has no numbers."""
    if advice.expected_gain is None or advice.ci90 is None or advice.visible_on_split is None:
        return None
    name, (low, high) = SCORE_NAMES[advice.score], advice.ci90
    text = (
        f"{advice.n_more} more trials are expected to raise the true {name} of the choice by "
        f"{advice.expected_gain:.3f} (90%: {low:.3f} to {high:.3f}); this validation split cannot tell differences "
        f"below {advice.visible_on_split:.3f} apart"
    )
    if advice.visible_on_folds is not None:
        text += f", and the folds none below {advice.visible_on_folds:.3f}"
    n_others = advice.n_ended - advice.n_complete
    return f"{text} (from {advice.n_complete} complete trials; {n_others} others count as worse)" if n_others else text
