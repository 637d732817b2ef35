"""Checks this machine, the storage, the place of the checkpoints and the data set. No check depends on another."""

import io
import os
import platform
import shutil
import socket
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import sqlalchemy
import torch

from mhist_tune.data import cache
from mhist_tune.errors import MhistTuneError, NoStorageError
from mhist_tune.storage import studies, tables
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.heartbeats import load_workers
from mhist_tune.worker.checkpoint_places import open_files

SHARED_MEMORY = Path("/dev/shm")
_GB = 1e9
_CHECKPOINTS_GB = 5.0  # two states of a ViT-B/16 while a third one is written
_CLOCKS_S = 5.0
_LATENCY_S = 0.05
_N_PINGS = 9
_SQLITE_WORKERS = 16
_N_CONNECTIONS = 10


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: what was checked.
        found: the result in words.
        hint: what to do about a warning or a failure.
    """

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    hint: str | None = None


def examine(storage_url: str, data_root: Path | None, checkpoints: str | None = None) -> list[Check]:
    """Return the checks of this machine, of the data set, of the storage and of the place of the checkpoints.

    Args:
        storage_url: see `open_storage`. It is not created if it is missing.
        data_root: the folder of the data set; None for none.
        checkpoints: see `open_files`; None to leave it out.
    """
    checks = [_python(), *_devices(), _shared_memory()]
    fingerprint = None
    if data_root is None:
        checks.append(Check("data", "warn", "no data set was named", "--data DIR or MHIST_TUNE_DATA"))
    else:
        try:
            fingerprint = cache.fingerprint(data_root)
            checks.append(Check("data", "ok", f"{data_root}, fingerprint of the train images {fingerprint[:12]}"))
        except MhistTuneError as error:
            checks.append(_failed("data", error))
    try:
        with open_storage(storage_url, create=False) as storage:
            checks += [*_database(storage), _folder(storage.root), *_studies(storage, fingerprint)]
    except NoStorageError as error:
        checks.append(Check("database", "warn", str(error), error.hint))
    except MhistTuneError as error:
        checks.append(_failed("database", error))
    if checkpoints is not None:
        checks.append(_checkpoints(checkpoints))
    return checks


def to_text(checks: list[Check]) -> str:
    """Return one line for each check, and one for each hint."""
    lines = []
    for check in checks:
        lines.append(f"{check.state:4}  {check.name}: {check.found}")
        if check.hint:
            lines.append(f"      hint: {check.hint}")
    return "\n".join(lines)


def _failed(name: str, error: MhistTuneError) -> Check:
    return Check(name, "fail", str(error), error.hint)


def _python() -> Check:
    n_cores = len(os.sched_getaffinity(0))
    return Check("python", "ok", f"{platform.python_version()} at {sys.executable}, {n_cores} cores")


def _devices() -> Iterator[Check]:
    name = f"torch {torch.__version__}"
    if not torch.cuda.is_available():
        advice = "a search on a GPU is far faster; if this machine has one, install the torch that fits its driver"
        yield Check(name, "warn", "no CUDA device, so workers run on the CPU", advice)
        return
    for index in range(torch.cuda.device_count()):
        label = f"cuda:{index}"
        try:
            free, total = torch.cuda.mem_get_info(index)
            torch.ones(8, device=label).sum().item()
        except RuntimeError as error:
            yield Check(label, "fail", f"{error}".splitlines()[0], "see nvidia-smi, or leave it out with --devices")
            continue
        text = f"{torch.cuda.get_device_name(index)}, {free / _GB:.1f} of {total / _GB:.1f} GB free, {name}"
        hint = None if free > total / 2 else "other processes use most of its memory"
        yield Check(label, "warn" if hint else "ok", text, hint)


def _shared_memory() -> Check:
    if not SHARED_MEMORY.is_dir():
        return Check("shared memory", "ok", "this machine has no limit of its own")
    free = shutil.disk_usage(SHARED_MEMORY).free
    hint = None if free > 0.05 * _GB else "start the container with more, such as --shm-size=1g"
    return Check("shared memory", "warn" if hint else "ok", f"{free / _GB:.2f} GB free in {SHARED_MEMORY}", hint)


def _database(storage: Storage) -> Iterator[Check]:
    query = "SELECT sqlite_version()" if storage.dialect == "sqlite" else "SHOW server_version"
    version = storage.read(lambda connection: connection.execute(sqlalchemy.text(query)).scalar())
    yield Check("database", "ok", f"{storage.dialect} {version}, {storage.url_safe}")
    if storage.dialect == "postgresql":
        yield from _server(storage)

    answers_s, differences_s = [], []
    for _ in range(_N_PINGS):
        started, clock = time.perf_counter(), time.time()
        now = storage.now()
        answers_s.append(time.perf_counter() - started)
        differences_s.append(now - clock - answers_s[-1] / 2)
    latency_s = statistics.median(answers_s)
    slow = "every epoch makes about five round trips; put the database nearer to the workers"
    hint = slow if latency_s > _LATENCY_S else None
    yield Check("latency", "warn" if hint else "ok", f"{1000 * latency_s:.1f} ms for an answer", hint)
    difference_s = statistics.median(differences_s)
    advice = "leases use the database's clock alone, but times on pages will be wrong: synchronize the clocks (NTP)"
    is_off = abs(difference_s) > _CLOCKS_S
    text = f"the database's is {difference_s:+.1f} s from this machine's"
    yield Check("clocks", "warn" if is_off else "ok", text, advice if is_off else None)
    if storage.dialect == "sqlite":
        yield _sqlite_workers(storage)


def _server(storage: Storage) -> Iterator[Check]:
    """Check what this user may do on a PostgreSQL server, and how many connections are left."""
    query = sqlalchemy.text(
        "SELECT current_schema() AS schema, current_setting('transaction_read_only') AS read_only, "
        "current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int - count(*) "
        "AS n_left, current_setting('max_connections') AS n_most "
        "FROM pg_stat_activity WHERE backend_type = 'client backend'"
    )
    row = storage.read(lambda connection: connection.execute(query).one())
    if row.read_only == "on":
        yield Check("writing", "fail", "the server accepts no writes", "name the primary, or wait for the failover")
    rights = sqlalchemy.text(
        "SELECT name FROM unnest(CAST(:names AS text[])) AS name WHERE NOT (has_table_privilege(name, 'SELECT') AND "
        "has_table_privilege(name, 'INSERT') AND has_table_privilege(name, 'UPDATE') AND "
        "has_table_privilege(name, 'DELETE'))"
    )
    names = [*tables.metadata.tables, "studies", "trials"]
    lacking = storage.read(lambda connection: connection.execute(rights, {"names": names}).scalars().all())
    if lacking:
        advice = f"GRANT ALL ON ALL TABLES IN SCHEMA {row.schema} and on its sequences to this user"
        yield Check("rights", "fail", f"this user may not write to {', '.join(lacking)}", advice)
    else:
        yield Check("rights", "ok", f"this user may write to all tables in the schema {row.schema}")
    hint = None if row.n_left > _N_CONNECTIONS else "raise max_connections, or put PgBouncer before the server"
    text = f"{row.n_left} of {row.n_most} connections are left; a worker needs one, and a second one for moments"
    yield Check("connections", "warn" if hint else "ok", text, hint)


def _sqlite_workers(storage: Storage) -> Check:
    now = storage.now()
    alive = [worker for worker in load_workers(storage) if now - worker["seen_at"] < 600]
    others = {worker["host"] for worker in alive} - {socket.gethostname()}
    text = f"{len(alive)} seen within ten minutes"
    hint = "share PostgreSQL instead: --storage postgresql://USER@HOST/DATABASE"
    if others:
        return Check("workers", "fail", f"{text}, some on other hosts ({', '.join(sorted(others))})", hint)
    return Check("workers", "ok", text) if len(alive) <= _SQLITE_WORKERS else Check("workers", "warn", text, hint)


def _folder(root: Path) -> Check:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=root) as file:
            file.write(b"doctor")
            file.flush()
            os.fsync(file.fileno())
        free_gb = shutil.disk_usage(root).free / _GB
    except OSError as error:
        return Check("folder", "fail", f"{root} cannot be written: {error.strerror}", "make it writable")
    text = f"{root} is writable, {free_gb:.1f} GB free"
    if free_gb < _CHECKPOINTS_GB:
        return Check(
            "folder", "warn", text, "checkpoints of large models need more; training waits while the disk is full"
        )
    return Check("folder", "ok", text)


def _checkpoints(place: str) -> Check:
    try:
        files = open_files(place, Path())
        name = f"doctor/{uuid.uuid4().hex}"
        files.write(name, io.BytesIO(b"doctor"))
        is_same = files.read(name) == b"doctor"
        files.remove(name)
    except MhistTuneError as error:
        return _failed("checkpoints", error)
    except OSError as error:
        return Check("checkpoints", "fail", f"{place} cannot be used: {error}", "make it readable and writable")
    if not is_same:
        return Check("checkpoints", "fail", f"{place} returns something else than was written", "use another store")
    return Check("checkpoints", "ok", f"{place} can be written and read")


def _studies(storage: Storage, fingerprint: str | None) -> Iterator[Check]:
    if fingerprint is None:
        return
    for study in studies.list_studies(storage):
        if study.dataset.get("fingerprint") == fingerprint:
            yield Check(f"study {study.name}", "ok", "was created with these images")
        else:
            hint = "point --data to the copy of the data set that it was created with"
            yield Check(f"study {study.name}", "warn", "was created with other images", hint)
