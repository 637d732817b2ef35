"""The checkpoints of one claimed slot: their place, the workers that can resume them, and their removal at the end.

The place of a trial's checkpoints is recorded in the database as soon as one of them is durable. A worker that cannot
read the place skips the slot. If nobody has trained the trial ten minutes later, and no other slot is left, the worker
begins the trial anew. Recorded epochs stay and are not recorded twice.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from mhist_tune.errors import StorageError, StoreUnreachableError
from mhist_tune.storage import event_log, ledger
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.leases import Claim, LeaseKeeper, SlotKey, StaleTokenError
from mhist_tune.storage.outcome import Outcome
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study
from mhist_tune.training.checkpoints.writer import CheckpointWriter
from mhist_tune.worker.session import Elsewhere, Session

PATIENCE_S = 600.0
"""The time that a worker leaves a trial to the workers that can read its checkpoint."""

_UNREACHABLE_S = 30.0
_WAIT_S = 10.0


class LeftToOthers(Exception):
    """Raised where this worker cannot read the trial's checkpoint, so that another worker runs the slot."""


class TrialCheckpoints:
    """The checkpoints of a slot while this worker holds its lease.

    Args:
        session: the worker's session.
        claim: the slot as claimed.
        keeper: knows when the lease is lost.
        where: returns the fields of an event that name the trial.

    Attributes:
        writer: used by `fit`.
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
        """Record the place of the trial's checkpoints when the first is durable, once for each lease."""
        if self.writer.saved_epoch is None:
            return
        self._is_blocked = False
        if not self._is_announced:
            place = self.writer.store.place
            if self._announced_place() != place:
                self._event({"place": place})
            self._is_announced = True

    def tidy(self) -> None:
        """Remove the checkpoints of this study's finished trials, now that the outcome of this slot is decided.

        The best search trial in this store keeps its checkpoints.
        """
        session, store, mine = self._session, self.writer.store, (self._claim.stage, self._claim.slot)
        while True:
            try:
                present = {_slot_of(key) for key in store.keys(f"{session.study.folder_name}/")} | {mine}
                outcomes = ledger.outcomes(session.storage, session.study, present)
                best = _best(outcomes)
                if mine == best:
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
        """Wait a while for space, or for the store. The lease is kept meanwhile."""
        if not self._is_blocked:
            self._is_blocked = True
            self._session.emit("blocked", **self._where(), reason=f"{error}; it goes on, with nothing lost, after that")
        self._session.stop.wait(_WAIT_S)
        if self._keeper.lost.is_set():
            raise StaleTokenError(self._claim)

    def _check_elsewhere(self, error: StoreUnreachableError | None) -> None:
        """Skip the slot if the trial has a checkpoint that this worker cannot read.

        Raises:
            LeftToOthers: it has one.
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
        before = session.elsewhere.get(key)
        found = Elsewhere(None if error else place, n_epochs, now + (_UNREACHABLE_S if error else PATIENCE_S))
        if before is not None and before.is_unchanged(found) and before.again_at <= now and error is None:
            del session.elsewhere[key]
            session.emit("anew", **self._where(), reason=f"nobody has resumed it from {place}")
            return
        session.elsewhere[key] = found
        reason = str(error) if error else f"its checkpoint is in {place}, which is not reached here ({here})"
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


def checkpoint_key(study: Study, stage: Stage, slot: int) -> str:
    """Return the key of a slot's checkpoints."""
    return f"{study.folder_name}/{stage}-{slot:05d}"


def _slot_of(key: str) -> SlotKey:
    stage, _, slot = key.rpartition("/")[2].rpartition("-")
    return Stage(stage), int(slot)


def _best(outcomes: Mapping[SlotKey, Outcome]) -> SlotKey | None:
    """Return the best complete search trial, of equal ones the first."""
    complete = {
        (stage, slot): outcome.value
        for (stage, slot), outcome in outcomes.items()
        if stage == Stage.SEARCH and outcome.is_complete and outcome.value is not None
    }
    return max(complete, key=lambda key: (complete[key], -key[1]), default=None)
