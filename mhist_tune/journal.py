"""Entries that belong to a study and to no claim: openings of the test partition, workers, events."""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Executable

from mhist_tune import studies, tables
from mhist_tune.stages import Stage
from mhist_tune.storage import Storage
from mhist_tune.studies import Study

CHECKPOINT = "checkpoint"
"""The kind of event that records the place of a trial's checkpoints: `place`, see `Files.place`."""


@dataclass(frozen=True)
class OpeningRow:
    """One opening of the test partition.

    Attributes:
        opened_at: epoch seconds.
        payload: what it was opened for.
        fingerprint: of the test partition.
    """

    id: int
    opened_at: float
    by: str
    code_version: str
    reason: str | None
    payload: dict[str, Any]
    fingerprint: str


@dataclass(frozen=True)
class EventRow:
    """Something worth telling; `at` is in epoch seconds."""

    id: int
    stage: Stage | None
    slot: int | None
    at: float
    kind: str
    detail: dict[str, Any]


def record_opening(
    storage: Storage,
    study: Study,
    *,
    by: str,
    code_version: str,
    reason: str | None,
    payload: dict[str, Any],
    fingerprint: str,
    slots: Sequence[Mapping[str, Any]] = (),
    stage: Stage = Stage.RETRAIN,
) -> int:
    """Record an opening of the test partition and add its slots, together; return its id.

    An opening with the same payload is the same opening: it is returned, and nothing is written.

    Args:
        storage: where the study is.
        study: the study.
        by: who opens it.
        code_version: of mhist-tune.
        reason: why.
        payload: what it is opened for, JSON.
        fingerprint: of the test partition.
        slots: a payload for each slot; `opening`, the id, is added to each.
        stage: of these slots.
    """
    table = tables.openings
    known = sqlalchemy.select(table.c.id, table.c.payload).where(table.c.study == study.uuid)

    def work(connection: Connection) -> int:
        studies.lock_study(connection, study)
        for opening_id, opened_for in connection.execute(known):
            if opened_for == payload:
                return int(opening_id)
        row = {
            "study": study.uuid,
            "opened_at": storage.clock,
            "by": by,
            "code_version": code_version,
            "reason": reason,
            "payload": payload,
            "fingerprint": fingerprint,
        }
        inserted = connection.execute(sqlalchemy.insert(table).values(row).returning(table.c.id)).scalar_one()
        studies.insert_slots(connection, study.uuid, stage, [{**slot, "opening": inserted} for slot in slots])
        return int(inserted)

    return storage.transaction(work)


def openings(storage: Storage, study: Study) -> list[OpeningRow]:
    """Return every opening of the test partition for a study, the first one first."""
    table = tables.openings
    query = sqlalchemy.select(*(table.c[name] for name in OpeningRow.__dataclass_fields__))
    query = query.where(table.c.study == study.uuid).order_by(table.c.id)
    rows = storage.read(lambda connection: connection.execute(query).all())
    return [OpeningRow(**row._mapping) for row in rows]


def heartbeat(
    storage: Storage, worker: str, *, study: str | None, device: str, state: str, **progress: Any
) -> Executable:
    """Return the statement which notes that a worker of this process is alive, and where it is.

    Args:
        storage: where to.
        worker: its name.
        study: UUID of the study that it works on.
        device: torch's name of its device.
        state: what it does, one word.
        progress: any of stage, slot, trial_number, epoch, images_per_s, memory_bytes; null where left out.
    """
    table = tables.workers
    now = {
        "study": study,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": device,
        "state": state,
        "seen_at": storage.clock,
        **dict.fromkeys(("stage", "slot", "trial_number", "epoch", "images_per_s", "memory_bytes")),
        **progress,
    }
    insert = storage.insert(table).values(worker=worker, started_at=storage.clock, **now)
    changed = {name: insert.excluded[name] for name in now}
    return insert.on_conflict_do_update(index_elements=[table.c.worker], set_=changed)


def workers(storage: Storage, study: Study | None = None) -> list[dict[str, Any]]:
    """Return every worker ever seen (of a study), the last seen first, with the columns of `mhist_workers`."""
    table = tables.workers
    query = sqlalchemy.select(table).order_by(table.c.seen_at.desc())
    if study is not None:
        query = query.where(table.c.study == study.uuid)
    return [dict(row._mapping) for row in storage.read(lambda connection: connection.execute(query).all())]


def event(
    storage: Storage,
    study: Study,
    *,
    kind: str,
    stage: Stage | None = None,
    slot: int | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write down something worth telling; a lost answer from the database may write it twice."""
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
    """Return the events of a study (of a kind, a stage, a slot), the first one first."""
    table = tables.events
    wanted = {"study": study.uuid, "kind": kind, "stage": stage, "slot": slot}
    query = sqlalchemy.select(*(table.c[name] for name in EventRow.__dataclass_fields__)).order_by(table.c.id)
    query = query.where(*(table.c[name] == one for name, one in wanted.items() if one is not None))
    rows = storage.read(lambda connection: connection.execute(query).all())
    return [EventRow(**row._mapping) for row in rows]
