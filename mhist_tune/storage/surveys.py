"""What a worker could claim of a study now: free slots, and slots that their holders abandoned.

One statement reads it. Its cost depends on the number of leases, not on the number of slots.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, Connection, Row

from mhist_tune.storage import tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.leases import LeaseObserver, SlotKey
from mhist_tune.storage.slot_queries import is_one_of
from mhist_tune.storage.stages import OPEN, SlotState, Stage, StudyState
from mhist_tune.storage.studies import Study

_LATE = 0.6
"""Leases that end within this share of their length are read. A holder renews after a third, so a healthy one is not
among them."""


@dataclass(frozen=True)
class Survey:
    """The slots of some stages of a study, as they were read.

    Attributes:
        state: the state of the study; None if it was deleted.
        free: the stages that have a free slot, in the order of the claims.
        leases: (token, expires_at) of each lease that was not renewed in time, in the order of the claims.
        abandoned: the slots that may be taken over, in that order.
        leased: the stages that have a leased slot.
        waiting: the stages that have a slot that waits at a rung.
        n_interruptions: `Storage.n_interruptions` after the database answered.
    """

    state: StudyState | None
    free: tuple[Stage, ...]
    leases: dict[SlotKey, tuple[int, float | None]]
    abandoned: tuple[SlotKey, ...]
    leased: tuple[Stage, ...]
    waiting: tuple[Stage, ...]
    n_interruptions: int

    @property
    def is_open(self) -> bool:
        """Whether a slot is neither done nor cancelled."""
        return bool(self.free or self.leased or self.waiting)

    @property
    def is_claimable(self) -> bool:
        """Whether a slot may be claimed: the study is not paused, and a slot is free or abandoned."""
        return self.state not in (None, StudyState.PAUSED) and bool(self.free or self.abandoned)


def survey(
    storage: Storage,
    study: Study,
    stages: Sequence[Stage],
    observer: LeaseObserver,
    *,
    excluding: Collection[SlotKey] = (),
    among: Collection[SlotKey] | None = None,
    retry_s: float | None = None,
) -> Survey:
    """Return what could be claimed. The arguments are those of `ledger.claim`.

    Args:
        retry_s: see `Storage.read`.
    """
    queried_at = observer.clock()
    query = _query(storage, study, stages, is_free(excluding, among))
    rows = storage.read(lambda connection: connection.execute(query).all(), retry_s=retry_s)
    n_interruptions = storage.n_interruptions
    rank = {stage: index for index, stage in enumerate(stages)}
    late = sorted(
        (row for row in rows if row.stage is not None), key=lambda row: (rank[row.stage], -row.priority, row.slot)
    )
    leases = {(row.stage, row.slot): (row.token, row.expires_at) for row in late}
    abandoned = observer.abandoned(
        study.uuid,
        leases,
        lease_s=study.definition.lease_s,
        queried_at=queried_at,
        n_interruptions=n_interruptions,
    )
    first = rows[0] if rows else None

    def having(state: SlotState) -> tuple[Stage, ...]:
        return tuple(stage for stage in stages if first is not None and getattr(first, f"{state}_{stage}"))

    return Survey(
        state=first.study_state if first else None,
        free=having(SlotState.FREE),
        leases=leases,
        abandoned=tuple(key for key in abandoned if key not in excluding and (among is None or key in among)),
        leased=having(SlotState.LEASED),
        waiting=having(SlotState.WAITING),
        n_interruptions=n_interruptions,
    )


def next_free(
    connection: Connection,
    study: Study,
    stages: Sequence[Stage],
    condition: ColumnElement[bool],
    may_begin: Callable[[Connection], bool] | None = None,
) -> Row[Any] | None:
    """Return the free slot that comes next, locked until the transaction ends. Slots that others lock are left out.

    A search slot without a trial is left out where `may_begin` says so.

    One query for each stage: the index has the slots of a stage in the order in which they are claimed.
    """
    table = tables.slots
    for stage in stages:
        query = sqlalchemy.select(table).where(_in_state(study, stage, SlotState.FREE), condition)
        query = query.order_by(table.c.priority.desc(), table.c.slot).limit(1).with_for_update(skip_locked=True)
        row = connection.execute(query).first()
        is_new = row is not None and stage == Stage.SEARCH and row.trial_number is None
        if is_new and may_begin is not None and not may_begin(connection):
            row = connection.execute(query.where(table.c.trial_number.is_not(None))).first()
        if row is not None:
            return row
    return None


def _among(keys: Collection[SlotKey]) -> ColumnElement[bool]:
    return is_one_of(keys) if keys else sqlalchemy.false()


def is_free(excluding: Collection[SlotKey], among: Collection[SlotKey] | None) -> ColumnElement[bool]:
    """Return the condition that leaves out the slots `excluding`, and all but `among` if that is given."""
    condition = ~_among(excluding)
    return condition if among is None else sqlalchemy.and_(condition, _among(among))


def _query(
    storage: Storage, study: Study, stages: Sequence[Stage], condition: ColumnElement[bool]
) -> sqlalchemy.Select[Any]:
    late = tables.slots.alias("late")
    is_late = sqlalchemy.and_(
        late.c.study == tables.studies.c.uuid,
        late.c.state == SlotState.LEASED,
        late.c.stage.in_(stages),
        sqlalchemy.or_(
            late.c.expires_at.is_(None), late.c.expires_at < storage.clock + _LATE * study.definition.lease_s
        ),
    )

    def is_any(state: SlotState, stage: Stage) -> ColumnElement[bool]:
        found = sqlalchemy.select(sqlalchemy.literal(1)).select_from(tables.slots)
        found = found.where(_in_state(study, stage, state), condition if state is SlotState.FREE else sqlalchemy.true())
        return sqlalchemy.exists(found)

    return (
        sqlalchemy.select(
            tables.studies.c.state.label("study_state"),
            *(is_any(state, stage).label(f"{state}_{stage}") for state in OPEN for stage in stages),
            late.c.stage,
            late.c.slot,
            late.c.priority,
            late.c.token,
            late.c.expires_at,
        )
        .select_from(tables.studies.outerjoin(late, is_late))
        .where(tables.studies.c.uuid == study.uuid)
    )


def _in_state(study: Study, stage: Stage, state: SlotState) -> ColumnElement[bool]:
    c = tables.slots.c
    return sqlalchemy.and_(c.study == study.uuid, c.state == state, c.stage == stage)
