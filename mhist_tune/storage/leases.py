"""Claims of slots, the fence of their writes, renewal and takeover of leases.

A worker that holds a slot has its current token and renews its lease. A lease is lost only by a takeover, which raises
the token. From then on every write of the old holder is refused (fencing). The end of a lease by the clock is not
enough for a takeover: see `LeaseObserver`.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, Connection, Row, Table

from mhist_tune.errors import MhistTuneError
from mhist_tune.storage import payloads, tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.outcome import Outcome
from mhist_tune.storage.payloads import Payload
from mhist_tune.storage.stages import SlotState, Stage

SlotKey = tuple[Stage, int]
"""The stage and the number of a slot within a study."""

_JOIN_S = 5.0


def _watch_nothing() -> None:
    pass


@dataclass(frozen=True)
class Claim:
    """A slot that this process holds, as it was when it was claimed.

    Attributes:
        token: 1 for the first claim of the slot; each claim raises it by one.
        payload: what the slot has to train.
        trial_id: Optuna's id of the slot's trial; None until one is attached.
        trial_number: Optuna's number of that trial; None until one is attached.
        n_claims: number of claims of the slot, including this one.
        outcome: what an earlier holder decided before it was stopped; None if the slot is undecided.
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

    @classmethod
    def from_row(cls, row: Row[Any]) -> "Claim":
        """Return the claim of a row of `tables.slots` that was just claimed."""
        return cls(
            study_uuid=row.study,
            stage=row.stage,
            slot=row.slot,
            token=row.token,
            payload=payloads.from_json(row.stage, row.payload),
            trial_id=row.trial_id,
            trial_number=row.trial_number,
            n_claims=row.n_claims,
            outcome=row.outcome,
        )


