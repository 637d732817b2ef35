"""The ledger of slots: each is one unit of a study's budget, claimed by one worker at a time and finished once.

A claim raises the slot's token; every later write names the token and is refused when it is no longer the slot's.
"""

import json
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, overload

import sqlalchemy
from sqlalchemy import ColumnElement, Connection, Row

from mhist_tune.errors import UsageError
from mhist_tune.storage import payloads, studies, tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.leases import Claim, LeaseObserver, SlotKey, is_claimed, is_held
from mhist_tune.storage.outcome import Outcome
from mhist_tune.storage.payloads import ConfirmPayload, DescriptivePayload, Payload, RetrainPayload, SearchPayload
from mhist_tune.storage.stages import SlotState, Stage, StudyState
from mhist_tune.storage.studies import Study

_ADDED = "slots_added"


P_co = TypeVar("P_co", bound=Payload, covariant=True)


@dataclass(frozen=True)
class SlotRow(Generic[P_co]):
    """A slot as it is stored.

    Attributes:
        owner: who holds it, or held it last; None if nobody ever did.
        expires_at: end of the lease, epoch seconds; None if it is not leased.
        n_claims: how often it has been claimed.
        priority: the higher, the sooner it is claimed.
        outcome: what was decided; None before.
        if_not_promoted: of a waiting slot, the outcome it has unless it is promoted; None for every other.
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
    """The slots of a study by stage, each by number."""

    search: Sequence[SearchSlot]
    confirm: Sequence[ConfirmSlot]
    retrain: Sequence[RetrainSlot]
    descriptive: Sequence[DescriptiveSlot]

    def of(self, stage: Stage) -> Sequence[AnySlot]:
        """Return the slots of a stage."""
        slots: Sequence[AnySlot] = getattr(self, stage)
        return slots


def claim(
    storage: Storage,
    study: Study,
    stages: Sequence[Stage],
    *,
    worker: str,
    observer: LeaseObserver,
    excluding: Collection[SlotKey] = (),
) -> Claim | None:
    """Claim a free slot, or one whose holder is gone; None if there is nothing to claim now.

    Free slots come first: by stage in the given order, then by priority, then by number. Nothing is claimed of a study
    that is paused. Call it again and again while others hold slots, best at least twice in a lease, since
    a lease can be taken over only after it was watched (`LeaseObserver`).

    Args:
        storage: where the study is.
        study: its lease length counts.
        stages: those to serve.
        worker: the name under which the slot is held.
        observer: this process's, the same in every call.
        excluding: slots to leave to others.
    """
    asked_at = observer.clock()
    is_any_free, leases = storage.read(lambda connection: _survey(connection, study, stages, excluding))
    abandoned = observer.abandoned(
        study.uuid,
        leases,
        lease_s=study.definition.lease_s,
        asked_at=asked_at,
        n_interruptions=storage.n_interruptions,
    )
    if not is_any_free and not abandoned:
        return None
    nonce = f"{worker}:{uuid.uuid4().hex}"
    n_interruptions = storage.n_interruptions

    def work(connection: Connection) -> Claim | None:
        # run a second time after a lost answer, the nonce finds what the first commit did
        mine = connection.execute(_slots(study, stages).where(tables.slots.c.owner == nonce)).first()
        if mine is not None:
            return _claim(mine)
        free = _free(study, stages, excluding).with_for_update(skip_locked=True)
        row = connection.execute(free).first()
        if row is not None:
            return _take(storage, connection, study, row, nonce)
        if storage.n_interruptions != n_interruptions:  # the database was away since: the others need time to renew
            return None
        for stage, slot in (key for key in abandoned if key not in excluding):
            token, expires_at = leases[stage, slot]
            same = _slots(study, [stage]).where(
                tables.slots.c.slot == slot,
                tables.slots.c.state == SlotState.LEASED,
                tables.slots.c.token == token,
                tables.slots.c.expires_at == expires_at,
            )
            row = connection.execute(same.with_for_update(skip_locked=True)).first()
            if row is not None:
                return _take(storage, connection, study, row, nonce)
        return None

    return storage.transaction(work)


def release(storage: Storage, claim: Claim, *, retry_s: float | None = None) -> bool:
    """Give the slot back, free for anyone; False if the claim no longer holds."""
    return _end(storage, claim, SlotState.FREE, retry_s)


def finish(storage: Storage, claim: Claim) -> bool:
    """Mark the slot as done; False if the claim no longer holds."""
    return _end(storage, claim, SlotState.DONE, None)


def attach_trial(storage: Storage, claim: Claim, trial_id: int, number: int) -> bool:
    """Store the slot's Optuna trial; False if the claim no longer holds or the slot has another trial."""
    column = tables.slots.c.trial_id
    is_mine = sqlalchemy.or_(column.is_(None), column == trial_id)
    values = {"trial_id": trial_id, "trial_number": number}
    update = sqlalchemy.update(tables.slots).where(is_held(claim), is_mine).values(values)
    return storage.transaction(lambda connection: connection.execute(update).rowcount == 1)


