"""An append-only chain of hashes over the openings of the test partition.

Each entry holds the hash of the entry before it. A changed, removed or inserted entry therefore breaks the chain, and a
hash that was printed or noted fixes every entry up to its own. The hash of an entry is the SHA-256 of the text
`PREVIOUS NEWLINE CONTENT`, in UTF-8; for the first entry `PREVIOUS` is 64 zeros.
"""

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy
from sqlalchemy import Connection

from mhist_tune.storage import tables
from mhist_tune.storage.database import Storage

START = "0" * 64
"""The previous hash of the first entry."""

_LOCK = 0x6D686368  # key of the PostgreSQL lock under which entries are appended


class Kind(StrEnum):
    """What an entry records about its opening."""

    OPENED = "opened"
    """The opening, before any test image is read."""

    READ = "read"
    """The fingerprint of the test images, once all of them were read."""

    FAILED = "failed"
    """The opening failed before any prediction, and why."""


OPENED_COLUMNS = (
    "study",
    "study_name",
    "definition_sha256",
    "comparison",
    "opened_at",
    "by",
    "code_version",
    "reason",
    "payload",
    "test_rows",
)
"""The columns of an opening that its first entry repeats."""


@dataclass(frozen=True)
class Entry:
    """An entry of the chain. `content` is the stored text, a JSON object."""

    id: int
    opening: int
    kind: Kind
    content: str
    previous: str
    hash: str


def lock(storage: Storage, connection: Connection) -> None:
    """Let no other process append until the transaction ends. SQLite has one writer anyway."""
    if storage.dialect == "postgresql":
        connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(_LOCK)))


def append(connection: Connection, opening: int, kind: Kind, content: dict[str, Any]) -> str:
    """Append an entry and return its hash. The caller has called `lock`."""
    table = tables.opening_chain
    last = connection.execute(sqlalchemy.select(table.c.hash).order_by(table.c.id.desc()).limit(1)).scalar()
    previous = last or START
    text = json.dumps({"kind": kind, "opening": opening, **content}, sort_keys=True, allow_nan=False)
    row = {"opening": opening, "kind": kind, "content": text, "previous": previous, "hash": hash_of(previous, text)}
    connection.execute(sqlalchemy.insert(table).values(row))
    return str(row["hash"])


def hash_of(previous: str, content: str) -> str:
    """Return the hash of an entry."""
    return hashlib.sha256(f"{previous}\n{content}".encode()).hexdigest()


def load_chain(storage: Storage) -> list[Entry]:
    """Return all entries in their order."""
    table = tables.opening_chain
    query = sqlalchemy.select(table).order_by(table.c.id)
    return [Entry(**row._mapping) for row in storage.read(lambda connection: connection.execute(query).all())]


def problems(storage: Storage) -> list[str]:
    """Return what contradicts the chain, one line each; empty if the chain and the openings agree."""
    table = tables.openings
    query = sqlalchemy.select(table).order_by(table.c.id)
    rows = {row["id"]: dict(row) for row in storage.read(lambda c: c.execute(query).mappings().all())}
    found: list[str] = []
    by_opening: dict[int, dict[str, dict[str, Any]]] = defaultdict(dict)
    previous = START
    for entry in load_chain(storage):
        if entry.previous != previous:
            found.append(f"entry {entry.id} (opening {entry.opening}): the entry before it was changed or removed")
        if entry.hash != hash_of(entry.previous, entry.content):
            found.append(f"entry {entry.id} (opening {entry.opening}): its content does not have its hash")
        else:
            by_opening[entry.opening][entry.kind] = json.loads(entry.content)
        previous = entry.hash
    for number in sorted(rows.keys() | by_opening.keys()):
        if number not in rows:
            found.append(f"opening {number}: its row was removed")
        elif differing := _differing(rows[number], by_opening[number]):
            found.append(f"opening {number}: {', '.join(differing)} not as in the chain")
    return found


def _differing(row: dict[str, Any], entries: dict[str, dict[str, Any]]) -> list[str]:
    opened = entries.get(Kind.OPENED, {})
    differing = [name for name in OPENED_COLUMNS if name not in opened or row[name] != opened[name]]
    if row["fingerprint"] != entries.get(Kind.READ, {}).get("fingerprint", ""):
        differing.append("fingerprint")
    if row["failed"] != entries.get(Kind.FAILED, {}).get("failed"):
        differing.append("failed")
    return differing