class StaleTokenError(MhistTuneError):
    """Another worker holds the slot, or it was released. Nothing was written."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(f"slot {claim.slot} of {claim.stage} is no longer held with token {claim.token}")


def is_claimed(table: Table, claim: Claim) -> ColumnElement[bool]:
    """Return the condition that selects the rows of the claimed slot in a table."""
    c = table.c
    return sqlalchemy.and_(c.study == claim.study_uuid, c.stage == claim.stage, c.slot == claim.slot)


def is_held(claim: Claim) -> ColumnElement[bool]:
    """Return the condition that selects the row of the claimed slot while the claim holds."""
    return sqlalchemy.and_(
        is_claimed(tables.slots, claim), tables.slots.c.token == claim.token, tables.slots.c.state == SlotState.LEASED
    )


def fence(connection: Connection, claim: Claim) -> None:
    """Make sure that the claim holds until the end of the transaction, by a lock on the slot's row.

    Raises:
        StaleTokenError: the claim no longer holds.
    """
    query = sqlalchemy.select(tables.slots.c.slot).where(is_held(claim)).with_for_update(read=True)
    if connection.execute(query).first() is None:
        raise StaleTokenError(claim)


def renew(storage: Storage, claim: Claim, lease_s: float, *, retry_s: float | None = None) -> bool:
    """Let the lease end `lease_s` seconds from now. Return False if the claim no longer holds."""
    return storage.transaction(lambda connection: prolong(connection, storage, claim, lease_s), retry_s=retry_s)


def prolong(connection: Connection, storage: Storage, claim: Claim, lease_s: float) -> bool:
    """Renew the lease within a transaction. The claim then holds until its end.

    Returns:
        False if the claim no longer holds.
    """
    update = sqlalchemy.update(tables.slots).where(is_held(claim)).values(expires_at=storage.clock + lease_s)
    return connection.execute(update).rowcount == 1


class LeaseKeeper:
    """Renews a lease in a thread of its own while the context is open, three times in the length of a lease.

    At the same intervals it observes the leases of others, so that a worker that trains for hours finds an abandoned
    trial when it claims its next slot. Each recorded epoch renews the lease too; `renewed` then delays the next
    renewal. The thread goes on after an error, since nobody can take the slot while the database is unreachable (see
    `LeaseObserver`). Only a takeover ends it early.

    Args:
        storage: the database of the slot.
        claim: the claim to keep.
        lease_s: the length of the lease, in seconds.
        watch: called as often as the lease has to be renewed; it observes the leases of other workers.

    Attributes:
        lost: set by the first renewal after a takeover or a release of the slot.
    """

    def __init__(
        self, storage: Storage, claim: Claim, lease_s: float, *, watch: Callable[[], None] = _watch_nothing
    ) -> None:
        self.lost = threading.Event()
        self._storage = storage
        self._claim = claim
        self._lease_s = lease_s
        self._watch = watch
        self._ended = threading.Event()
        self._renewed_at = self._watched_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def __enter__(self) -> "LeaseKeeper":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        # While the database is unreachable the thread may hang in a connect. It is a daemon and renews nothing more.
        self._thread.join(_JOIN_S)

    def renewed(self, at: float) -> None:
        """Note that something else began a renewal at `at`, on the monotonic clock in seconds."""
        self._renewed_at = at

    def _run(self) -> None:
        interval_s = self._lease_s / 3
        while not self._ended.wait(max(0.0, min(self._renewed_at, self._watched_at) + interval_s - time.monotonic())):
            now = time.monotonic()
            if now >= self._renewed_at + interval_s:
                self._renewed_at = now  # also after a failure: the next try follows after the same interval
                with contextlib.suppress(Exception):  # whatever the error is, the next renewal may succeed
                    if not renew(self._storage, self._claim, self._lease_s, retry_s=interval_s):
                        self.lost.set()
                        return
            if now >= self._watched_at + interval_s:
                self._watched_at = now
                with contextlib.suppress(Exception):
                    self._watch()


@dataclass(frozen=True)
class _Observation:
    lease: tuple[int, float | None]
    unchanged_s: float
    n_interruptions: int
    answered_at: float


class LeaseObserver:
    """Watches the leases of other workers and finds those that nobody renews. Each process has one for its threads.

    A takeover is allowed after a lease's (token, expires_at) was seen unchanged for the full length of a lease. A
    living holder changes expires_at three times in that time. Only the clock of this process is used, so clocks of
    different machines need not agree. Time in which the database was unreachable does not count:

    - An outage that this process noticed starts the watch again.
    - Between two observations at most half a lease counts. So an outage that this process did not notice, because it
      was busy, never suffices: the next observation shows that the holder has renewed.

    Args:
        clock: returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._observations: dict[str, dict[SlotKey, _Observation]] = {}
        self._lock = threading.Lock()

    def abandoned(
        self,
        study_uuid: str,
        leases: Mapping[SlotKey, tuple[int, float | None]],
        *,
        lease_s: float,
        queried_at: float,
        n_interruptions: int,
    ) -> list[SlotKey]:
        """Note the leases just read, and return the slots whose lease was unchanged for the length of a lease.

        Args:
            study_uuid: the study of these slots. Its slots that are not in `leases` are forgotten.
            leases: (token, expires_at) of each leased slot.
            lease_s: the length of a lease, in seconds.
            queried_at: `clock` just before the database was queried.
            n_interruptions: `Storage.n_interruptions` after it answered.
        """
        with self._lock:
            answered_at = self.clock()
            previous = self._observations.get(study_uuid, {})
            observations: dict[SlotKey, _Observation] = {}
            for key, lease in leases.items():
                last = previous.get(key)
                unchanged_s = 0.0
                if last is not None and last.lease == lease and last.n_interruptions == n_interruptions:
                    watched_s = max(0.0, queried_at - last.answered_at)  # two threads may ask at the same time
                    unchanged_s = last.unchanged_s + min(watched_s, lease_s / 2)
                observations[key] = _Observation(lease, unchanged_s, n_interruptions, answered_at)
            self._observations[study_uuid] = observations
        return [key for key, observation in observations.items() if observation.unchanged_s >= lease_s]
