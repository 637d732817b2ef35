"""The database: one SQLite file or one PostgreSQL database, with Optuna's tables and ours (`tables`) side by side.

SQLite runs in WAL mode with short write transactions and serves about sixteen workers on one machine. PostgreSQL
serves many machines. An operation that fails for a while (a restart, a dead connection, a deadlock, a lock) is tried
again (`retries`), so callers see either success or a StorageError. Opening a database upgrades old tables
(`revisions`).
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
from mhist_tune.storage import database_url, foreign_tables, revisions, tables
from mhist_tune.storage.faults import (
    has_no_connection_left,
    has_no_schema,
    is_contention,
    is_full,
    is_no_such_name,
    is_read_only,
    is_transient,
    is_unreachable,
    lacks_right,
)
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
    """An open database. Each process opens its own and closes it, as a context manager or by `close`.

    Attributes:
        engine: SQLAlchemy's engine.
        dialect: `sqlite` or `postgresql`.
        url_safe: the URL without its passwords, for messages.
        root: the folder for checkpoints, cache, logs and reports: that of the SQLite file, or `./storage`.
        clock: an SQL expression for the time by the database's clock, in epoch seconds.
    """

    def __init__(self, url: URL, waiting: Waiting) -> None:
        self._url = url
        self.dialect = url.get_backend_name()
        self.url_safe = database_url.without_passwords(url)
        self.root = Path(url.database or "").parent if self.dialect == "sqlite" else Path("storage").resolve()
        self.clock = sqlalchemy.literal_column(_CLOCKS[self.dialect], sqlalchemy.Double)
        self._retries = Retries(waiting, self._error, lambda: self.engine.pool.dispose())
        self._waits_to_open = waiting.on_blocked is not None
        self.engine: Engine = sqlalchemy.create_engine(url, **database_url.engine_options(url))
        sqlalchemy.event.listen(self.engine, "begin", database_url.limit_times)

    def __enter__(self) -> "Storage":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def n_interruptions(self) -> int:
        """How often this process found the database unreachable or locked.

        If it has changed, other workers may have been unable to renew their leases meanwhile.
        """
        return self._retries.n_interruptions

    @functools.cached_property
    def rdb(self) -> "RDBStorage":
        """Optuna's own storage, without the cache of `optuna`. It uses the connections of `engine`.

        Raises:
            StorageError: another version of Optuna has changed its tables.
        """
        from optuna.storages import RDBStorage

        logging.getLogger("optuna.storages").setLevel(logging.WARNING)  # "A new study created in RDB"
        pool = self.engine.pool
        pool.dispose()  # the next connection, which is new, shows the server's version to Optuna's engine
        try:
            storage = RDBStorage(self._url.render_as_string(hide_password=False), {"pool": pool})
        except RuntimeError as error:
            raise StorageError(f"cannot use Optuna's tables in {self.url_safe}: {error}") from error
        sqlalchemy.event.listen(storage.engine, "begin", database_url.limit_times)
        return storage

    @functools.cached_property
    def optuna(self) -> "BaseStorage":
        """Optuna's storage in the same database, cached in this process.

        Its operations are tried again only within `retrying`.
        """
        from optuna.storages import get_storage

        return get_storage(self.rdb)

    def close(self) -> None:
        """Close all connections. The storage opens new ones when it is used again."""
        self.engine.dispose()
        if "rdb" in self.__dict__:
            self.rdb.remove_session()
            self.rdb.engine.dispose()

    def transaction(self, work: Callable[[Connection], T], *, retry_s: float | None = None) -> T:
        """Run `work` in one write transaction, commit, and return its result.

        After a lost connection, a deadlock or a lock it is tried again for `retry_s` seconds (None: those of
        `Waiting`). The answer to a commit can be lost too, so `work` must be harmless when it runs twice.

        Raises:
            StorageError: the database stayed unreachable, or refuses (a missing right; a full disk without
                `Waiting.on_blocked`).
        """

        def write(connection: Connection) -> T:
            self._refuse_other_tables(connection)
            return work(connection)

        return self.retrying(lambda: self._run("BEGIN IMMEDIATE", write), retry_s=retry_s)

    def read(self, work: Callable[[Connection], T], *, retry_s: float | None = None) -> T:
        """Run `work`, which only reads, and return its result. It is tried again as in `transaction`.

        Raises:
            StorageError: as in `transaction`, and where another version has changed the tables that are read.
        """

        def attempt() -> T:
            try:
                return self._run("BEGIN", work)
            except DBAPIError as error:
                if is_no_such_name(error):
                    self._run("BEGIN", self._refuse_other_tables)
                raise

        return self.retrying(attempt, retry_s=retry_s)

    def retrying(self, action: Callable[[], T], *, retry_s: float | None = None) -> T:
        """Call `action` until it succeeds, and return its result. It must be harmless when it runs twice.

        Optuna's calls are tried again by this.

        Raises:
            StorageError: as in `transaction`.
        """
        return self._retries.call(action, retry_s, is_transient)

    def now(self) -> float:
        """Return the database's clock, in epoch seconds."""
        return float(self.read(lambda connection: connection.execute(sqlalchemy.select(self.clock)).scalar_one()))

    def insert_new(self, table: Table) -> "sqlite.Insert | postgresql.Insert":
        """Return an INSERT that does nothing if a row with the same key exists."""
        return self.insert(table).on_conflict_do_nothing()

    def insert(self, table: Table) -> "sqlite.Insert | postgresql.Insert":
        """Return an INSERT of this database's dialect, which has the ON CONFLICT clause."""
        if self.dialect == "sqlite":
            from sqlalchemy.dialects import sqlite

            return sqlite.insert(table)
        from sqlalchemy.dialects import (
            postgresql,
        )  # SQLite does not need it, and it takes a fifth of SQLAlchemy's import time

        return postgresql.insert(table)

    def _run(self, begin: str, work: Callable[[Connection], T]) -> T:
        with self.engine.connect() as connection:
            if self.dialect == "sqlite":  # the driver would begin at the first write, which can deadlock
                connection.exec_driver_sql(begin)
            result = work(connection)
            connection.commit()
        return result

    def _error(self, error: DBAPIError) -> StorageError:
        lines = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
        reason = lines[0].rstrip(".")  # no driver quotes a password
        if is_full(error):
            hint = "free some space on the disk of the database"
        elif has_no_connection_left(error):
            hint = "raise its max_connections, end other clients, or put PgBouncer before it"
        elif is_read_only(error):
            hint = "it is a standby, in a failover, or its user may only read: name the primary, or end that"
        elif lacks_right(error):
            hint = f"its owner must allow it: GRANT USAGE, CREATE ON SCHEMA ... and the tables to {self._url.username}"
        elif has_no_schema(error):
            hint = "create the schema that its search_path names, or name another one"
        elif self.dialect == "sqlite":
            hint = f"the folder {self.root} must exist and be writable, or choose another place with --storage"
        else:
            hint = "is the server running, and are host, user, password and database in --storage right?"
        return StorageError(f"cannot use the storage {self.url_safe}: {reason}", hint=hint)

    def _open(self, create: bool) -> None:
        """Create missing tables and upgrade old ones. Several processes may do so at the same time."""
        version = self._opening(lambda: self._run("BEGIN", revisions.stored))
        if version is None:
            self._opening(lambda: self._run("BEGIN", self._refuse_foreign_tables))
            if not create:
                raise NoStorageError(
                    f"there are no studies in {self.url_safe}", hint="mhist-tune create-study makes the first one"
                )
            self._opening(self._make_tables)
        elif version > tables.SCHEMA_VERSION:
            raise StorageError(
                f"{self.url_safe} has tables of version {version}, this mhist-tune knows {tables.SCHEMA_VERSION}",
                hint="use the version of mhist-tune that made it, or another storage",
            )
        elif version < tables.SCHEMA_VERSION:
            self._opening(lambda: self._run("BEGIN IMMEDIATE", self._upgrade))

    def _opening(self, action: Callable[[], T]) -> T:
        """Call `action` until it succeeds. Only a process with `Waiting.on_blocked` waits for an unreachable server."""
        if self._waits_to_open:
            return self._retries.call(action, None, lambda error: is_contention(error) or is_unreachable(error))
        return self._retries.call(action, _OPEN_RETRY_S, is_contention)

    def _refuse_foreign_tables(self, connection: Connection) -> None:
        problem = foreign_tables.problem(connection, lambda: self._url.render_as_string(hide_password=False))
        if problem is not None:
            raise StorageError(
                f"cannot make tables in {self.url_safe}: {problem}", hint="create an empty database for mhist-tune"
            )
        schema = foreign_tables.schema_without_right(connection)
        if schema is not None:
            raise StorageError(
                f"cannot make tables in {self.url_safe}: permission denied for schema {schema}",
                hint=f"its owner must allow it: GRANT USAGE, CREATE ON SCHEMA {schema} TO {self._url.username}",
            )

    def _make_tables(self) -> None:
        if self.dialect == "sqlite":
            # Optuna's tables come first, because our write lock would block its connections. If several processes
            # create them, one succeeds and the others try again.
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
        create: make the folder, the file and the tables if they are missing.
        waiting: how to wait for an unreachable database; ten minutes if it is left out.

    Raises:
        StorageError: the database is unreachable, read-only or of a newer version.
        NoStorageError: there is none, or it has no tables of ours, and `create` is false.
    """
    storage = Storage(database_url.parse(url, create=create), waiting or Waiting())
    try:
        storage._open(create)
    except BaseException:
        storage.close()
        raise
    return storage
