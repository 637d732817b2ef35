import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import Connection, text
from sqlalchemy.exc import DatabaseError, PendingRollbackError, SQLAlchemyError

from mhist_tune.errors import StorageError
from mhist_tune.storage import tables
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.retries import Waiting
from tests.support.postgres import PostgresServer
from tests.support.processes import Fleet

NOBODY = 65534


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write everywhere, so the process runs as another user for a while."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def insert_marker(connection: Connection) -> None:
    row = {"study": "s", "at": 0.0, "kind": "marker", "detail": {}}
    connection.execute(sqlalchemy.insert(tables.events).values(row))


def n_markers(storage: Storage) -> int:
    query = sqlalchemy.select(sqlalchemy.func.count()).select_from(tables.events)
    return storage.read(lambda connection: connection.execute(query).scalar_one())


@pytest.mark.parametrize("n_databases", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_eight_processes_make_the_tables_of_an_empty_database_at_once(
    storage_url: str, n_databases: int, request: pytest.FixtureRequest
) -> None:
    """All succeed on each database, and every table, including Optuna's, exists once."""

    def another(number: int) -> str:
        if storage_url.startswith("sqlite"):
            return f"{storage_url}-{number}"
        server: PostgresServer = request.getfixturevalue("postgres")
        return server.new_database()

    urls = [storage_url, *(another(number) for number in range(1, n_databases))]
    with Fleet() as fleet:
        for _ in range(8):
            fleet.start("open", *urls)
        for _ in urls:
            fleet.go()
        ended = [line for _, line in fleet.lines()]

        assert [process.returncode for process in fleet.processes] == [0] * 8, fleet.processes[0].stderr
    assert ended == [{"event": "end"}] * 8
    for url in urls:
        with open_storage(url, create=False) as storage:
            names = set(storage.read(lambda connection: sqlalchemy.inspect(connection).get_table_names()))
            n_stamps = storage.read(lambda c: c.execute(text("select count(*) from alembic_version")).scalar_one())
        assert {*tables.metadata.tables, "trials", "trial_intermediate_values"} <= names
        assert n_stamps == 1


def test_tables_whose_making_was_cut_short_are_completed(storage_url: str) -> None:
    """A database that holds Optuna's tables but not ours gets ours."""
    with open_storage(storage_url) as storage:
        names = storage.read(lambda connection: sqlalchemy.inspect(connection).get_table_names())

        def drop(connection: Connection) -> None:
            for name in names:
                if name.startswith("mhist_"):
                    connection.execute(text(f"drop table {name}"))

        storage.transaction(drop)

    with open_storage(storage_url) as storage:
        assert n_markers(storage) == 0


def test_opening_what_exists_loads_no_optuna(storage: Storage) -> None:
    """Reports and status open a storage without paying for Optuna or Alembic."""
    url = storage._url.render_as_string(hide_password=False)
    code = "import sys; from mhist_tune.storage.database import open_storage; open_storage(sys.argv[1]).close(); "
    code += "sys.exit('optuna' in sys.modules or 'alembic' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code, url], cwd=Path(__file__).parents[2], check=False)

    assert done.returncode == 0


def test_a_missing_storage_is_not_made_by_reading(tmp_path: Path) -> None:
    """Without `create` a missing SQLite file is an error, and neither file nor folder appears."""
    with pytest.raises(StorageError, match="there is no storage"):
        open_storage(f"sqlite:///{tmp_path}/new/mhist-tune.db", create=False)

    assert list(tmp_path.iterdir()) == []


def test_an_empty_database_is_not_filled_by_reading(postgres: PostgresServer) -> None:
    """Without `create` an empty PostgreSQL database is an error and stays empty."""
    url = postgres.new_database()

    with pytest.raises(StorageError, match="there are no studies") as caught:
        open_storage(url, create=False)

    assert caught.value.hint is not None
    engine = sqlalchemy.create_engine(url)
    assert sqlalchemy.inspect(engine).get_table_names() == []
    engine.dispose()


@pytest.mark.parametrize("change", ["password", "port", "database"])
def test_an_unreachable_server_is_one_line_without_the_password(postgres: PostgresServer, change: str) -> None:
    """A wrong password, port or database fails at once, and no message or URL shows a password."""
    url = sqlalchemy.make_url(postgres.new_database())
    wrong = {"password": "s3cret-wrong", "port": 1, "database": "nowhere"}[change]
    url = url.set(**{change: wrong})
    started = time.monotonic()

    with pytest.raises(StorageError) as caught:
        open_storage(url.render_as_string(hide_password=False))

    message = f"{caught.value} {caught.value.hint}"
    assert time.monotonic() - started < 10
    assert "\n" not in message
    assert str(url.password) not in message
    assert "***" in message
    assert caught.value.exit_code == 4


def test_a_password_in_the_query_is_hidden_too(postgres: PostgresServer) -> None:
    """`?password=` is as secret as the usual place."""
    url = sqlalchemy.make_url(postgres.new_database())
    password = str(url.password)
    moved = url.set(password=None).update_query_dict({"password": password})

    with open_storage(moved.render_as_string(hide_password=False)) as storage:
        assert password not in storage.url_safe
        assert "127.0.0.1" in storage.url_safe


@pytest.mark.parametrize("url", ["mysql://u:s3cret@h/d", "sqlite://", "sqlite:///:memory:", "no url with s3cret"])
def test_other_urls_are_refused_with_the_forms_that_work(url: str) -> None:
    """For another database, one in memory, or nonsense, the error shows the accepted forms and not the given URL."""
    with pytest.raises(StorageError) as caught:
        open_storage(url)

    assert "s3cret" not in str(caught.value)
    assert "sqlite:///" in str(caught.value.hint)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    """A read-only folder is exit 4 with a hint, whether or not the storage folder has to be made."""
    tmp_path.chmod(0o500)
    try:
        for path in (tmp_path / "storage" / "mhist-tune.db", tmp_path / "mhist-tune.db"):
            with without_privileges(), pytest.raises(StorageError) as caught:
                open_storage(f"sqlite:///{path}")
            assert "--storage" in str(caught.value.hint)
    finally:
        tmp_path.chmod(0o700)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_a_storage_error(tmp_path: Path) -> None:
    """A text file or a folder in place of the database is an error in one line."""
    (tmp_path / "text.db").write_text("hello " * 1000)

    for path in (tmp_path / "text.db", tmp_path):
        with pytest.raises(StorageError):
            open_storage(f"sqlite:///{path}")


def test_tables_of_another_version_are_refused(storage: Storage) -> None:
    """A storage of a newer mhist-tune is refused instead of being misread."""
    update = sqlalchemy.update(tables.schema).values(version=tables.SCHEMA_VERSION + 1)
    storage.transaction(lambda connection: connection.execute(update))

    with pytest.raises(StorageError, match="version"):
        open_storage(storage._url.render_as_string(hide_password=False))


def test_a_transaction_that_raises_leaves_nothing(storage: Storage) -> None:
    """Writes before an error in the same transaction are undone, and the error is raised."""

    def work(connection: Connection) -> None:
        insert_marker(connection)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        storage.transaction(work)

    assert n_markers(storage) == 0


def test_a_lost_connection_is_retried(postgres: PostgresServer) -> None:
    """If the server ends a connection during a transaction, the work is done once on another connection."""
    n_attempts = 0

    def work(connection: Connection) -> None:
        nonlocal n_attempts
        n_attempts += 1
        insert_marker(connection)
        if n_attempts == 1:
            connection.execute(text("select pg_terminate_backend(pg_backend_pid())"))

    with open_storage(postgres.new_database()) as storage:
        storage.transaction(work)

        assert n_attempts == 2
        assert n_markers(storage) == 1
        assert storage.n_interruptions == 1


def test_a_database_that_stays_unreachable_is_a_storage_error(postgres: PostgresServer) -> None:
    """When the time for trying is over, the caller gets a StorageError without the password."""

    def work(connection: Connection) -> None:
        connection.execute(text("select pg_terminate_backend(pg_backend_pid())"))

    with open_storage(postgres.new_database()) as storage:
        with pytest.raises(StorageError) as caught:
            storage.transaction(work, retry_s=0.0)

        assert str(storage._url.password) not in str(caught.value)


def test_work_goes_on_after_the_server_was_restarted() -> None:
    """A transaction succeeds after the server has crashed and restarted."""
    server = PostgresServer()
    try:
        with open_storage(server.new_database()) as storage:
            storage.transaction(insert_marker)
            refused = threading.Event()
            sqlalchemy.event.listen(storage.engine, "handle_error", lambda context: refused.set())
            thread = threading.Thread(target=lambda: storage.transaction(insert_marker))

            server.crash()
            thread.start()
            assert refused.wait(30)
            server.start()
            thread.join(60)

            assert storage.n_interruptions > 0
            assert n_markers(storage) == 2
    finally:
        server.remove()


def test_a_write_waits_for_another_writer(storage_url: str) -> None:
    """While another connection holds SQLite's write lock, a transaction waits and then succeeds."""
    with open_storage(storage_url) as storage, open_storage(storage_url) as other:
        results: list[str] = []
        thread = threading.Thread(target=lambda: results.append(str(storage.transaction(insert_marker))))

        def hold(connection: Connection) -> None:
            insert_marker(connection)
            thread.start()

        other.transaction(hold)
        thread.join(30)

        assert results == ["None"]
        assert n_markers(storage) == 2


@pytest.fixture
def full_disk() -> Iterator[Callable[[bool], None]]:
    """Return a function that makes SQLite's disk full or not, from the next use of a connection on."""
    is_full = False

    def limit(connection: Any, *_: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute(f"PRAGMA max_page_count = {1 if is_full else 2**30}").close()

    def switch(value: bool) -> None:
        nonlocal is_full
        is_full = value

    sqlalchemy.event.listen(sqlalchemy.Pool, "checkout", limit)
    yield switch
    sqlalchemy.event.remove(sqlalchemy.Pool, "checkout", limit)


def test_a_full_disk_is_waited_for(storage_url_sqlite: str, full_disk: Callable[[bool], None]) -> None:
    """Without `on_blocked` a write is an error with a hint; with it, it is called once and the write waits."""
    log = sqlalchemy.Table("log", sqlalchemy.MetaData(), sqlalchemy.Column("text", sqlalchemy.Text))

    def write(connection: Connection) -> None:
        connection.execute(sqlalchemy.insert(log).values(text="x" * 100_000))

    with open_storage(storage_url_sqlite) as storage:
        storage.transaction(log.create)
        full_disk(True)
        with pytest.raises(StorageError, match="disk is full") as caught:
            storage.transaction(write)
        assert "free some space" in str(caught.value.hint)

    heard: list[StorageError] = []
    waiting = Waiting(interrupt=lambda: full_disk(False), on_blocked=heard.append, retry_s=0.1)
    full_disk(False)
    with open_storage(storage_url_sqlite, waiting=waiting) as storage:
        full_disk(True)
        with pytest.raises(StorageError, match="disk is full"):
            storage.transaction(write, retry_s=0.1)  # such as a slot to be freed on the way out
        storage.transaction(write)

        assert len(heard) == 1
        assert storage.read(lambda connection: len(connection.execute(sqlalchemy.select(log)).all())) == 1


def test_optuna_calls_are_retried_too(postgres: PostgresServer) -> None:
    """`retrying` recognizes a lost connection in the error with which Optuna wraps it."""
    with open_storage(postgres.new_database()) as storage:
        storage.optuna.get_all_studies()
        kill = text("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
        n_calls = 0

        def action() -> int:
            nonlocal n_calls
            n_calls += 1
            with storage.rdb.scoped_session() as session:
                session.connection()  # checked out and known to be alive
                if n_calls == 1:
                    storage.transaction(lambda connection: connection.execute(kill).all())
                return len(storage.optuna.get_all_studies())

        assert storage.retrying(action) == 0
        assert n_calls == 2


@pytest.mark.parametrize(
    "cause",
    [
        PendingRollbackError("the transaction has been rolled back"),
        DatabaseError("select 1", {}, psycopg.DatabaseError("lost synchronization"), connection_invalidated=True),
    ],
)
def test_every_error_of_a_lost_connection_is_retried(cause: SQLAlchemyError, tmp_path: Path) -> None:
    """A driver may not call it an operational error, and a session may find out later than its connection."""
    with open_storage(f"sqlite:///{tmp_path}/s.db") as storage:
        n_calls = 0

        def action() -> int:
            nonlocal n_calls
            n_calls += 1
            if n_calls == 1:
                raise StorageInternalError("an exception is raised during the commit") from cause
            return n_calls

        assert storage.retrying(action) == 2


def test_the_clock_is_the_databases(storage: Storage) -> None:
    """`now` is epoch seconds, in UTC whatever the session's time zone, and goes on between two statements."""
    first, second = storage.now(), storage.now()

    assert abs(first - time.time()) < 5
    assert first <= second


def test_sqlite_is_set_up_for_many_workers(tmp_path: Path) -> None:
    """Our connections and Optuna's both wait for locks and sync the log at each commit."""
    with open_storage(f"sqlite:///{tmp_path}/s.db") as storage:
        assert isinstance(storage.optuna._backend, RDBStorage)  # type: ignore[attr-defined]
        for engine in (storage.engine, storage.optuna._backend.engine):  # type: ignore[attr-defined]
            with engine.connect() as connection:
                settings = [
                    connection.execute(text(f"pragma {name}")).scalar()
                    for name in ("journal_mode", "synchronous", "busy_timeout")
                ]
            assert settings == ["wal", 2, 60000]


def test_the_root_is_where_the_sqlite_file_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints and reports lie beside a SQLite file, also when its path is relative and the process moves on."""
    monkeypatch.chdir(tmp_path)
    with open_storage("sqlite:///storage/mhist-tune.db") as storage:
        monkeypatch.chdir("/")

        assert storage.root == tmp_path / "storage"
        assert n_markers(storage) == 0
