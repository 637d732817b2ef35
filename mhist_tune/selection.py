"""Which trial is the best one: decided on validation records alone.

A search is led by its best trial. In a table, where every row is trained with several seeds, the row with the best mean
leads: the best single trial would be the luckiest seed.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mhist_tune.ledger import SlotRow
from mhist_tune.stages import OPEN
from mhist_tune.studies import Study


@dataclass(frozen=True)
class RowScore:
    """A row of a table as far as it has been trained.

    Attributes:
        label: the row's.
        slots: its complete slots, by seed.
        n_failed: trainings that ended without a result, such as diverged ones.
    """

    label: str
    slots: tuple[SlotRow, ...]
    n_failed: int

    @property
    def mean(self) -> float | None:
        """The mean validation F1 over the complete seeds; None if there is none."""
        return statistics.fmean((slot.outcome or {})["value"] for slot in self.slots) if self.slots else None


def row_scores(study: Study, slots: Sequence[SlotRow]) -> list[RowScore]:
    """Return every row of a table with what its search slots have given, in the order of the definition."""
    scores = []
    for row in study.definition.rows:
        ended = [slot for slot in slots if slot.payload["label"] == row.label and slot.outcome is not None]
        complete = tuple(sorted((slot for slot in ended if _is_complete(slot)), key=lambda slot: slot.payload["seed"]))
        scores.append(RowScore(row.label, complete, len(ended) - len(complete)))
    return scores


def best_row(study: Study, slots: Sequence[SlotRow]) -> RowScore | None:
    """Return the row with the best mean validation F1, of equal ones the first.

    A row with a failed training is left out: the mean over its other seeds would be that of the lucky ones.
    """
    scores = [score for score in row_scores(study, slots) if score.slots and not score.n_failed]
    return max(scores, key=lambda score: score.mean or 0.0, default=None)


def best(study: Study, slots: Sequence[SlotRow]) -> SlotRow | None:
    """Return the best of a study's search slots: the first seed of the best row, or the best trial."""
    if study.definition.rows:
        row = best_row(study, slots)
        return row.slots[0] if row else None
    return next(iter(ranked(slots)), None)


def ranked(slots: Sequence[SlotRow]) -> list[SlotRow]:
    """Return the complete slots, the highest value first, of equal ones the first."""
    done = [slot for slot in slots if _is_complete(slot)]
    return sorted(done, key=lambda slot: (-(slot.outcome or {})["value"], slot.slot))


def ties(best: SlotRow, slots: Sequence[SlotRow]) -> list[SlotRow]:
    """Return the other complete slots whose value lies within the standard error of the best one's, if it has one."""
    outcome = best.outcome or {}
    if outcome.get("standard_error") is None:
        return []
    lowest = outcome["value"] - outcome["standard_error"]
    return [slot for slot in ranked(slots) if slot.slot != best.slot and (slot.outcome or {})["value"] >= lowest]


def unfinished(slots: Sequence[SlotRow]) -> list[SlotRow]:
    """Return the slots of which something is still to come."""
    return [slot for slot in slots if slot.state in OPEN]


def _is_complete(slot: SlotRow) -> bool:
    return (slot.outcome or {}).get("state") == "COMPLETE"
