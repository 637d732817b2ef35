"""The workers that hold leases of a study, and the slots that workers abandoned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mhist_tune.storage.database import Storage
from mhist_tune.storage.heartbeats import load_workers
from mhist_tune.storage.slot_rows import AnySlot
from mhist_tune.storage.stages import SlotState
from mhist_tune.storage.studies import Study


@dataclass(frozen=True)
class WorkerStatus:
    """A worker that holds a lease, with its last report; a field is None if it reported nothing.

    Attributes:
        epoch: of the slot that it holds.
    """

    worker: str
    host: str | None
    device: str | None
    images_per_s: float | None
    memory_bytes: int | None
    stage: str
    slot: int
    trial_number: int | None
    epoch: int | None
    lease_age_s: float


@dataclass(frozen=True)
class AbandonedSlot:
    """A slot whose lease has run out: its worker was killed, or does not reach the database.

    Attributes:
        worker: its holder; host and device are None if that reported nothing.
        epoch: the last recorded one; None if the worker's last report was about another slot.
        since_s: the time since its lease ended.
        taken_over_after_s: how long a worker must see the lease unchanged before it takes the slot over.
    """

    worker: str
    host: str | None
    device: str | None
    stage: str
    slot: int
    trial_number: int | None
    epoch: int | None
    since_s: float
    taken_over_after_s: float


def of_slots(
    storage: Storage, study: Study, slots: Sequence[AnySlot]
) -> tuple[list[WorkerStatus], list[AbandonedSlot]]:
    """Return the workers whose lease has not run out, and the slots of the others."""
    now, lease_s = storage.now(), study.definition.lease_s
    report_of = {worker["worker"]: worker for worker in load_workers(storage, study)}
    statuses, abandoned = [], []
    for slot in slots:
        if slot.state != SlotState.LEASED or slot.expires_at is None:
            continue
        name = (slot.owner or "").rpartition(":")[0]
        last = report_of.get(name, {})
        is_this_slot = (last.get("stage"), last.get("slot")) == (slot.stage, slot.slot)
        common: dict[str, Any] = {
            "worker": name,
            "host": last.get("host"),
            "device": last.get("device"),
            "stage": slot.stage,
            "slot": slot.slot,
            "trial_number": slot.trial_number,
            "epoch": last.get("epoch") if is_this_slot else None,
        }
        if slot.expires_at < now:
            abandoned.append(AbandonedSlot(**common, since_s=now - slot.expires_at, taken_over_after_s=lease_s))
            continue
        statuses.append(
            WorkerStatus(
                **common,
                images_per_s=last.get("images_per_s"),
                memory_bytes=last.get("memory_bytes"),
                lease_age_s=max(0.0, now + lease_s - slot.expires_at),
            )
        )
    return statuses, abandoned
