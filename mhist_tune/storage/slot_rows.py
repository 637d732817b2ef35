"""A slot as it is stored, and the slots of a study by stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Row

from mhist_tune.storage import payloads
from mhist_tune.storage.outcome import Outcome
from mhist_tune.storage.payloads import ConfirmPayload, DescriptivePayload, Payload, RetrainPayload, SearchPayload
from mhist_tune.storage.stages import SlotState, Stage

P_co = TypeVar("P_co", bound=Payload, covariant=True)


@dataclass(frozen=True)
class SlotRow(Generic[P_co]):
    """A slot as it is stored.

    Attributes:
        state: see `SlotState`.
        payload: what it has to train.
        trial_id, trial_number: Optuna's, of its trial; None until one is attached.
        token: number that each claim raises by one; 0 before the first.
        owner: its holder or last holder; None before the first claim.
        expires_at: end of the lease, epoch seconds; None if it is not leased.
        n_claims: number of claims.
        priority: slots with a higher one are claimed first.
        outcome: how its trial ended; None until that is decided.
        if_not_promoted: the outcome that a waiting slot gets unless it is promoted; None for other slots.
    """

    stage: Stage
    slot: int
    state: SlotState
    payload: P_co
    trial_id: int | None
    trial_number: int | None
    token: int
    owner: str | None
    expires_at: float | None
    n_claims: int
    priority: int
    outcome: Outcome | None
    if_not_promoted: Outcome | None


SearchSlot = SlotRow[SearchPayload]
ConfirmSlot = SlotRow[ConfirmPayload]
RetrainSlot = SlotRow[RetrainPayload]
DescriptiveSlot = SlotRow[DescriptivePayload]
AnySlot = SlotRow[Payload]


@dataclass(frozen=True)
class StudySlots:
    """The slots of a study, a sequence for each stage, in the order of their numbers."""

    search: Sequence[SearchSlot]
    confirm: Sequence[ConfirmSlot]
    retrain: Sequence[RetrainSlot]
    descriptive: Sequence[DescriptiveSlot]

    def of(self, stage: Stage) -> Sequence[AnySlot]:
        """Return the slots of a stage."""
        slots: Sequence[AnySlot] = getattr(self, stage)
        return slots


def read_slot(row: Row[Any]) -> SlotRow[Any]:
    """Return the slot of a database row, which has all columns of a `SlotRow`."""
    fields = {name: getattr(row, name) for name in SlotRow.__dataclass_fields__}
    return SlotRow(**{**fields, "payload": payloads.from_json(row.stage, row.payload)})
