"""Claims, finishes, adds and lists slots; a slot holds the state of one trial.

A slot is one unit of a study's budget. One worker at a time claims it, and it is finished once. A claim raises the
slot's token. Every later write names the token and is refused if the slot has another one.
"""

import json
import uuid
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, overload

import sqlalchemy
from sqlalchemy import Connection, Row

from mhist_tune.errors import UsageError
from mhist_tune.storage import announcements, studies, surveys, tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.leases import Claim, LeaseObserver, SlotKey, is_claimed, is_held
from mhist_tune.storage.outcome import Outcome
from mhist_tune.storage.payloads import Payload
from mhist_tune.storage.slot_queries import in_order, is_one_of, of_stages
from mhist_tune.storage.slot_rows import (
    AnySlot,
    ConfirmSlot,
    DescriptiveSlot,
    RetrainSlot,
    SearchSlot,
    StudySlots,
    read_slot,
)
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.storage.studies import Study
from mhist_tune.storage.surveys import Survey

_ADDED = "slots_added"


def claim(
    storage: Storage,
    study: Study,
    stages: Sequence[Stage],
    *,
    worker: str,
    observer: LeaseObserver,
    excluding: Collection[SlotKey] = (),
    among: Collection[SlotKey] | None = None,
    may_begin: Callable[[Connection], bool] | None = None,
) -> Claim | None:
    """Take over a slot that its holder abandoned, or claim a free one.

    Abandoned slots come first, because their trials are furthest. Then come free ones. Both are ordered by stage as
    given, then by priority, then by number. Slots of a paused study are not claimed. While others hold slots, call
    this or `watch` at least twice in the length of a lease: a takeover needs several observations (`LeaseObserver`).

    Args:
        storage: the database of the study.
        study: the study; its definition has the length of a lease.
        stages: the stages to claim from.
        worker: the name of the worker that will hold the slot.
        observer: that of this process, the same in every call.
        excluding: slots that this worker leaves to others.
        among: the only slots that may be claimed; None for all.
        may_begin: decides, under the lock of the study, whether a free search slot without a trial may be claimed; None
            if it always may.

    Returns:
        The claim; None if there is nothing to claim now.
    """
    found = surveys.survey(storage, study, stages, observer, excluding=excluding, among=among)
    return take(storage, study, found, worker=worker, excluding=excluding, among=among, may_begin=may_begin)


def take(
    storage: Storage,
    study: Study,
    found: Survey,
    *,
    worker: str,
    excluding: Collection[SlotKey] = (),
    among: Collection[SlotKey] | None = None,
    may_begin: Callable[[Connection], bool] | None = None,
) -> Claim | None:
    """Claim one of the slots that a survey found, if one is still there. The other arguments are those of `claim`."""
    if not found.is_claimable:
        return None
    nonce = f"{worker}:{uuid.uuid4().hex}"
    is_repeated = False

    def work(connection: Connection) -> Claim | None:
        nonlocal is_repeated
        if may_begin is not None:
            studies.lock_study(connection, study)
        if is_repeated:  # if the answer to the commit was lost, the nonce finds the claim of the first run
            claimed = connection.execute(_held_by(study, nonce)).first()
            if claimed is not None:
                return Claim.from_row(claimed)
        is_repeated = True
        # after an outage the holders need time to renew
        is_current = storage.n_interruptions == found.n_interruptions
        for stage, slot in found.abandoned if is_current else ():
            token, expires_at = found.leases[stage, slot]
            same = sqlalchemy.select(tables.slots).where(
                of_stages(study, [stage]),
                tables.slots.c.slot == slot,
                tables.slots.c.state == SlotState.LEASED,
                tables.slots.c.token == token,
                tables.slots.c.expires_at == expires_at,
            )
            row = connection.execute(same.with_for_update(skip_locked=True)).first()
            if row is not None:
                return _take(storage, connection, study, row, nonce)
        row = surveys.next_free(connection, study, found.free, surveys.is_free(excluding, among), may_begin)
        return None if row is None else _take(storage, connection, study, row, nonce)

    return storage.transaction(work)


def watch(storage: Storage, study: Study, stages: Sequence[Stage], observer: LeaseObserver) -> None:
    """Observe the leases of a study's stages once, without a second try, for a later `claim` from the same stages."""
    surveys.survey(storage, study, stages, observer, retry_s=0.0)


def release(storage: Storage, claim: Claim, *, retry_s: float | None = None) -> bool:
    """Make the slot free for any worker. Return False if the claim no longer holds."""
    return _end(storage, claim, SlotState.FREE, retry_s)


