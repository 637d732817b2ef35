"""What was decided for a trial after an epoch, and its form in the database."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What becomes of a trial after an epoch."""

    GO_ON = "go on"
    """It trains its next epoch."""

    WAIT = "wait"
    """It waits at its rung, to be promoted or pruned later."""

    PRUNE = "prune"
    """It ends here."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided for one trial after one epoch, and why.

    Attributes:
        verdict: what becomes of the trial.
        epoch: the epoch that was judged, 1-based.
        value: the trial's value up to that epoch.
        threshold: the lowest value that goes on; None if the value was not compared.
        n_competitors: how many other trials it was compared with.
        reason: the same in words.
        audited: whether it goes on only for the audit; without it, it would have ended or waited.
    """

    verdict: Verdict
    epoch: int
    value: float
    threshold: float | None = None
    n_competitors: int = 0
    reason: str
    audited: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-safe record."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Decision":
        """Return the decision of a record. Other keys of the record are ignored."""
        fields = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        return cls(**{**fields, "verdict": Verdict(record["verdict"])})

    def for_audit(self) -> "Decision":
        """Return the decision for an audited trial: it goes on, and `audited` and `reason` keep what was decided."""
        if self.verdict is Verdict.GO_ON:
            return self
        reason = f"finished for the audit; {self.reason}"
        return replace(self, verdict=Verdict.GO_ON, audited=True, reason=reason)
