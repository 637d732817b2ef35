"""What it means to hold a slot: the claim with its token, the lease that a thread renews, and watching others' leases.

A lease is lost only by being taken over, which raises the slot's token; every write of the old holder is refused from
then on (fencing). Nobody takes over because a clock says so: see `LeaseObserver`.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType

import sqlalchemy
from sqlalchemy import ColumnElement, Connection, Table

from mhist_tune.errors import MhistTuneError
from mhist_tune.storage import tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.outcome import Outcome
from mhist_tune.storage.payloads import Payload
from mhist_tune.storage.stages import SlotState, Stage

SlotKey = tuple[Stage, int]
"""Stage and slot, within one study."""

_JOIN_S = 5.0


@dataclass(frozen=True)
class Claim:
    """A slot that this process holds, as it was when it was claimed.

    Attributes:
        token: grows by one with every claim of the slot; 1 for the first.
        payload: what the slot is to do.
        trial_id: Optuna's id of the slot's trial, None until one is attached.
        n_claims: how often the slot has been claimed, this time included.
        outcome: what an earlier holder decided and did not finish; None if nothing was decided.
    """

    study_uuid: str
    stage: Stage
    slot: int
    token: int
    payload: Payload
    trial_id: int | None
    trial_number: int | None
    n_claims: int
    outcome: Outcome | None


class StaleTokenError(MhistTuneError):
    """Another worker holds the slot now, or it was released; nothing was written."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(f"slot {claim.slot} of {claim.stage} is no longer held with token {claim.token}")


def is_claimed(table: Table, claim: Claim) -> ColumnElement[bool]:
    """Return the condition that picks the claimed slot's rows of a table."""
    c = table.c
    return sqlalchemy.and_(c.study == claim.study_uuid, c.stage == claim.stage, c.slot == claim.slot)


def is_held(claim: Claim) -> ColumnElement[bool]:
    """Return the condition that picks the claimed slot's row while the claim holds."""
    return sqlalchemy.and_(
        is_claimed(tables.slots, claim), tables.slots.c.token == claim.token, tables.slots.c.state == SlotState.LEASED
    )


def fence(connection: Connection, claim: Claim) -> None:
    """Make sure that the claim holds until the transaction ends.

    Raises:
        StaleTokenError: it does not.
    """
    query = sqlalchemy.select(tables.slots.c.slot).where(is_held(claim)).with_for_update(read=True)
    if connection.execute(query).first() is None:
        raise StaleTokenError(claim)


def renew(storage: Storage, claim: Claim, lease_s: float, *, retry_s: float | None = None) -> bool:
    """Let the lease end `lease_s` seconds from now; False if the claim no longer holds."""
    return storage.transaction(lambda connection: prolong(connection, storage, claim, lease_s), retry_s=retry_s)


def prolong(connection: Connection, storage: Storage, claim: Claim, lease_s: float) -> bool:
    """Renew the lease within a transaction, until the end of which the claim then holds; False if it does not."""
    update = sqlalchemy.update(tables.slots).where(is_held(claim)).values(expires_at=storage.clock + lease_s)
    return connection.execute(update).rowcount == 1


class LeaseKeeper:
    """Renews a lease every third of it from a thread of its own, while the context is open.

    A renewal by something else (`renewed`), as by every recorded epoch, counts. The thread outlives every error: while
    the database is unreachable nobody can take the slot (see `LeaseObserver`). So only a takeover ends it early.

    Attributes:
        lost: set when the slot was found to be somebody else's.
    """

    def __init__(self, storage: Storage, claim: Claim, lease_s: float) -> None:
        self.lost = threading.Event()
        self._storage = storage
        self._claim = claim
        self._lease_s = lease_s
        self._ended = threading.Event()
        self._renewed_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def __enter__(self) -> "LeaseKeeper":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        # While the database is away the thread may be deep in a connect; it is a daemon and renews nothing any more.
        self._thread.join(_JOIN_S)

    def renewed(self, at: float) -> None:
        """Take note of a renewal that began at `at`, on the monotonic clock."""
        self._renewed_at = at

    def _run(self) -> None:
        interval_s = self._lease_s / 3
        while not self._ended.wait(max(0.0, self._renewed_at + interval_s - time.monotonic())):
            now = time.monotonic()
            if now < self._renewed_at + interval_s:
                continue
            self._renewed_at = now  # also if it fails: the next try comes after the same interval
            try:
                is_ours = renew(self._storage, self._claim, self._lease_s, retry_s=interval_s)
            except Exception:  # whatever it was, the next try is the remedy
                continue
            if not is_ours:
                self.lost.set()
                return


@dataclass(frozen=True)
class _Sighting:
    lease: tuple[int, float | None]
    seen_s: float
    n_interruptions: int
    answered_at: float


class LeaseObserver:
    """Watches other workers' leases and tells which of them nobody keeps; one for each process.

    A lease may be taken over after its (token, expires_at) was seen unchanged for the length of a full lease. A living
    holder changes expires_at every third of it. Only this process's own clock is used, so no clock has to agree with
    another, and time in which the database was away does not count:

    - an interruption that this process noticed starts the watch again;
    - between two sightings at most half a lease counts, so that one that it did not notice, because it was busy, is not
      enough either: the holder is seen to have renewed at the next sighting.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._sightings: dict[str, dict[SlotKey, _Sighting]] = {}

    def abandoned(
        self,
        study_uuid: str,
        leases: Mapping[SlotKey, tuple[int, float | None]],
        *,
        lease_s: float,
        asked_at: float,
        n_interruptions: int,
    ) -> list[SlotKey]:
        """Note the leases that the database has just shown, and return those that were unchanged for a full lease.

        Args:
            study_uuid: the study they belong to; what was seen of it before and is not here is forgotten.
            leases: (token, expires_at) of each leased slot.
            lease_s: the length of a lease.
            asked_at: `clock` just before the database was asked.
            n_interruptions: of the storage, after it answered.
        """
        answered_at = self.clock()
        before = self._sightings.get(study_uuid, {})
        seen: dict[SlotKey, _Sighting] = {}
        for key, lease in leases.items():
            last = before.get(key)
            seen_s = 0.0
            if last is not None and last.lease == lease and last.n_interruptions == n_interruptions:
                seen_s = last.seen_s + min(asked_at - last.answered_at, lease_s / 2)
            seen[key] = _Sighting(lease, seen_s, n_interruptions, answered_at)
        self._sightings[study_uuid] = seen
        return [key for key, sighting in seen.items() if sighting.seen_s >= lease_s]