def finish(storage: Storage, claim: Claim) -> bool:
    """Mark the slot as done. Return False if the claim no longer holds."""
    return _end(storage, claim, SlotState.DONE, None)


def attach_trial(storage: Storage, claim: Claim, trial_id: int, number: int) -> bool:
    """Store the slot's Optuna trial. Return False if the claim no longer holds or the slot has another trial."""
    column = tables.slots.c.trial_id
    has_no_other = sqlalchemy.or_(column.is_(None), column == trial_id)
    values = {"trial_id": trial_id, "trial_number": number}
    update = sqlalchemy.update(tables.slots).where(is_held(claim), has_no_other).values(values)
    return storage.transaction(lambda connection: connection.execute(update).rowcount == 1)


def decide(storage: Storage, claim: Claim, outcome: Outcome) -> bool:
    """Store the outcome of the slot, unless it has one. The first outcome is final.

    Returns:
        Whether `outcome` is now that of the slot and the claim holds.
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
        storage: the database of the study.
        study: the study.
        stage: the stage of the slots.
        added: what each new slot has to train.
        priority: slots with a higher one are claimed first.
        key: later calls with the same key add nothing and return the slots of the first; None for a key of its own.
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
    """Cancel the free slots of a stage, or of all stages, that have no trial yet, and return their number."""
    condition = of_stages(study, None if stage is None else [stage])
    is_new = sqlalchemy.and_(tables.slots.c.state == SlotState.FREE, tables.slots.c.trial_number.is_(None))
    update = sqlalchemy.update(tables.slots).where(condition, is_new)
    return storage.transaction(lambda connection: connection.execute(update.values(state=SlotState.CANCELLED)).rowcount)


def counts(storage: Storage, study: Study, stage: Stage) -> dict[SlotState, int]:
    """Return the number of slots of a stage in each state. States without slots are left out."""
    state = tables.slots.c.state
    n_slots = sqlalchemy.func.count().label("n_slots")
    query = sqlalchemy.select(state, n_slots).where(of_stages(study, [stage])).group_by(state)
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
    """Return all slots of a stage in the order of their numbers."""
    rows = storage.read(lambda connection: connection.execute(in_order(study, [stage])).all())
    rows = sorted(rows, key=lambda row: row.slot)
    return [read_slot(row) for row in rows]


def of_trial(storage: Storage, study: Study, number: int) -> SearchSlot:
    """Return the search slot of the trial with that number.

    Raises:
        UsageError: there is no such trial.
    """
    table = tables.slots
    is_trial = sqlalchemy.and_(of_stages(study, [Stage.SEARCH]), table.c.trial_number == number)
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
    """Return the outcomes of some slots. Undecided and waiting slots are left out."""
    table = tables.slots
    query = sqlalchemy.select(table.c.stage, table.c.slot, table.c.outcome)
    decided = query.where(of_stages(study, None), is_one_of(keys), table.c.outcome.is_not(None))
    rows = storage.read(lambda connection: connection.execute(decided).all())
    return {(row.stage, row.slot): row.outcome for row in rows}


def _take(storage: Storage, connection: Connection, study: Study, row: Row[Any], nonce: str) -> Claim | None:
    """Claim the slot of `row`; None if it has changed since it was read."""
    table = tables.slots
    same = sqlalchemy.and_(of_stages(study, [row.stage]), table.c.slot == row.slot, table.c.token == row.token)
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
    return Claim.from_row(connection.execute(_held_by(study, nonce)).one())


def _end(storage: Storage, claim: Claim, state: SlotState, retry_s: float | None) -> bool:
    table = tables.slots
    can_end = sqlalchemy.and_(
        is_claimed(table, claim), table.c.token == claim.token, table.c.state.in_((SlotState.LEASED, state))
    )
    update = sqlalchemy.update(table).where(can_end).values(state=state, expires_at=None)

    def work(connection: Connection) -> bool:
        has_ended = connection.execute(update).rowcount == 1
        if has_ended and state is SlotState.FREE:
            announcements.announce(connection, claim.study_uuid)
        return has_ended

    return storage.transaction(work, retry_s=retry_s)


def _held_by(study: Study, nonce: str) -> sqlalchemy.Select[Any]:
    table = tables.slots
    return sqlalchemy.select(table).where(
        of_stages(study, None), table.c.state == SlotState.LEASED, table.c.owner == nonce
    )
