"""The queries that select slots, and the order in which they are claimed."""

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement

from mhist_tune.storage import tables
from mhist_tune.storage.leases import SlotKey
from mhist_tune.storage.stages import Stage
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


def is_one_of(keys: Collection[SlotKey]) -> ColumnElement[bool]:
    """Return the condition that selects some slots of a study."""
    return sqlalchemy.tuple_(tables.slots.c.stage, tables.slots.c.slot).in_(list(keys))
