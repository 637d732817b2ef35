"""Makes room for a trial's first checkpoint where the disk or the budget of the checkpoints is full.

A trial that has a checkpoint never waits: it replaces its own (`CheckpointStore.save`). So a full store has room again
as soon as a trial with a checkpoint there ends. What nobody trains would keep its room for ever. So, in this order:

1. Those of ended trials are removed, that of the best one too, of all studies in the database.
2. A worker that waits for room leaves its own trial, which has no checkpoint, and goes on with one of its study that
   nobody holds.
3. While another worker trains a trial with a checkpoint there, of any study, nothing is decided.
4. A trial of another study that nobody holds loses its checkpoint: the one with the fewest epochs. It is trained from
   its beginning when it is claimed, and its records stay as they are.
5. The least promising of the study's trials that wait at a rung is pruned.

Studies of another database that uses the same place are unknown here. Their checkpoints stay.
"""

from collections.abc import Collection, Mapping

from mhist_tune.search.rungs import RungBook
from mhist_tune.storage import ledger, surveys
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.leases import Claim, SlotKey
from mhist_tune.storage.slot_rows import AnySlot
from mhist_tune.storage.stages import OPEN, SlotState, Stage
from mhist_tune.storage.studies import Study, list_studies
from mhist_tune.worker.checkpoint_keys import checkpoint_key, slots_in, slots_of_others
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
    """Remove the checkpoints of all ended trials from this store. Return whether there were any."""
    is_any = False
    for study, slots in slots_of_others(session.checkpoints, list_studies(session.storage)):
        ended = ledger.outcomes(session.storage, study, slots - ({own} if _is_own(session, study) else set()))
        _remove(session, study, ended)
        is_any = is_any or bool(ended)
    return is_any


def make_room(session: Session, own: SlotKey) -> bool:
    """Let a trial that nobody trains give up its checkpoint. Return whether one did.

    Raises:
        GivesWay: this worker has claimed a slot that can go on from its checkpoint.
    """
    storage, study = session.storage, session.study
    present = slots_in(session.checkpoints, study) - {own}
    claim = present and ledger.claim(
        storage,
        study,
        session.stages,
        worker=session.worker,
        observer=session.observer,
        excluding=session.skipped,
        among=present,
    )
    if claim:
        raise GivesWay(claim)
    slots = _slots(session, study, present)
    unheld, is_any_held = _of_other_studies(session)
    if is_any_held or any(slot.state is SlotState.LEASED for slot in slots.values()):
        return False
    if unheld:
        other, (stage, slot) = min(unheld, key=lambda one: _n_epochs(session, *one))
        _remove(session, other, [(stage, slot)])
        session.emit(
            "gave_room", study=other.name, stage=stage, slot=slot, reason="a trial of another study took its space"
        )
        return True
    waiting = [slot for slot in slots.values() if slot.state is SlotState.WAITING]
    if not waiting:
        return False
    least = min(waiting, key=_promise)
    if not RungBook(storage, study, least.stage).give_up(least.slot):
        return False
    _remove(session, study, [(least.stage, least.slot)])
    return True


def _of_other_studies(session: Session) -> tuple[list[tuple[Study, SlotKey]], bool]:
    """Return the trials of other studies with a checkpoint that nobody holds, and whether somebody holds one."""
    unheld, is_any_held = [], False
    for study, keys in slots_of_others(session.checkpoints, list_studies(session.storage)):
        if _is_own(session, study):
            continue
        abandoned = surveys.survey(session.storage, study, list(Stage), session.observer).abandoned
        for key, slot in _slots(session, study, keys).items():
            if slot.state is SlotState.LEASED and key not in abandoned:
                is_any_held = True
            elif slot.state in OPEN:
                unheld.append((study, key))
    return unheld, is_any_held


def _is_own(session: Session, study: Study) -> bool:
    return study.uuid == session.study.uuid


def _n_epochs(session: Session, study: Study, key: SlotKey) -> int:
    return len(epochs_of(session.storage, study, *key))


def _slots(session: Session, study: Study, keys: Collection[SlotKey]) -> Mapping[SlotKey, AnySlot]:
    stages = {stage for stage, _ in keys}
    rows = [slot for stage in stages for slot in ledger.slots(session.storage, study, stage)]
    return {(slot.stage, slot.slot): slot for slot in rows if (slot.stage, slot.slot) in keys}


def _promise(slot: AnySlot) -> tuple[int, float, int]:
    """Return how promising a waiting slot is: the epoch of its rung, its value there; of equal ones the first."""
    outcome = slot.if_not_promoted
    assert outcome is not None
    return outcome.stopped_epoch or 0, outcome.value or 0.0, -slot.slot


def _remove(session: Session, study: Study, keys: Collection[SlotKey]) -> None:
    for stage, slot in keys:
        session.checkpoints.remove(checkpoint_key(study, stage, slot))
