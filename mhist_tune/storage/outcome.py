"""What came of a slot, as it is recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mhist_tune.storage.decision import Decision


class EndState(StrEnum):
    """How the trial of a slot ended, by Optuna's names."""

    COMPLETE = "COMPLETE"
    """It was trained to its end."""

    PRUNED = "PRUNED"
    """It was ended before its last epoch."""

    FAIL = "FAIL"
    """It has no result."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a slot. None stands for what does not apply or is not known.

    Attributes:
        state: how its trial ended.
        value: the trial's objective: what it is judged, ranked and chosen by.
        best_score: the highest score of an epoch.
        best_epoch: the epoch that its result is of, 1-based.
        stopped_epoch: the last epoch.
        standard_error: of the score at the best epoch.
        reason: why it ended early or failed.
        decision: the one that pruned it.
        params: the trial's.
        sampling: what its epochs were drawn from.
    """

    state: EndState
    value: float | None = None
    best_score: float | None = None
    best_epoch: int | None = None
    stopped_epoch: int | None = None
    standard_error: float | None = None
    reason: str | None = None
    decision: Decision | None = None
    params: dict[str, Any] | None = None
    sampling: dict[str, Any] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the trial was trained to its end."""
        return self.state is EndState.COMPLETE

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-safe record, without what is None."""
        fields = {name: value for name in self.__dataclass_fields__ if (value := getattr(self, name)) is not None}
        return fields if self.decision is None else {**fields, "decision": self.decision.to_json()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Outcome":
        """Return the outcome of such a record."""
        decision = record.get("decision")
        return cls(
            **{
                **record,
                "state": EndState(record["state"]),
                "decision": None if decision is None else Decision.from_json(decision),
            }
        )