def decide(storage: Storage, claim: Claim, outcome: Outcome) -> bool:
    """Store what came of the slot; the first outcome stands.

    Returns:
        Whether `outcome` is now the slot's, and the claim holds.
    """
    update = sqlalchemy.update(tables.slots).where(is_held(claim), tables.slots.c.outcome.is_(None))
    query = sqlalchemy.select(tables.slots.c.outcome).where(is_held(claim))

    def work(connection: Connection) -> bool:
        if connection.execute(update.values(outcome=outcome)).rowcount == 1:
            return True
        row = connection.execute(query).first()
        return row is not None and row.outcome == Outcome.from_json(json.loads(json.dumps(outcome.to_json())))

    return storage.transaction(work)


def add_slots(
    storage: Storage,
    study: Study,
    stage: Stage,
    added: Sequence[Payload],
    priority: int = 0,
    *,
    key: str | None = None,
) -> list[int]:
    """Add one free slot for each of `added`, and return their numbers.

    Args:
        storage: where the study is.
        study: the study.
        stage: the slots' stage.
        added: what each new slot is to do.
        priority: the higher, the sooner they are claimed.
        key: slots of one key are added once; later calls return the first ones. Every call has its own by default.
    """
    key = key or uuid.uuid4().hex

    def work(connection: Connection) -> list[int]:
        studies.lock_study(connection, study)
        events = tables.events
        query = sqlalchemy.select(events.c.detail).where(events.c.study == study.uuid, events.c.stage == stage)
        for detail in connection.execute(query.where(events.c.kind == _ADDED)).scalars():
            if detail["key"] == key:
                return list(detail["slots"])
        numbers = studies.insert_slots(connection, study.uuid, stage, added, priority=priority)
        detail = {"key": key, "slots": numbers}
        row = {"study": study.uuid, "stage": stage, "at": storage.clock, "kind": _ADDED, "detail": detail}
        connection.execute(sqlalchemy.insert(events).values(row))
        return numbers

    return storage.transaction(work)


def cancel_free(storage: Storage, study: Study, stage: Stage | None = None) -> int:
    """Cancel the slots of a stage, or of all, that nobody has begun, and return how many these were."""
    condition = _of(study, None if stage is None else [stage])
    is_new = sqlalchemy.and_(tables.slots.c.state == SlotState.FREE, tables.slots.c.trial_number.is_(None))
    update = sqlalchemy.update(tables.slots).where(condition, is_new)
    return storage.transaction(lambda connection: connection.execute(update.values(state=SlotState.CANCELLED)).rowcount)


def counts(storage: Storage, study: Study, stage: Stage) -> dict[SlotState, int]:
    """Return how many slots of a stage are in each state; states without slots are left out."""
    state = tables.slots.c.state
    n_slots = sqlalchemy.func.count().label("n_slots")
    query = sqlalchemy.select(state, n_slots).where(_of(study, [stage])).group_by(state)
    rows = storage.read(lambda connection: connection.execute(query).all())
    return {row.state: row.n_slots for row in rows}


@overload
def slots(storage: Storage, study: Study, stage: Literal[Stage.SEARCH]) -> list[SearchSlot]: ...


@overload
def slots(storage: Storage, study: Study, stage: Literal[Stage.CONFIRM]) -> list[ConfirmSlot]: ...


@overload
def slots(storage: Storage, study: Study, stage: Literal[Stage.RETRAIN]) -> list[RetrainSlot]: ...


@overload
def slots(storage: Storage, study: Study, stage: Literal[Stage.DESCRIPTIVE]) -> list[DescriptiveSlot]: ...


@overload
def slots(storage: Storage, study: Study, stage: Stage) -> list[AnySlot]: ...


def slots(storage: Storage, study: Study, stage: Stage) -> Sequence[AnySlot]:
    """Return all slots of a stage by number."""
    rows = storage.read(lambda connection: connection.execute(_slots(study, [stage])).all())
    rows = sorted(rows, key=lambda row: row.slot)
    return [read_slot(row) for row in rows]


def of_trial(storage: Storage, study: Study, number: int) -> SearchSlot:
    """Return the search slot of the trial of that number.

    Raises:
        UsageError: there is none.
    """
    table = tables.slots
    is_trial = sqlalchemy.and_(_of(study, [Stage.SEARCH]), table.c.trial_number == number)
    row = storage.read(lambda connection: connection.execute(sqlalchemy.select(table).where(is_trial)).first())
    if row is None:
        raise UsageError(f"study {study.name} has no trial {number}")
    return read_slot(row)


