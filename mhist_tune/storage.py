"""The database: one SQLite file or one PostgreSQL database, with Optuna's tables and ours (`tables`) side by side.

SQLite runs in WAL mode with short write transactions, which carries about sixteen workers on one machine; PostgreSQL
carries many machines. Whatever the database does not do at once (a restart, a dead connection, a deadlock, a lock) is
tried again for ten minutes, so callers see either success or a StorageError. A full disk is waited for by whoever says
that it is, see `Storage.paused`.
"""

import functools
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy
from sqlalchemy import Connection, Engine, Table
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, PendingRollbackError, SQLAlchemyError

from mhist_tune import __version__, revisions, tables
from mhist_tune.errors import NoStorageError, StorageError
from mhist_tune.faults import is_contention, is_full, is_refusal, is_transient
from mhist_tune.filesystems import network_file_system

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage
    from sqlalchemy.dialects import postgresql, sqlite

T = TypeVar("T")

RETRY_S = 600.0
"""How long an operation is tried again while the database is away."""

_OPEN_RETRY_S = 60.0
_UNINTERRUPTED_S = 2.0  # contention passes in less, so that even an interrupted worker gets its slot freed
_SQLITE_TIMEOUT_S = 60
_SCHEMA_LOCK = 0x6D68697374  # "mhist": the advisory lock under which the tables are made
_CLOCKS = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "extract(epoch from clock_timestamp())::double precision",
}
_POSTGRESQL_TIMEOUTS = "-c statement_timeout=30000 -c lock_timeout=10000 -c idle_in_transaction_session_timeout=60000"


class Storage:
    """An open database; use one in each process, and close it (it is a context manager).

    Attributes:
        engine: SQLAlchemy's engine.
        url_safe: the URL without its password, for people to see.
        root: the folder for checkpoints, cache, logs and reports: where the SQLite file lies, or else `./storage`.
        clock: an SQL expression, epoch seconds of the database's clock.
        n_interruptions: how often this process found the database away or locked; whoever times another worker's
            silence starts again when it changes.
        interrupt: called while an operation waits for the database; it may raise to end the waiting.
        paused: hears, once each time, that the database's disk is full, which is then waited for as long as it takes;
            None where a full disk is an error at once.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self.dialect = url.get_backend_name()
        self.url_safe = _hide_passwords(url)
        self.root = Path(url.database or "").parent if self.dialect == "sqlite" else Path("storage").resolve()
        self.clock = sqlalchemy.literal_column(_CLOCKS[self.dialect], sqlalchemy.Double)
        self.n_interruptions = 0
        self.interrupt: Callable[[], None] = lambda: None
        self.paused: Callable[[StorageError], None] | None = None
        self._is_paused = False
        self.engine: Engine = sqlalchemy.create_engine(url, **self._engine_options())

    def __enter__(self) -> "Storage":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @functools.cached_property
    def rdb(self) -> "RDBStorage":
        """Optuna's own storage without a cache, for what the cache of `optuna` cannot do."""
        from optuna.storages import RDBStorage

        logging.getLogger("optuna.storages").setLevel(logging.WARNING)  # "A new study created in RDB"
        return RDBStorage(self._url.render_as_string(hide_password=False), self._engine_options())

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

    def transaction(self, work: Callable[[Connection], T], *, retry_s: float = RETRY_S) -> T:
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

    def read(self, work: Callable[[Connection], T], *, retry_s: float = RETRY_S) -> T:
        """Run `work`, which only reads, and return its result; tried again like a transaction."""
        return self.retrying(lambda: self._run("BEGIN", work), retry_s=retry_s)

    def retrying(self, action: Callable[[], T], *, retry_s: float = RETRY_S) -> T:
        """Call `action`, which must be harmless when run twice, until the database does it; also for Optuna's calls.

        Raises:
            StorageError: as in `transaction`.
        """
        return self._retry(action, retry_s, is_transient)

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

    def _engine_options(self) -> dict[str, Any]:
        # One connection is kept: a worker hardly ever needs a second one, which then lives as long as its transaction.
        pool = {"pool_size": 1, "max_overflow": 3, "pool_pre_ping": True, "pool_recycle": 1800}
        if self.dialect == "sqlite":
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

    def _run(self, begin: str, work: Callable[[Connection], T]) -> T:
        with self.engine.connect() as connection:
            if self.dialect == "sqlite":  # the driver begins late, and a lock taken late is a deadlock
                connection.exec_driver_sql(begin)
            result = work(connection)
            connection.commit()
        return result

    def _retry(self, action: Callable[[], T], retry_s: float, is_worth_it: Callable[[DBAPIError], bool]) -> T:
        jitter = random.Random()  # training owns the global generator
        started = time.monotonic()
        delay_s = 0.02
        was_full = False
        while True:
            try:
                result = action()
            except Exception as error:
                cause = error if isinstance(error, SQLAlchemyError) else error.__cause__  # Optuna wraps what it catches
                if isinstance(cause, PendingRollbackError):  # its session lost the connection; it has rolled back now
                    cause = OperationalError(None, None, cause, connection_invalidated=True)
                if not isinstance(cause, DBAPIError):
                    raise
                if is_full(cause) and self.paused is not None:
                    was_full = True
                    self._tell_paused(cause)
                    if retry_s == RETRY_S:  # nobody asked for less: wait as long as it takes
                        started = time.monotonic() - _UNINTERRUPTED_S
                elif not is_worth_it(cause):
                    if is_full(cause) or is_refusal(cause):
                        raise self._error(cause) from error
                    raise
                self.n_interruptions += 1
                waited_s = time.monotonic() - started
                if waited_s + delay_s > retry_s:
                    raise self._error(cause) from error
                if waited_s >= _UNINTERRUPTED_S:
                    self.interrupt()
            else:
                self._is_paused = self._is_paused and not was_full
                return result
            time.sleep(delay_s * jitter.uniform(0.5, 1.0))
            delay_s = min(2 * delay_s, 5.0)

    def _tell_paused(self, error: DBAPIError) -> None:
        if self.paused is not None and not self._is_paused:
            self._is_paused = True
            self.paused(self._error(error))

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
        version = self._retry(lambda: self._run("BEGIN", revisions.stored), _OPEN_RETRY_S, is_contention)
        if version is None:
            if not create:
                raise NoStorageError(
                    f"there are no studies in {self.url_safe}", hint="mhist-tune create-study makes the first one"
                )
            self._retry(self._make_tables, _OPEN_RETRY_S, is_contention)
        elif version > tables.SCHEMA_VERSION:
            raise StorageError(
                f"{self.url_safe} has tables of version {version}, this mhist-tune knows {tables.SCHEMA_VERSION}",
                hint="use the version of mhist-tune that made it, or another storage",
            )
        elif version < tables.SCHEMA_VERSION:
            self._retry(lambda: self._run("BEGIN IMMEDIATE", self._upgrade), _OPEN_RETRY_S, is_contention)

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


