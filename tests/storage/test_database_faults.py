"""What a PostgreSQL server may refuse, on a real one: one line and exit code 4, or a wait that says so."""

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import text

from mhist_tune.errors import StorageError
from mhist_tune.storage import ledger, studies, tables
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.retries import Waiting
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import PostgresServer

Run = Callable[..., tuple[int, str, str]]
Execute = Callable[..., list[tuple[object, ...]]]

DEFINITION = """
[study]
name = "small"
n_trials = 4
pruner = { name = "none" }
sampler = { name = "random" }

[fixed]
model = "fcnn"
weights = "random"
image_size = 16
epochs = 2
precision = "fp32"
memory_format = "contiguous"
augmentation = "none"

[space]
drop_rate = { low = 0.1, high = 0.5 }
"""


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of an empty database."""
    url = postgres.new_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture
def execute(url: str) -> Execute:
    """A function that executes statements as the server's owner and returns the rows of the last one."""

    def call(*statements: str, at: str = url) -> list[tuple[object, ...]]:
        with psycopg.connect(at, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    return call


@pytest.fixture
def role(execute: Execute, url: str) -> Iterator[str]:
    """The URL of the same database for a role without rights."""
    execute("CREATE ROLE reader LOGIN PASSWORD 'reader'", "REVOKE CREATE ON SCHEMA public FROM public")
    yield sqlalchemy.make_url(url).set(username="reader", password="reader").render_as_string(hide_password=False)
    execute("DROP OWNED BY reader", "DROP ROLE reader")


@pytest.fixture
def create(run: Run, generated: Path, tmp_path: Path) -> Callable[[str], tuple[int, str]]:
    """A function that creates the study in a database: exit code and stderr."""
    (tmp_path / "small.toml").write_text(DEFINITION)

    def call(at: str) -> tuple[int, str]:
        code, _, err = run("create-study", "small.toml", "--data", str(generated), "--storage", at)
        return code, err

    return call


def assert_one_line(code: int, err: str, *words: str) -> None:
    """Assert that a command ended with 4, an error and its hint, and nothing unexpected."""
    assert code == 4, err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, err
    assert "unexpected" not in err and "Traceback" not in err
    for word in words:
        assert word in err, err


N_TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"


def test_a_role_without_rights(
    run: Run, create: Callable[[str], tuple[int, str]], execute: Execute, role: str, url: str
) -> None:
    """It makes no tables; it may read those of others and not write to them, and `doctor` says so."""
    assert_one_line(*create(role), "permission denied", "GRANT")
    assert execute(N_TABLES) == [(0,)]
    code, out, _ = run("doctor", "--storage", role)
    assert code == 1
    assert "fail  database: cannot make tables" in out

    assert create(url)[0] == 0
    execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    code, _, err = run("pause", "small", "--storage", role)
    assert_one_line(code, err, "permission denied", "GRANT")
    assert run("status", "small", "--storage", role)[0] == 0
    code, out, _ = run("doctor", "--storage", role)
    assert code == 1
    assert "fail  rights: this user may not write to mhist_" in out


def test_tables_are_made_where_the_search_path_says(
    run: Run, create: Callable[[str], tuple[int, str]], execute: Execute, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options of the URL and PGOPTIONS hold, and a schema that does not exist is one line."""
    execute("CREATE SCHEMA hpo", "CREATE SCHEMA other")
    named = f"{url}?options=-csearch_path%3Dhpo"
    assert create(named)[0] == 0
    schemas = "SELECT DISTINCT schemaname FROM pg_tables WHERE schemaname IN ('hpo', 'public', 'other')"
    assert execute(schemas) == [("hpo",)]
    assert "in the schema hpo" in run("doctor", "--storage", named)[1]
    monkeypatch.setenv("PGOPTIONS", "-csearch_path=other")
    assert create(url)[0] == 0
    assert sorted(execute(schemas)) == [("hpo",), ("other",)]

    monkeypatch.setenv("PGOPTIONS", "-csearch_path=nowhere")
    assert_one_line(*create(url), "search_path")


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (
            [
                "CREATE TABLE alembic_version (version_num varchar(32))",
                "INSERT INTO alembic_version VALUES ('0584bdc529eb')",
            ],
            "MLflow",
        ),
        (["CREATE TABLE studies (id integer, title text)"], 'a table "studies" of another program'),
    ],
)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_nothing_is_made_among_foreign_tables(
    run: Run,
    create: Callable[[str], tuple[int, str]],
    execute: Execute,
    url: str,
    tmp_path: Path,
    statements: list[str],
    words: str,
    kind: str,
) -> None:
    """The database of another program is refused by each command and stays as it is."""
    if kind == "sqlite":
        path = tmp_path / "foreign.db"
        with contextlib.closing(sqlite3.connect(path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        before, url = path.read_bytes(), f"sqlite:///{path}"
    else:
        execute(*statements)

    assert_one_line(*create(url), words)
    code, _, err = run("studies", "--storage", url)
    assert_one_line(code, err, words)
    assert words in run("doctor", "--storage", url)[1]
    if kind == "sqlite":
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone() == (1,)
        assert len(path.read_bytes()) == len(before)
    else:
        assert execute(N_TABLES) == [(1,)]


@pytest.mark.parametrize(("revision", "words"), [("v3.0.0.d", "an older Optuna"), ("v99.0.0", "a newer Optuna")])
def test_another_optuna_is_refused(
    create: Callable[[str], tuple[int, str]], execute: Execute, url: str, revision: str, words: str
) -> None:
    """Tables that another Optuna has made are left alone, before and after ours were made."""
    from optuna.storages import RDBStorage

    RDBStorage(url.replace("postgresql:", "postgresql+psycopg:")).engine.dispose()
    n_tables = execute(N_TABLES)
    execute(f"UPDATE alembic_version SET version_num = '{revision}'")
    assert_one_line(*create(url), words)
    assert execute(N_TABLES) == n_tables

    execute("UPDATE alembic_version SET version_num = 'v3.2.0.a'", "DELETE FROM alembic_version")
    assert create(url)[0] == 0
    execute(f"UPDATE alembic_version SET version_num = '{revision}'")
    with open_storage(url) as storage, pytest.raises(StorageError, match="Optuna's tables"):
        storage.retrying(lambda: storage.optuna)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_another_encoding_is_refused(
    run: Run, create: Callable[[str], tuple[int, str]], execute: Execute, url: str, encoding: str
) -> None:
    """Names could not be read back from it; nothing is made there, and `doctor` says why."""
    execute(f"CREATE DATABASE other ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    other = sqlalchemy.make_url(url).set(database="other").render_as_string(hide_password=False)
    try:
        assert_one_line(*create(other), encoding, "UTF8")
        assert encoding in run("doctor", "--storage", other)[1]
        assert execute(N_TABLES, at=other) == [(0,)]
    finally:
        execute("DROP DATABASE other WITH (FORCE)")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_long_name_is_one_line(
    run: Run, generated: Path, tmp_path: Path, url: str, storage_url_sqlite: str, kind: str
) -> None:
    """A study's name of more than 255 characters is refused by both databases."""
    (tmp_path / "long.toml").write_text(DEFINITION.replace('"small"', f'"{"a" * 256}"'))
    at = url if kind == "postgresql" else storage_url_sqlite
    code, _, err = run("create-study", "long.toml", "--data", str(generated), "--storage", at)

    assert code == 2, err
    assert "unexpected" not in err


def test_a_failover_is_waited_for(execute: Execute, url: str) -> None:
    """A server that accepts no writes is an error for a command; a worker says so once and writes when it does."""
    name = sqlalchemy.make_url(url).database
    reported = threading.Event()

    def end_failover(error: StorageError) -> None:
        assert "read-only" in str(error)
        assert not reported.is_set()
        reported.set()
        execute("SET default_transaction_read_only = off", f"ALTER DATABASE {name} RESET default_transaction_read_only")

    row = {"study": "s", "at": 0.0, "kind": "marker", "detail": {}}
    insert = sqlalchemy.insert(tables.events).values(row)
    with open_storage(url) as storage, open_storage(url, waiting=Waiting(on_blocked=end_failover)) as waiting:
        execute(
            f"ALTER DATABASE {name} SET default_transaction_read_only = on",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()",
        )
        with pytest.raises(StorageError, match="read-only"):
            storage.transaction(lambda connection: connection.execute(insert))
        waiting.transaction(lambda connection: connection.execute(insert))
        count = sqlalchemy.select(sqlalchemy.func.count()).select_from(tables.events)
        assert waiting.read(lambda connection: connection.execute(count).scalar_one()) == 1
    assert reported.is_set()


def test_a_connection_is_waited_for() -> None:
    """With every connection taken a command ends with one line, and a worker starts as soon as one is free."""
    server = PostgresServer(max_connections="5", superuser_reserved_connections="0")
    try:
        url = server.new_database()
        open_storage(url).close()
        with contextlib.ExitStack() as taken:
            holders: list[psycopg.Connection] = []
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    holders.append(taken.enter_context(psycopg.connect(url)))
            with pytest.raises(StorageError, match="too many clients") as caught:
                open_storage(url)
            assert "max_connections" in str(caught.value.hint)

            reports = []

            def free(error: StorageError) -> None:
                reports.append(str(error))
                holders[0].close()

            open_storage(url, waiting=Waiting(on_blocked=free)).close()
            assert len(reports) == 1
            assert "too many clients" in reports[0]
    finally:
        server.remove()


def test_an_unreachable_server_is_waited_for() -> None:
    """A worker that starts meanwhile says so once and goes on when it answers; a command gives up at once."""
    server = PostgresServer()
    try:
        url = server.new_database()
        open_storage(url).close()
        server.crash()
        reports: list[str] = []

        def start(error: StorageError) -> None:
            reports.append(str(error))
            server.start()

        with pytest.raises(StorageError, match="refused"):
            open_storage(url)
        with pytest.raises(StorageError, match="refused"):
            open_storage(url, waiting=Waiting(on_blocked=lambda _: None, retry_s=0.1))
        open_storage(url, waiting=Waiting(on_blocked=start)).close()
        assert len(reports) == 1 and "refused" in reports[0]
        wrong = sqlalchemy.make_url(url).set(password="wrong").render_as_string(hide_password=False)
        with pytest.raises(StorageError, match="authentication failed"):
            open_storage(wrong, waiting=Waiting(on_blocked=lambda _: pytest.fail("a wrong password is not waited for")))
    finally:
        server.remove()


def test_a_worker_keeps_one_connection(url: str) -> None:
    """Optuna's calls use it too. It has a name and time-outs, and a further one is closed when it is not needed."""
    here = text("SELECT application_name FROM pg_stat_activity WHERE datname = current_database()")
    with open_storage(url) as storage:
        storage.optuna.get_all_studies()

        def look(connection: sqlalchemy.Connection) -> list[str]:
            return list(connection.execute(here).scalars())

        assert storage.transaction(lambda _: storage.transaction(look)) == ["mhist-tune"] * 2
        while len(storage.read(look)) != 1:  # the server takes a moment to let go
            pass
        storage.optuna.get_all_studies()
        assert len(storage.read(look)) == 1
        assert_time_outs(storage)


def assert_time_outs(storage: Storage) -> None:
    """Assert that statements, locks and idle transactions have a limit."""
    for name, limit in (
        ("statement_timeout", "30s"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "1min"),
    ):
        show = text(f"SHOW {name}")
        assert storage.read(lambda connection, show=show: connection.execute(show).scalar_one()) == limit


@pytest.mark.parametrize("pool_mode", ["session", "transaction"])
def test_pgbouncer_works_out_of_the_box(
    run: Run, create: Callable[[str], tuple[int, str]], generated: Path, execute: Execute, url: str, pool_mode: str
) -> None:
    """Two workers search through it; every transaction has time-outs, and no other program's connection gets them."""
    bouncer = PgBouncer(url, pool_mode)
    try:
        assert create(bouncer.url)[0] == 0
        common = ("--devices", "cpu", "--per-device", "2", "--data", str(generated))
        code, _, err = run("worker", "small", *common, "--storage", bouncer.url)
        assert code == 0, err
        with open_storage(bouncer.url) as storage:
            study = studies.load_study(storage, "small")
            slots = ledger.slots(storage, study, "search")
            assert [slot.outcome.state for slot in slots if slot.outcome] == ["COMPLETE"] * 4
            assert_time_outs(storage)
        assert execute("SHOW statement_timeout", at=bouncer.url) == [("0",)]
        assert run("doctor", "--storage", bouncer.url)[1].count("fail") == 0
    finally:
        bouncer.remove()
