"""Ranks trials and table rows; the best one. Validation records are the only input.

The best of a search is the trial with the highest value. A table trains every row with several seeds, so its best row
is that with the highest mean: the best single trial would be the luckiest seed.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mhist_tune.definition.scores import sets_trivial_apart
from mhist_tune.errors import UsageError
from mhist_tune.storage.slot_rows import AnySlot, SearchSlot
from mhist_tune.storage.stages import OPEN
from mhist_tune.storage.studies import Study


@dataclass(frozen=True)
class RowScore:
    """A row of a table as far as it has been trained.

    Attributes:
        label: the label of the row.
        slots: its complete slots in the order of their seeds.
        n_failed: number of trainings without a result, such as diverged ones.
    """

    label: str
    slots: tuple[SearchSlot, ...]
    n_failed: int

    @property
    def mean(self) -> float | None:
        """The mean value over the complete seeds; None if there is none."""
        return statistics.fmean(value_of(slot) for slot in self.slots) if self.slots else None


def without_result(study: Study, slots: Sequence[SearchSlot]) -> UsageError:
    """Return the error that no trial of a search is complete. Its hint is a command that can change that."""
    name = study.name
    if unfinished(slots):
        hint = f"mhist-tune worker {name}"
    elif study.definition.rows:
        hint = f"see why: mhist-tune status {name}; then write another table"
    else:
        hint = f"see why: mhist-tune status {name}; then add trials: mhist-tune extend {name} --n-trials N"
    return UsageError(f"no trial of {name} is complete", hint=hint)


def row_scores(study: Study, slots: Sequence[SearchSlot]) -> list[RowScore]:
    """Return every row of a table with its results so far, in the order of the definition."""
    scores = []
    for row in study.definition.rows:
        ended = [slot for slot in slots if slot.payload.label == row.label and slot.outcome is not None]
        complete = tuple(sorted((slot for slot in ended if is_complete(slot)), key=lambda slot: slot.payload.seed or 0))
        scores.append(RowScore(row.label, complete, len(ended) - len(complete)))
    return scores


def best_row(study: Study, slots: Sequence[SearchSlot]) -> RowScore | None:
    """Return the row with the highest mean value, of equal ones the first.

    A row with a failed training is left out: its mean would be that of the luckier seeds.
    """
    scores = [score for score in row_scores(study, slots) if score.slots and not score.n_failed]
    return max(scores, key=lambda score: score.mean or 0.0, default=None)


def best(study: Study, slots: Sequence[SearchSlot]) -> SearchSlot | None:
    """Return the best search slot: the first seed of the best row, or the best trial; None if there is none."""
    if study.definition.rows:
        row = best_row(study, slots)
        return row.slots[0] if row else None
    return next(iter(ranked(study, slots)), None)


def ranked(study: Study, slots: Sequence[SearchSlot]) -> list[SearchSlot]:
    """Return the complete slots, the highest value first, of equal ones the lowest number.

    Trivial models come after all others, if the study sets them apart (see `scores.sets_trivial_apart`). In a study by
    AUROC the second score decides between equal values before the number does.
    """
    apart = sets_trivial_apart(study.definition.score, study.definition.at)
    done = [slot for slot in slots if is_complete(slot)]
    return sorted(done, key=lambda slot: (apart and is_trivial(slot), -value_of(slot), -_tie_break(slot), slot.slot))


def is_trivial(slot: AnySlot) -> bool:
    """Return whether the model of an ended or waiting slot calls all validation images one class."""
    outcome = slot.outcome or slot.if_not_promoted
    return bool(outcome and outcome.is_trivial)


def ties(best: SearchSlot, slots: Sequence[SearchSlot]) -> list[SearchSlot]:
    """Return the other complete slots whose value is within one standard error of the value of `best`.

    The list is empty if the standard error is not known.
    """
    if best.outcome is None or best.outcome.standard_error is None:
        return []
    lowest = value_of(best) - best.outcome.standard_error
    return [slot for slot in slots if is_complete(slot) and slot.slot != best.slot and value_of(slot) >= lowest]


def _tie_break(slot: AnySlot) -> float:
    return (slot.outcome and slot.outcome.tie_break) or 0.0


def unfinished(slots: Sequence[AnySlot]) -> list[AnySlot]:
    """Return the slots that are neither done nor cancelled."""
    return [slot for slot in slots if slot.state in OPEN]


def is_complete(slot: AnySlot) -> bool:
    """Return whether a slot's trial was trained to its end."""
    return slot.outcome is not None and slot.outcome.is_complete


def best_epoch_of(slot: AnySlot) -> int:
    """Return the best epoch of a complete slot, 1-based."""
    assert slot.outcome is not None and slot.outcome.best_epoch is not None
    return slot.outcome.best_epoch


def params_of(slot: AnySlot) -> dict[str, Any]:
    """Return the params of a complete slot."""
    assert slot.outcome is not None and slot.outcome.params is not None
    return slot.outcome.params


def value_of(slot: AnySlot) -> float:
    """Return the value of a complete slot."""
    assert slot.outcome is not None and slot.outcome.value is not None
    return slot.outcome.value
