"""Records the events of a study and reads them. Recording one needs no claim."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy

from mhist_tune.storage import tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study

CHECKPOINT = "checkpoint"
"""The kind of event that records where a trial's checkpoints are: `place`, see `Files.place`."""

VERSION = "version"
"""The kind of event that records that another version of the code than the study's trains a slot: `code_version`."""


@dataclass(frozen=True)
class EventRow:
    """An event of a study.

    Attributes:
        stage, slot: what it is about; None if it is about the study.
        at: epoch seconds.
        kind: its name.
        detail: JSON; the keys depend on the kind.
    """

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
    """Record an event. If the answer of the database is lost, it may be recorded twice."""
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
    """Return the events of a study in their order. `kind`, `stage` and `slot` select some of them."""
    table = tables.events
    conditions = {"study": study.uuid, "kind": kind, "stage": stage, "slot": slot}
    query = sqlalchemy.select(*(table.c[name] for name in EventRow.__dataclass_fields__)).order_by(table.c.id)
    query = query.where(*(table.c[name] == value for name, value in conditions.items() if value is not None))
    rows = storage.read(lambda connection: connection.execute(query).all())
    return [EventRow(**row._mapping) for row in rows]
