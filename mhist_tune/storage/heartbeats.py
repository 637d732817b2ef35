"""One row for each worker: what it does and when it was last seen."""

import os
import socket
from typing import Any

import sqlalchemy
from sqlalchemy import Executable

from mhist_tune.storage import tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.studies import Study


def heartbeat(
    storage: Storage, worker: str, *, study: str | None, device: str, state: str, **progress: Any
) -> Executable:
    """Return the statement that records what a worker of this process does now.

    Args:
        storage: the database in which it will be executed.
        worker: the name of the worker.
        study: the UUID of its study.
        device: torch's name of its device.
        state: its activity, one word.
        progress: any of stage, slot, trial_number, epoch, images_per_s, memory_bytes; null is stored for the others.
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


def load_workers(storage: Storage, study: Study | None = None) -> list[dict[str, Any]]:
    """Return the row of each worker that was ever seen (in a study), the most recently seen first."""
    table = tables.workers
    query = sqlalchemy.select(table).order_by(table.c.seen_at.desc())
    if study is not None:
        query = query.where(table.c.study == study.uuid)
    return [dict(row._mapping) for row in storage.read(lambda connection: connection.execute(query).all())]