def all_slots(storage: Storage, study: Study) -> StudySlots:
    """Return all slots of a study."""
    return StudySlots(
        search=slots(storage, study, Stage.SEARCH),
        confirm=slots(storage, study, Stage.CONFIRM),
        retrain=slots(storage, study, Stage.RETRAIN),
        descriptive=slots(storage, study, Stage.DESCRIPTIVE),
    )


def outcomes(storage: Storage, study: Study, keys: Collection[SlotKey]) -> dict[SlotKey, Outcome]:
    """Return what was decided for some slots. Undecided and waiting slots are left out."""
    table = tables.slots
    query = sqlalchemy.select(table.c.stage, table.c.slot, table.c.outcome).where(_of(study, None), _is_one_of(keys))
    decided = query.where(table.c.outcome.is_not(None))
    rows = storage.read(lambda connection: connection.execute(decided).all())
    return {(row.stage, row.slot): row.outcome for row in rows}


def _survey(
    connection: Connection, study: Study, stages: Sequence[Stage], excluding: Collection[SlotKey]
) -> tuple[bool, dict[SlotKey, tuple[int, float | None]]]:
    state = connection.execute(
        sqlalchemy.select(tables.studies.c.state).where(tables.studies.c.uuid == study.uuid)
    ).scalar()
    if state == StudyState.PAUSED:
        return False, {}
    free = connection.execute(_free(study, stages, excluding)).first()
    leased = connection.execute(_slots(study, stages).where(tables.slots.c.state == SlotState.LEASED)).all()
    return free is not None, {(row.stage, row.slot): (row.token, row.expires_at) for row in leased}


def _take(storage: Storage, connection: Connection, study: Study, row: Row[Any], nonce: str) -> Claim | None:
    """Take over a slot that is still as it was read: one row changed means that it is ours."""
    table = tables.slots
    same = sqlalchemy.and_(_of(study, [row.stage]), table.c.slot == row.slot, table.c.token == row.token)
    values = {
        "token": row.token + 1,
        "state": SlotState.LEASED,
        "owner": nonce,
        "expires_at": storage.clock + study.definition.lease_s,
        "n_claims": row.n_claims + 1,
    }
    is_unchanged = sqlalchemy.and_(
        table.c.state == row.state,
        table.c.expires_at.is_not_distinct_from(row.expires_at),  # a renewal keeps the token
    )
    update = sqlalchemy.update(table).where(same, is_unchanged).values(values)
    if connection.execute(update).rowcount != 1:
        return None
    return _claim(connection.execute(_slots(study, [row.stage]).where(table.c.owner == nonce)).one())


def _end(storage: Storage, claim: Claim, state: SlotState, retry_s: float | None) -> bool:
    table = tables.slots
    is_mine = sqlalchemy.and_(
        is_claimed(table, claim), table.c.token == claim.token, table.c.state.in_((SlotState.LEASED, state))
    )
    update = sqlalchemy.update(table).where(is_mine).values(state=state, expires_at=None)
    return storage.transaction(lambda connection: connection.execute(update).rowcount == 1, retry_s=retry_s)


def _of(study: Study, stages: Sequence[Stage] | None) -> ColumnElement[bool]:
    condition = tables.slots.c.study == study.uuid
    return condition if stages is None else sqlalchemy.and_(condition, tables.slots.c.stage.in_(stages))


def _slots(study: Study, stages: Sequence[Stage]) -> sqlalchemy.Select[Any]:
    """Return the query for slots in the order in which they are claimed."""
    table = tables.slots
    rank = sqlalchemy.case({stage: index for index, stage in enumerate(stages)}, value=table.c.stage)
    return sqlalchemy.select(table).where(_of(study, stages)).order_by(rank, table.c.priority.desc(), table.c.slot)


def _free(study: Study, stages: Sequence[Stage], excluding: Collection[SlotKey]) -> sqlalchemy.Select[Any]:
    """Return the query for the free slot that is claimed next."""
    return _slots(study, stages).where(tables.slots.c.state == SlotState.FREE, ~_is_one_of(excluding)).limit(1)


def _is_one_of(keys: Collection[SlotKey]) -> ColumnElement[bool]:
    return sqlalchemy.tuple_(tables.slots.c.stage, tables.slots.c.slot).in_(list(keys))


def read_slot(row: Row[Any]) -> SlotRow[Any]:
    """Return the slot of a row with all columns of a `SlotRow`."""
    fields = {name: getattr(row, name) for name in SlotRow.__dataclass_fields__}
    return SlotRow(**{**fields, "payload": payloads.from_json(row.stage, row.payload)})


def _claim(row: Row[Any]) -> Claim:
    return Claim(
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