def open_storage(url: str, *, create: bool = True) -> Storage:
    """Open the database at `url`: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/DATABASE`.

    Args:
        url: SQLAlchemy's form; a relative SQLite path starts from the working directory.
        create: make the folder, the file and the tables where they are missing.

    Raises:
        StorageError: unreachable, read-only, not there (without `create`), or of another version.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StorageError("the storage URL cannot be read", hint=_FORMS) from None
    dialect = parsed.get_backend_name()
    if dialect not in _CLOCKS:
        raise StorageError(f'there is no storage of the kind "{dialect}"', hint=_FORMS)
    if dialect == "sqlite":
        parsed = _sqlite_file(parsed, create)
    elif parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    storage = Storage(parsed)
    try:
        storage._open(create)
    except BaseException:
        storage.close()
        raise
    return storage


_FORMS = "sqlite:///storage/mhist-tune.db, or postgresql://USER:PASSWORD@HOST/DATABASE"


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
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot make the storage folder {path.parent}: {error.strerror}",
                hint="choose another place with --storage",
            ) from error
    elif not path.is_file():
        raise NoStorageError(f"there is no storage {path}", hint="mhist-tune create-study makes one; or see --storage")
    return url.set(database=str(path))


def _hide_passwords(url: URL) -> str:
    secret = {name: "***" for name in url.query if "password" in name}
    return url.update_query_dict(secret).render_as_string(hide_password=True).replace("+psycopg", "", 1)


def _set_up_sqlite(connection: Any, _: object) -> None:
    try:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = WAL").close()
        connection.execute("PRAGMA synchronous = NORMAL").close()  # a power cut can lose commits, a kill cannot
    except BaseException:
        connection.close()
        raise
