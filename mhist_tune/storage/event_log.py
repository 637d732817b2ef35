"""Events of a study, which belong to no claim."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy

from mhist_tune.storage import tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study

CHECKPOINT = "checkpoint"
"""The kind of event that records the place of a trial's checkpoints: `place`, see `Files.place`."""


@dataclass(frozen=True)
class EventRow:
    """An event of a study; `at` is in epoch seconds."""

    id: int
    stage: Stage | None
    slot: int | None
    at: float
    kind: str
    detail: dict[str, Any]


def event(
    storage: Storage,
    study: Study,
    *,
    kind: str,
    stage: Stage | None = None,
    slot: int | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Record an event. Where the answer of the database is lost, it may be recorded twice."""
    row = {
        "study": study.uuid,
        "stage": stage,
        "slot": slot,
        "at": storage.clock,
        "kind": kind,
        "detail": dict(detail or {}),
    }
    storage.transaction(lambda connection: connection.execute(sqlalchemy.insert(tables.events).values(row)))


def events(
    storage: Storage, study: Study, *, kind: str | None = None, stage: Stage | None = None, slot: int | None = None
) -> list[EventRow]:
    """Return the events of a study (of a kind, a stage, a slot) in their order."""
    table = tables.events
    wanted = {"study": study.uuid, "kind": kind, "stage": stage, "slot": slot}
    query = sqlalchemy.select(*(table.c[name] for name in EventRow.__dataclass_fields__)).order_by(table.c.id)
    query = query.where(*(table.c[name] == one for name, one in wanted.items() if one is not None))
    rows = storage.read(lambda connection: connection.execute(query).all())
    return [EventRow(**row._mapping) for row in rows]
