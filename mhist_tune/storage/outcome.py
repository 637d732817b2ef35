"""How the trial of a slot ended, and its form in the database."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mhist_tune.storage.decision import Decision


class EndState(StrEnum):
    """How the trial of a slot ended. The names are Optuna's."""

    COMPLETE = "COMPLETE"
    """It was trained to its end."""

    PRUNED = "PRUNED"
    """A search trial ended before its last epoch: it was pruned or vetoed, or it diverged. Or the race dropped the
    finalist of a training, which had not begun or was ended."""

    FAIL = "FAIL"
    """It has no result: an error ended it, or it diverged outside the search."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the trial of a slot ended. An attribute is None if it does not apply or is not known.

    Attributes:
        state: how it ended.
        value: the trial's objective, by which trials are judged, ranked and chosen.
        best_score: the highest score of an epoch; in a study with `at = "last"`, the score of the last epoch.
        best_epoch: the epoch whose weights are the result, 1-based; in a study with `at = "last"`, the last epoch.
        stopped_epoch: the last epoch, 1-based.
        standard_error: of the score at `best_epoch`.
        reason: why it ended early or failed.
        decision: the decision that pruned it.
        params: its hyperparameters by name.
        tie_break: the second score at `best_epoch`, in a study by AUROC, see `out_of_fold.second_score`.
        is_trivial: True if the model of `best_epoch` calls all validation images one class, otherwise None.
        sampling: which training images its epochs were drawn from; the record that `fit` gives to `on_sampling`.
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
    is_trivial: bool | None = None
    tie_break: float | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the trial was trained to its end."""
        return self.state is EndState.COMPLETE

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-safe record. Attributes that are None are left out."""
        fields = {name: value for name in self.__dataclass_fields__ if (value := getattr(self, name)) is not None}
        return fields if self.decision is None else {**fields, "decision": self.decision.to_json()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Outcome":
        """Return the outcome of a record."""
        decision = record.get("decision")
        return cls(
            **{
                **record,
                "state": EndState(record["state"]),
                "decision": None if decision is None else Decision.from_json(decision),
            }
        )
