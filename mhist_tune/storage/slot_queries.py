"""The queries that select slots, and the order in which they are claimed."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, Connection, Row

from mhist_tune.storage import tables
from mhist_tune.storage.leases import SlotKey
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.storage.studies import Study


def of_stages(study: Study, stages: Sequence[Stage] | None) -> ColumnElement[bool]:
    """Return the condition that selects the slots of some stages of a study; None for all stages."""
    condition = tables.slots.c.study == study.uuid
    return condition if stages is None else sqlalchemy.and_(condition, tables.slots.c.stage.in_(stages))


def in_order(study: Study, stages: Sequence[Stage]) -> sqlalchemy.Select[Any]:
    """Return the query for slots in the order in which they are claimed."""
    table = tables.slots
    rank = sqlalchemy.case({stage: index for index, stage in enumerate(stages)}, value=table.c.stage)
    query = sqlalchemy.select(table).where(of_stages(study, stages))
    return query.order_by(rank, table.c.priority.desc(), table.c.slot)


def next_free(
    connection: Connection,
    study: Study,
    stages: Sequence[Stage],
    is_free: ColumnElement[bool],
    may_begin: Callable[[Connection], bool] | None,
    *,
    lock: bool = False,
) -> Row[Any] | None:
    """Return the free slot that comes next, with `lock` locked; None if there is none."""
    query = in_order(study, stages).where(is_free).limit(1)
    if lock:
        query = query.with_for_update(skip_locked=True)
    row = connection.execute(query).first()
    if row is None or may_begin is None or not _is_new(row) or may_begin(connection):
        return row
    table = tables.slots.c
    is_begun = sqlalchemy.or_(table.stage != Stage.SEARCH, table.trial_number.is_not(None))
    return connection.execute(query.where(is_begun)).first()


def _is_new(row: Row[Any]) -> bool:
    return bool(row.stage == Stage.SEARCH and row.trial_number is None)


def is_free_among(excluding: Collection[SlotKey], among: Collection[SlotKey] | None) -> ColumnElement[bool]:
    """Return the condition that selects free slots, without `excluding`; with `among`, only those of it."""
    condition = sqlalchemy.and_(tables.slots.c.state == SlotState.FREE, ~is_one_of(excluding))
    return condition if among is None else sqlalchemy.and_(condition, is_one_of(among))


def is_one_of(keys: Collection[SlotKey]) -> ColumnElement[bool]:
    """Return the condition that selects some slots of a study."""
    return sqlalchemy.tuple_(tables.slots.c.stage, tables.slots.c.slot).in_(list(keys))
