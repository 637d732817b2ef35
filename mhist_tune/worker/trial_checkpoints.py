"""The checkpoints of one claimed slot: recorded place, waiting for space or for the store, takeover, removal.

The place of a trial's checkpoints is recorded in the database as soon as one of them is durable. A worker that cannot
read the place skips the slot. If no worker has trained the trial ten minutes later, and no other slot is left, the
worker begins the trial anew. Recorded epochs stay and are not recorded twice. While the disk of the checkpoints is full
or their store is unreachable, the worker waits. A full disk has room again by `checkpoint_room`.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from mhist_tune.definition.scores import sets_trivial_apart
from mhist_tune.errors import DiskFullError, StorageError, StoreUnreachableError
from mhist_tune.storage import event_log, ledger
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.leases import Claim, LeaseKeeper, SlotKey, StaleTokenError
from mhist_tune.storage.outcome import Outcome
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study
from mhist_tune.training.checkpoints.writer import CheckpointWriter
from mhist_tune.worker import checkpoint_room
from mhist_tune.worker.checkpoint_keys import checkpoint_key, slots_in
from mhist_tune.worker.session import Session, SkippedSlot

PATIENCE_S = 600.0
"""The seconds for which a worker leaves a trial to the workers that can read its checkpoint."""

_UNREACHABLE_S = 30.0
_WAIT_S = 10.0


class LeftToOthers(Exception):
    """Raised where this worker cannot read the trial's checkpoint, so that another worker runs the slot."""


class TrialCheckpoints:
    """The checkpoints of a slot while this worker holds its lease.

    Args:
        session: the worker's session.
        claim: the slot as claimed.
        keeper: knows whether the lease is lost.
        where: returns the event fields that name the trial.

    Attributes:
        writer: writes and reads the checkpoints for `fit`.
    """

    def __init__(
        self, session: Session, claim: Claim, keeper: LeaseKeeper, where: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._session, self._claim, self._keeper, self._where = session, claim, keeper, where
        self._is_announced = self._is_blocked = False
        self.writer = CheckpointWriter(
            session.checkpoints,
            checkpoint_key(session.study, claim.stage, claim.slot),
            claim.token,
            shares_cores=session.device.type == "cpu",
            on_wait=self._wait,
            on_missing=self._check_elsewhere,
            on_unsaved=lambda error: session.emit("unsaved", **where(), reason=str(error)),
        )

    def announce(self) -> None:
        """Record the place of the trial's checkpoints once for each lease, when a checkpoint is durable."""
        if self.writer.saved_epoch is None:
            return
        self._is_blocked = False
        if not self._is_announced:
            place = self.writer.store.place
            if self._announced_place() != place:
                self._event({"place": place})
            self._is_announced = True

    def tidy(self) -> None:
        """Remove the checkpoints of this study's finished trials from this store. Call it once the outcome is decided.

        The best search trial in this store keeps its checkpoints.

        Raises:
            StaleTokenError: the lease was lost while this worker waited for the store.
        """
        session, store, own = self._session, self.writer.store, (self._claim.stage, self._claim.slot)
        while True:
            try:
                present = slots_in(store, session.study) | {own}
                outcomes = ledger.outcomes(session.storage, session.study, present)
                best = _best(session.study, outcomes)
                if own == best:
                    self.writer.finish()
                else:
                    self.writer.discard()
                for stage, slot in outcomes.keys() - {best}:
                    store.remove(checkpoint_key(session.study, stage, slot))
            except StoreUnreachableError as error:
                self._wait(error)
            else:
                return

    def _wait(self, error: StorageError) -> None:
        """Make room, or wait `_WAIT_S` seconds for space or for the store. Emit an event at the first wait in a row.

        Raises:
            GivesWay: this worker goes on with another trial.
            StaleTokenError: the lease was lost meanwhile.
        """
        own = (self._claim.stage, self._claim.slot)
        if isinstance(error, DiskFullError):
            if checkpoint_room.remove_ended(self._session, own):
                return
            if self._is_blocked and checkpoint_room.make_room(self._session, own):
                return
        if not self._is_blocked:
            self._is_blocked = True
            self._session.emit(
                "blocked", **self._where(), reason=f"{error}; the worker goes on after that, and nothing is lost"
            )
        self._session.stop.wait(_WAIT_S)
        if self._keeper.lost.is_set():
            raise StaleTokenError(self._claim)

    def _check_elsewhere(self, error: StoreUnreachableError | None) -> None:
        """Skip the slot if the trial has a checkpoint that this worker cannot read.

        Raises:
            LeftToOthers: the trial has such a checkpoint.
        """
        session, claim, here = self._session, self._claim, self.writer.store.place
        place = None if claim.n_claims == 1 else self._announced_place()
        if place is None:
            return
        if error is None and place == here:
            session.emit("anew", **self._where(), reason=f"no checkpoint in {here} is whole")
            return
        key, now = (claim.stage, claim.slot), time.monotonic()
        n_epochs = len(epochs_of(session.storage, session.study, *key))
        before = session.skipped.get(key)
        skipped = SkippedSlot(None if error else place, n_epochs, now + (_UNREACHABLE_S if error else PATIENCE_S))
        if before is not None and before.is_unchanged(skipped) and before.again_at <= now and error is None:
            del session.skipped[key]
            session.emit("anew", **self._where(), reason=f"no worker has resumed it from {place}")
            return
        session.skipped[key] = skipped
        reason = str(error) if error else f"its checkpoint is in {place}, which cannot be reached from here ({here})"
        if before is None:
            session.emit("unreachable", **self._where(), reason=f"{reason}; it is left to other workers")
        raise LeftToOthers(reason)

    def _announced_place(self) -> str | None:
        claim = self._claim
        rows = event_log.events(
            self._session.storage, self._session.study, kind=event_log.CHECKPOINT, stage=claim.stage, slot=claim.slot
        )
        return str(rows[-1].detail["place"]) if rows else None

    def _event(self, detail: Mapping[str, Any]) -> None:
        claim = self._claim
        event_log.event(
            self._session.storage,
            self._session.study,
            kind=event_log.CHECKPOINT,
            stage=claim.stage,
            slot=claim.slot,
            detail=detail,
        )


def _best(study: Study, outcomes: Mapping[SlotKey, Outcome]) -> SlotKey | None:
    """Return the best complete search trial.

    The order is that of `selection.ranked`, which needs every slot of the study with its payload. This function runs
    after every trial, so it reads only the outcomes of the few trials in this store. In a table it is the best trial of
    any row, while `selection.best` is the first seed of the best row.
    """
    apart = sets_trivial_apart(study.definition.score, study.definition.at)
    complete = {
        (stage, slot): (not (apart and outcome.is_trivial), outcome.value)
        for (stage, slot), outcome in outcomes.items()
        if stage == Stage.SEARCH and outcome.is_complete and outcome.value is not None
    }
    return max(complete, key=lambda key: (complete[key], -key[1]), default=None)
