"""Makes room for a trial's first checkpoint where the disk or the budget of the checkpoints is full.

A trial that has a checkpoint never waits: it replaces its own (`CheckpointStore.save`). So a full store has room again
as soon as a trial with a checkpoint there ends. What nobody trains would keep its room for ever. So, in this order:

1. Those of ended trials are removed, that of the best one too.
2. A worker that waits for room leaves its own trial, which has no checkpoint, and goes on with one that nobody holds.
3. While another worker trains a trial with a checkpoint there, nothing is decided.
4. The least promising of the trials that wait at a rung is pruned.
"""

from collections.abc import Collection, Mapping

from mhist_tune.search.rungs import RungBook
from mhist_tune.storage import ledger
from mhist_tune.storage.leases import Claim, SlotKey
from mhist_tune.storage.slot_rows import AnySlot
from mhist_tune.storage.stages import SlotState
from mhist_tune.worker.checkpoint_keys import checkpoint_key, slots_in
from mhist_tune.worker.session import Session


class GivesWay(Exception):
    """Raised where this worker has claimed another slot, whose checkpoint takes the space that its own trial lacks.

    Attributes:
        claim: the other slot.
    """

    def __init__(self, claim: Claim) -> None:
        super().__init__(f"slot {claim.slot} of {claim.stage}, whose checkpoint takes that space, goes on instead")
        self.claim = claim


def remove_ended(session: Session, own: SlotKey) -> bool:
    """Remove the checkpoints of all ended trials of the study from this store. Return whether there were any."""
    ended = ledger.outcomes(session.storage, session.study, slots_in(session) - {own})
    _remove(session, ended)
    return bool(ended)


def make_room(session: Session, own: SlotKey) -> bool:
    """Let a trial that nobody trains give up its checkpoint. Return whether one did.

    Raises:
        GivesWay: this worker has claimed a slot that can go on from its checkpoint.
    """
    storage, study = session.storage, session.study
    present = slots_in(session) - {own}
    if not present:
        return False
    claim = ledger.claim(
        storage,
        study,
        session.stages,
        worker=session.worker,
        observer=session.observer,
        excluding=session.skipped,
        among=present,
    )
    if claim is not None:
        raise GivesWay(claim)
    slots = _slots(session, present)
    waiting = [slot for slot in slots.values() if slot.state is SlotState.WAITING]
    if not waiting or any(slot.state is SlotState.LEASED for slot in slots.values()):
        return False
    least = min(waiting, key=_promise)
    if not RungBook(storage, study, least.stage).give_up(least.slot):
        return False
    _remove(session, [(least.stage, least.slot)])
    return True


def _slots(session: Session, keys: Collection[SlotKey]) -> Mapping[SlotKey, AnySlot]:
    stages = {stage for stage, _ in keys}
    rows = [slot for stage in stages for slot in ledger.slots(session.storage, session.study, stage)]
    return {(slot.stage, slot.slot): slot for slot in rows if (slot.stage, slot.slot) in keys}


def _promise(slot: AnySlot) -> tuple[int, float, int]:
    """Return how promising a waiting slot is: the epoch of its rung, its value there; of equal ones the first."""
    outcome = slot.if_not_promoted
    assert outcome is not None
    return outcome.stopped_epoch or 0, outcome.value or 0.0, -slot.slot


def _remove(session: Session, keys: Collection[SlotKey]) -> None:
    for stage, slot in keys:
        session.checkpoints.remove(checkpoint_key(session.study, stage, slot))
