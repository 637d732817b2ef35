"""The database: one SQLite file or one PostgreSQL database, with Optuna's tables and ours (`tables`) side by side.

SQLite runs in WAL mode with short write transactions, which carries about sixteen workers on one machine; PostgreSQL
carries many machines. What fails for a while (a restart, a dead connection, a deadlock, a lock) is tried again, so
callers see either success or a StorageError (`retries`). Old tables are upgraded where they are opened (`revisions`).
"""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy
from sqlalchemy import Connection, Engine, Table
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from mhist_tune import __version__
from mhist_tune.errors import NoStorageError, StorageError
from mhist_tune.storage import database_url, revisions, tables
from mhist_tune.storage.faults import is_contention, is_full, is_transient
from mhist_tune.storage.retries import Retries, Waiting

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage
    from sqlalchemy.dialects import postgresql, sqlite

T = TypeVar("T")

_OPEN_RETRY_S = 60.0
_SCHEMA_LOCK = 0x6D68697374  # "mhist": the advisory lock under which the tables are made
_CLOCKS = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "extract(epoch from clock_timestamp())::double precision",
}


class Storage:
    """An open database; use one in each process, and close it (it is a context manager).

    Attributes:
        engine: SQLAlchemy's engine.
        url_safe: the URL without its password, for people to see.
        root: the folder for checkpoints, cache, logs and reports: where the SQLite file lies, or else `./storage`.
        clock: an SQL expression, epoch seconds of the database's clock.
    """

    def __init__(self, url: URL, waiting: Waiting) -> None:
        self._url = url
        self.dialect = url.get_backend_name()
        self.url_safe = database_url.without_passwords(url)
        self.root = Path(url.database or "").parent if self.dialect == "sqlite" else Path("storage").resolve()
        self.clock = sqlalchemy.literal_column(_CLOCKS[self.dialect], sqlalchemy.Double)
        self._retries = Retries(waiting, self._error)
        self.engine: Engine = sqlalchemy.create_engine(url, **database_url.engine_options(url))

    def __enter__(self) -> "Storage":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def n_interruptions(self) -> int:
        """How often this process found the database unreachable or locked.

        Where it has changed, a lease that was not renewed meanwhile proves nothing.
        """
        return self._retries.n_interruptions

    @functools.cached_property
    def rdb(self) -> "RDBStorage":
        """Optuna's own storage without a cache, for what the cache of `optuna` cannot do."""
        from optuna.storages import RDBStorage

        logging.getLogger("optuna.storages").setLevel(logging.WARNING)  # "A new study created in RDB"
        return RDBStorage(self._url.render_as_string(hide_password=False), database_url.engine_options(self._url))

    @functools.cached_property
    def optuna(self) -> "BaseStorage":
        """Optuna's view of the same database, with a pool of its own and the same settings; cached in this process.

        Its operations are not tried again by themselves, see `retrying`.
        """
        from optuna.storages import get_storage

        return get_storage(self.rdb)

    def close(self) -> None:
        """Close all connections; the storage opens new ones when it is used again."""
        self.engine.dispose()
        if "rdb" in self.__dict__:
            self.rdb.remove_session()
            self.rdb.engine.dispose()

    def transaction(self, work: Callable[[Connection], T], *, retry_s: float | None = None) -> T:
        """Run `work` in one write transaction, commit, and return its result.

        The transaction is tried again for `retry_s` seconds after a lost connection, a deadlock or a lock. The answer
        to a commit can be lost as well, so `work` must be such that running it twice does no harm.

        Raises:
            StorageError: the database stayed away, or refuses (a missing right, a full disk that is not waited for).
        """

        def write(connection: Connection) -> T:
            self._refuse_other_tables(connection)
            return work(connection)

        return self.retrying(lambda: self._run("BEGIN IMMEDIATE", write), retry_s=retry_s)

    def read(self, work: Callable[[Connection], T], *, retry_s: float | None = None) -> T:
        """Run `work`, which only reads, and return its result; tried again like a transaction."""
        return self.retrying(lambda: self._run("BEGIN", work), retry_s=retry_s)

    def retrying(self, action: Callable[[], T], *, retry_s: float | None = None) -> T:
        """Call `action`, which must be harmless when run twice, until the database does it; also for Optuna's calls.

        Raises:
            StorageError: as in `transaction`.
        """
        return self._retries.call(action, retry_s, is_transient)

    def now(self) -> float:
        """Return the database's clock, in epoch seconds."""
        return float(self.read(lambda connection: connection.execute(sqlalchemy.select(self.clock)).scalar_one()))

    def insert_new(self, table: Table) -> "sqlite.Insert | postgresql.Insert":
        """Return an INSERT that leaves a row with the same key as it is."""
        return self.insert(table).on_conflict_do_nothing()

    def insert(self, table: Table) -> "sqlite.Insert | postgresql.Insert":
        """Return an INSERT of this database's dialect, which knows ON CONFLICT."""
        if self.dialect == "sqlite":
            from sqlalchemy.dialects import sqlite

            return sqlite.insert(table)
        from sqlalchemy.dialects import postgresql  # a fifth of the import of all of SQLAlchemy

        return postgresql.insert(table)

    def _run(self, begin: str, work: Callable[[Connection], T]) -> T:
        with self.engine.connect() as connection:
            if self.dialect == "sqlite":  # the driver begins late, and a lock taken late is a deadlock
                connection.exec_driver_sql(begin)
            result = work(connection)
            connection.commit()
        return result

    def _error(self, error: DBAPIError) -> StorageError:
        lines = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
        reason = lines[0].rstrip(".")
        if self._url.password:
            reason = reason.replace(str(self._url.password), "***")
        if is_full(error):
            hint = "free some space on the disk of the database"
        elif self.dialect == "sqlite":
            hint = f"the folder {self.root} must exist and be writable, or choose another place with --storage"
        else:
            hint = "is the server running, and are host, user, password and database in --storage right?"
        return StorageError(f"cannot use the storage {self.url_safe}: {reason}", hint=hint)

    def _open(self, create: bool) -> None:
        """Check the tables, make them if they are missing and upgrade old ones; safe while others do the same."""
        version = self._retries.call(lambda: self._run("BEGIN", revisions.stored), _OPEN_RETRY_S, is_contention)
        if version is None:
            if not create:
                raise NoStorageError(
                    f"there are no studies in {self.url_safe}", hint="mhist-tune create-study makes the first one"
                )
            self._retries.call(self._make_tables, _OPEN_RETRY_S, is_contention)
        elif version > tables.SCHEMA_VERSION:
            raise StorageError(
                f"{self.url_safe} has tables of version {version}, this mhist-tune knows {tables.SCHEMA_VERSION}",
                hint="use the version of mhist-tune that made it, or another storage",
            )
        elif version < tables.SCHEMA_VERSION:
            self._retries.call(lambda: self._run("BEGIN IMMEDIATE", self._upgrade), _OPEN_RETRY_S, is_contention)

    def _make_tables(self) -> None:
        if self.dialect == "sqlite":
            # Optuna has connections of its own, which a write lock of ours would keep out: the first process makes its
            # tables, and the others try again.
            _ = self.optuna
        self._run("BEGIN IMMEDIATE", self._make_own_tables)

    def _make_own_tables(self, connection: Connection) -> None:
        self._lock_schema(connection)
        if revisions.stored(connection) is None:
            _ = self.optuna
            revisions.create(connection)

    def _upgrade(self, connection: Connection) -> None:
        self._lock_schema(connection)
        version = revisions.current(connection)
        if version is None or version >= tables.SCHEMA_VERSION:  # another process was faster
            return
        if n_leases := revisions.n_leases(connection, self.clock):
            raise StorageError(
                f"{self.url_safe} has tables of version {version}, which mhist-tune {__version__} must upgrade to "
                f"{tables.SCHEMA_VERSION}, and workers hold {n_leases} of its slots",
                hint="end the workers (a signal frees their slots) or wait until they leave, then try again",
            )
        revisions.upgrade(connection, version)

    def _lock_schema(self, connection: Connection) -> None:
        if self.dialect == "postgresql":  # in SQLite there is one writer anyway
            connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))

    def _refuse_other_tables(self, connection: Connection) -> None:
        version = revisions.current(connection)
        if version != tables.SCHEMA_VERSION:
            raise StorageError(
                f"the tables of {self.url_safe} were upgraded to version {version}, and this process knows "
                f"{tables.SCHEMA_VERSION}",
                hint="start it again with the mhist-tune that upgraded them",
            )


def open_storage(url: str, *, create: bool = True, waiting: Waiting | None = None) -> Storage:
    """Open the database at `url`: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/DATABASE`.

    Args:
        url: SQLAlchemy's form; a relative SQLite path starts from the working directory.
        create: make the folder, the file and the tables where they are missing.
        waiting: how to wait for a database that does not answer; for ten minutes by default.

    Raises:
        StorageError: unreachable, read-only, not there (without `create`), or of another version.
    """
    storage = Storage(database_url.parse(url, create=create), waiting or Waiting())
    try:
        storage._open(create)
    except BaseException:
        storage.close()
        raise
    return storage
