"""Parses the URL of a database and sets the options of its connections.

No message quotes a URL before it is known which part of it is the password.
"""

import os
import sqlite3
import stat
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError

from mhist_tune.errors import NoStorageError, StorageError, did_you_mean
from mhist_tune.filesystems import network_file_system
from mhist_tune.writing import private_file, private_folder

_FORMS = "sqlite:///storage/mhist-tune.db, or postgresql://USER:PASSWORD@HOST/DATABASE"
_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_SQLITE_MAGIC = b"SQLite format 3\0"
_SQLITE_TIMEOUT_S = 60
_POSTGRESQL_TIMEOUTS = (
    "statement_timeout = 30000",
    "lock_timeout = 10000",
    "idle_in_transaction_session_timeout = 60000",
)
_IS_POOLED = "mhist-tune: behind a pooler"


def parse(url: str, *, create: bool) -> URL:
    """Return the URL as SQLAlchemy needs it: with SQLite's absolute path, or with PostgreSQL's driver.

    Args:
        url: SQLAlchemy's form; a relative SQLite path starts from the working directory, `~` is the home folder.
        create: make the folder of an SQLite file if it is missing.

    Raises:
        StorageError: the URL cannot be read, names another kind of database or one in memory; the folder cannot be
            made or is on a network file system.
        NoStorageError: the SQLite file is missing and `create` is false.
    """
    scheme, _, rest = url.partition("://")
    if not scheme.startswith("sqlite") and not _is_escaped(rest):
        raise StorageError(
            "the storage URL has an @ that does not end the user and password",
            hint="in a user or password write %40 for @, %3A for :, %2F for /, %3F for ?, %23 for # and %25 for %",
        )
    try:
        parsed = make_url(url)
        if not all(part.isprintable() for part in (url, parsed.username or "", parsed.password or "")):
            raise StorageError("the storage URL has a character that cannot be printed", hint=_FORMS)
        drivername = _DRIVERS.get(parsed.drivername)
        if drivername is None:
            raise StorageError(f'there is no storage of the kind "{parsed.drivername}"', hint=_FORMS)
        return _sqlite_file(parsed, create) if drivername == "sqlite" else _server(parsed.set(drivername=drivername))
    except (ArgumentError, ValueError):  # ValueError: of the port
        raise StorageError("the storage URL cannot be read", hint=_FORMS) from None


def without_passwords(url: URL) -> str:
    """Return the URL for messages: `***` for each password, and no name of a driver."""
    secret = {name: "***" for name in url.query if "password" in name}
    return url.update_query_dict(secret).render_as_string(hide_password=True).replace("+psycopg", "", 1)


def engine_options(url: URL) -> dict[str, Any]:
    """Return SQLAlchemy's options for an engine: the pool, the time-outs and, for SQLite, the journal mode.

    An SQLite file that this process cannot write is opened for reading.
    """
    # The pool keeps one connection. A worker rarely needs a second one, which is closed after its transaction.
    pool = {"pool_size": 1, "max_overflow": 3, "pool_pre_ping": True, "pool_recycle": 1800}
    if url.get_backend_name() == "sqlite":
        path = Path(url.database or "")
        if _is_archived(path):
            return {**pool, "creator": lambda: _open_archive(path)}
        return {
            **pool,
            "connect_args": {"timeout": _SQLITE_TIMEOUT_S},
            "pool_events": [(_set_up_sqlite, "connect")],
        }
    return {
        **pool,
        "connect_args": {
            "connect_timeout": 10,
            "keepalives": 1,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 60_000,  # in ms; keepalives do not notice a host that vanishes in mid-statement
            "application_name": "mhist-tune",
            "prepare_threshold": None,  # a pooler may give each transaction another server's connection
        },
        "pool_events": [(_set_up_postgresql, "connect")],
    }


def limit_times(connection: Connection) -> None:
    """Set the time-outs of a transaction that begins behind a pooler such as PgBouncer: on "begin" of an engine.

    A pooler refuses them at start-up, and what is set for a session would reach other programs.
    """
    if is_pooled(connection):
        connection.exec_driver_sql("; ".join(f"SET LOCAL {setting}" for setting in _POSTGRESQL_TIMEOUTS))


def is_pooled(connection: Connection) -> bool:
    """Return whether a pooler such as PgBouncer is between this process and the PostgreSQL server."""
    return bool(connection.info.get(_IS_POOLED))


def _is_escaped(rest: str) -> bool:
    """Return whether the part of a URL after `://` has no @ but the one that ends the user and password."""
    end = min((rest.index(char) for char in "/?#" if char in rest), default=len(rest))
    return rest[:end].count("@") <= 1 and "@" not in rest[end:]


