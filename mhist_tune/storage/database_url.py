"""Parses the URL of a database and sets the options of its connections."""

from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from mhist_tune.errors import NoStorageError, StorageError
from mhist_tune.filesystems import network_file_system
from mhist_tune.writing import private_file, private_folder

_FORMS = "sqlite:///storage/mhist-tune.db, or postgresql://USER:PASSWORD@HOST/DATABASE"
_SQLITE_TIMEOUT_S = 60
_POSTGRESQL_TIMEOUTS = "-c statement_timeout=30000 -c lock_timeout=10000 -c idle_in_transaction_session_timeout=60000"


def parse(url: str, *, create: bool) -> URL:
    """Return the URL as SQLAlchemy needs it: with SQLite's absolute path, or with PostgreSQL's driver.

    Args:
        url: SQLAlchemy's form; a relative SQLite path starts from the working directory.
        create: make the folder of an SQLite file if it is missing.

    Raises:
        StorageError: the URL cannot be read, names another kind of database or one in memory; the folder cannot be
            made or is on a network file system.
        NoStorageError: the SQLite file is missing and `create` is false.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StorageError("the storage URL cannot be read", hint=_FORMS) from None
    match parsed.get_backend_name():
        case "sqlite":
            return _sqlite_file(parsed, create)
        case "postgresql":
            return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed
        case other:
            raise StorageError(f'there is no storage of the kind "{other}"', hint=_FORMS)


def without_passwords(url: URL) -> str:
    """Return the URL for messages: `***` for each password, and no name of a driver."""
    secret = {name: "***" for name in url.query if "password" in name}
    return url.update_query_dict(secret).render_as_string(hide_password=True).replace("+psycopg", "", 1)


def engine_options(url: URL) -> dict[str, Any]:
    """Return SQLAlchemy's options for an engine: the pool, the time-outs and, for SQLite, the journal mode."""
    # The pool keeps one connection. A worker rarely needs a second one, which is closed after its transaction.
    pool = {"pool_size": 1, "max_overflow": 3, "pool_pre_ping": True, "pool_recycle": 1800}
    if url.get_backend_name() == "sqlite":
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
            "options": _POSTGRESQL_TIMEOUTS,
        },
    }


def _sqlite_file(url: URL, create: bool) -> URL:
    if not url.database or url.database == ":memory:":
        raise StorageError("a storage in memory cannot be shared by workers", hint=_FORMS)
    path = Path(url.database).absolute()
    if kind := network_file_system(path):
        raise StorageError(
            f"{path.parent} is on a network file system ({kind}), where SQLite loses data",
            hint="choose a local folder with --storage, or share a database: postgresql://USER@HOST/DATABASE",
        )
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
    elif not path.is_file():
        raise NoStorageError(f"there is no storage {path}", hint="mhist-tune create-study makes one; or see --storage")
    return url.set(database=str(path))


def _set_up_sqlite(connection: Any, _: object) -> None:
    try:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = WAL").close()
        connection.execute("PRAGMA synchronous = NORMAL").close()  # a power cut can lose commits, a kill cannot
    except BaseException:
        connection.close()
        raise