def _server(url: URL) -> URL:
    from psycopg.pq import Conninfo

    if url.port is not None and not 0 < url.port < 65536:
        raise StorageError(f"the storage URL has the port {url.port}", hint="ports are 1 to 65535")
    known = [option.keyword.decode() for option in Conninfo.get_defaults()]
    for name, value in url.query.items():
        if name not in known:
            raise StorageError(
                f'PostgreSQL has no connection option "{name}"{did_you_mean(name, known)}',
                hint="what follows ? in --storage must be an option of libpq, such as sslmode=require",
            )
        if not isinstance(value, str):
            raise StorageError(f'the storage URL gives "{name}" twice', hint="give it once")
    for host in (url.host or "", *str(url.query.get("host", "")).split(",")):
        if not host.startswith("/"):
            host.encode("idna")  # raises UnicodeError, a ValueError, for a name that no host can have
    url.get_dialect()().create_connect_args(url)  # raises ArgumentError if hosts and ports do not fit together
    return url


def _sqlite_file(url: URL, create: bool) -> URL:
    if url.host or url.username or url.query:
        raise StorageError("an SQLite storage is a path, without host, user or options", hint=_FORMS)
    if not url.database or url.database == ":memory:":
        raise StorageError("a storage in memory cannot be shared by workers", hint=_FORMS)
    try:
        path = Path(url.database).expanduser().absolute()
        kind = network_file_system(path)
        mode = _mode(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, or a user without a home folder
        raise StorageError(
            f"cannot use the storage {url.database}: {getattr(error, 'strerror', None) or error}",
            hint="choose another place with --storage",
        ) from error
    if kind:
        raise StorageError(
            f"{path.parent} is on a network file system ({kind}), where SQLite loses data",
            hint="choose a local folder with --storage, or share a database: postgresql://USER@HOST/DATABASE",
        )
    if mode is not None and not stat.S_ISREG(mode):
        raise StorageError(f"the storage {path} is not a regular file", hint="choose another place with --storage")
    if mode is not None and not _may_be_database(path):  # SQLite would overwrite a short file
        raise StorageError(f"the storage {path} is not an SQLite database", hint="choose another place with --storage")
    if create:
        try:
            private_folder(path.parent)
            if not path.exists():
                private_file(path)  # SQLite gives its journal files the mode of the database
        except OSError as error:
            raise StorageError(
                f"cannot make the storage folder {path.parent}: {error.strerror}",
                hint="choose another place with --storage",
            ) from error
    elif mode is None:
        raise NoStorageError(f"there is no storage {path}", hint="mhist-tune create-study makes one; or see --storage")
    return url.set(database=str(path))


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _may_be_database(path: Path) -> bool:
    """Return whether a file is empty or begins as SQLite's do. One that cannot be read is left to SQLite."""
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE_MAGIC)) in (b"", _SQLITE_MAGIC)
    except OSError:
        return True


def _is_archived(path: Path) -> bool:
    """Return whether this process cannot write the file, or cannot make files beside it as SQLite does."""
    return path.is_file() and not all(os.access(one, os.W_OK, effective_ids=True) for one in (path, path.parent))


def _open_archive(path: Path) -> sqlite3.Connection:
    # Without a log beside it nobody writes the file. SQLite then needs neither locks nor files of its own.
    log = path.with_name(f"{path.name}-wal")
    how = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
    return sqlite3.connect(
        f"file:{quote(str(path))}?{how}", uri=True, timeout=_SQLITE_TIMEOUT_S, check_same_thread=False
    )


def _set_up_postgresql(connection: Any, record: Any) -> None:
    try:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding == "SQL_ASCII":
            raise StorageError(
                f"the database {connection.info.dbname} has the encoding SQL_ASCII, which is none",
                hint="make one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
            )
        with connection.cursor() as cursor:
            [pid] = cursor.execute("SELECT pg_backend_pid()").fetchone()
            record.info[_IS_POOLED] = pid != connection.info.backend_pid  # a pooler answers with a number of its own
            if not record.info[_IS_POOLED]:
                cursor.execute("; ".join(f"SET {setting}" for setting in _POSTGRESQL_TIMEOUTS))
        connection.commit()
    except BaseException:
        connection.close()
        raise


def _set_up_sqlite(connection: Any, _: object) -> None:
    try:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = WAL").close()
        # A commit is on the disk when it returns. Checkpoints may be removed after it, so a power cut must not undo it.
        connection.execute("PRAGMA synchronous = FULL").close()
    except BaseException:
        connection.close()
        raise
