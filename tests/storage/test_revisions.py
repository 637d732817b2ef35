import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from mhist_tune.errors import StorageError
from mhist_tune.storage import ledger, revisions, tables
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.leases import Claim, LeaseObserver, renew
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study
from tests.conftest import MakeStudy
from tests.support.postgres import PostgresServer
from tests.support.processes import Fleet

NEXT = tables.SCHEMA_VERSION + 1

REVISION = f'''
"""A column of its own in the events, and a row that tells how often this ran."""

import sqlalchemy as sa
from alembic import op

revision = "{NEXT:04}"
down_revision = "{tables.SCHEMA_VERSION:04}"


def upgrade():
    op.add_column("mhist_events", sa.Column("note", sa.Text))
    op.execute("INSERT INTO mhist_events (study, at, kind, detail) VALUES ('s', 0, 'upgraded', '{{}}')")
    MORE
'''


@contextmanager
def next_version(folder: Path, *, more: str = "") -> Iterator[None]:
    """Make this process one of the next version, which has one more revision."""
    shutil.copytree(revisions.MIGRATIONS, folder)
    path = folder / "versions" / f"{NEXT:04}_next.py"
    path.write_text(REVISION.replace("MORE", more))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(revisions, "MIGRATIONS", folder)
        patch.setattr(tables, "SCHEMA_VERSION", NEXT)
        yield


def url_of(storage: Storage) -> str:
    return storage.engine.url.render_as_string(hide_password=False)


def shape(connection: Connection) -> dict[str, Any]:
    """Describe our tables as the database has them."""
    inspector = sqlalchemy.inspect(connection)
    names = [name for name in inspector.get_table_names() if name.startswith("mhist_")]
    return {
        name: {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"], column["default"] is None)
                for column in inspector.get_columns(name)
            ],
            "key": inspector.get_pk_constraint(name)["constrained_columns"],
            "unique": sorted(unique["column_names"] for unique in inspector.get_unique_constraints(name)),
            "indexes": sorted((i["name"], i["column_names"], i["unique"]) for i in inspector.get_indexes(name)),
        }
        for name in sorted(names)
    }


def versions(connection: Connection) -> tuple[int | None, list[str], list[str]]:
    """Return the version that programs check, Alembic's for our tables, and Optuna's own."""
    ours = connection.execute(text("select version_num from mhist_schema_version")).scalars()
    optunas = connection.execute(text("select version_num from alembic_version")).scalars()
    return revisions.current(connection), list(ours), list(optunas)


def n_upgrades(connection: Connection) -> int:
    query = text("select count(*) from mhist_events where kind = 'upgraded'")
    return connection.execute(query).scalar_one()


def take(storage: Storage, study: Study) -> Claim:
    taken = ledger.claim(storage, study, ["search"], worker="w", observer=LeaseObserver())
    assert taken is not None
    return taken


def test_the_last_revision_is_the_version_of_the_tables(storage: Storage) -> None:
    """Raising one without the other fails here, and a new database has both, beside Optuna's own version."""
    script = ScriptDirectory(str(revisions.MIGRATIONS))

    assert script.get_heads() == [f"{tables.SCHEMA_VERSION:04}"]
    version, ours, optunas = storage.read(versions)
    assert (version, ours) == (tables.SCHEMA_VERSION, script.get_heads())
    assert len(optunas) == 1
    assert optunas != ours


def test_new_tables_equal_upgraded_ones(storage: Storage, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """All revisions, one after the other, end in the tables, keys and indexes that a new database gets at once."""
    if storage.dialect == "sqlite":
        url = f"sqlite:///{tmp_path}/upgraded.db"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.new_database().replace("postgresql:", "postgresql+psycopg:")
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        command.upgrade(revisions._config(connection), "head")
        upgraded = shape(connection)
    engine.dispose()

    assert len(upgraded) == len(tables.metadata.tables) + 1
    assert storage.read(shape) == upgraded


def test_an_old_database_is_upgraded_where_it_is_opened(
    storage: Storage, make_study: MakeStudy, tmp_path: Path
) -> None:
    """The next version adds its column and keeps the rows and Optuna's version. Opening it again changes nothing."""
    study = make_study()
    before = storage.read(versions)

    with next_version(tmp_path / "next"):
        for _ in range(2):
            with open_storage(url_of(storage), create=False) as newer:
                assert newer.read(versions) == (NEXT, [f"{NEXT:04}"], before[2])
                assert newer.read(n_upgrades) == 1
                assert len(ledger.slots(newer, study, "search")) == study.definition.n_trials


def test_a_database_from_before_alembic_is_upgraded_too(storage: Storage, tmp_path: Path) -> None:
    """Without Alembic's version of our tables the number in `mhist_schema` says what to begin with."""
    storage.transaction(lambda connection: connection.execute(text("drop table mhist_schema_version")))

    with next_version(tmp_path / "next"), open_storage(url_of(storage)) as newer:
        assert newer.read(versions)[:2] == (NEXT, [f"{NEXT:04}"])
        assert newer.read(n_upgrades) == 1


def test_processes_that_open_an_old_database_at_once_upgrade_it_once(storage: Storage, tmp_path: Path) -> None:
    """Five processes that open it together all succeed, and the revision ran once."""
    url = url_of(storage)
    storage.close()

    with next_version(tmp_path / "next"), Fleet() as fleet:
        for _ in range(5):
            fleet.start("upgrade", url, str(tmp_path / "next"), str(NEXT))
        fleet.go()
        assert [line["event"] for _, line in fleet.lines()] == ["end"] * 5
        assert [process.returncode for process in fleet.processes] == [0] * 5
        with open_storage(url) as newer:
            assert newer.read(versions)[:2] == (NEXT, [f"{NEXT:04}"])
            assert newer.read(n_upgrades) == 1


def test_an_upgrade_that_fails_changes_nothing(storage: Storage, make_study: MakeStudy, tmp_path: Path) -> None:
    """Tables, rows and versions are unchanged, and the old program can use them."""
    study = make_study()
    before = storage.read(versions), storage.read(shape)

    with (
        next_version(tmp_path / "next", more="raise LookupError('half-way')"),
        pytest.raises(LookupError, match="half-way"),
    ):
        open_storage(url_of(storage))

    assert (storage.read(versions), storage.read(shape)) == before
    assert storage.read(n_upgrades) == 0
    take(storage, study)


def test_a_user_who_may_only_read_upgrades_nothing(postgres: PostgresServer, tmp_path: Path) -> None:
    """With the right to read only, an old database is an error in one line and a current one can be read."""
    url = postgres.new_database()
    with open_storage(url) as storage:

        def add_reader(connection: Connection) -> None:
            connection.execute(text("CREATE ROLE reader LOGIN PASSWORD 'reading'"))
            connection.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"))

        storage.transaction(add_reader)
        address = url.rpartition("@")[2]
        with open_storage(f"postgresql://reader:reading@{address}", create=False) as readable:
            assert readable.read(n_upgrades) == 0
        before = storage.read(versions)
        with next_version(tmp_path / "next"), pytest.raises(StorageError, match="permission denied") as caught:
            open_storage(f"postgresql://reader:reading@{address}", create=False)

        assert caught.value.exit_code == 4
        assert storage.read(versions) == before
        storage.transaction(lambda connection: connection.execute(text("DROP OWNED BY reader; DROP ROLE reader")))


def test_an_upgrade_waits_for_no_worker_and_disturbs_none(
    storage: Storage, make_study: MakeStudy, tmp_path: Path
) -> None:
    """While a lease runs, the newer program is refused in one line that says what to do, and nothing changes."""
    claim = take(storage, make_study(lease_s=600))
    before = storage.read(versions)

    with next_version(tmp_path / "next"), pytest.raises(StorageError, match="workers hold 1 of its slots") as caught:
        open_storage(url_of(storage))

    assert caught.value.exit_code == 4
    assert "\n" not in f"{caught.value}{caught.value.hint}"
    assert "end the workers" in str(caught.value.hint)
    assert storage.read(versions) == before
    assert ledger.finish(storage, claim)


def test_a_worker_that_slept_through_an_upgrade_writes_nothing(
    storage: Storage, make_study: MakeStudy, tmp_path: Path
) -> None:
    """Its slot is free with a new token, and its next write ends it with one line; so does a claim or a command."""
    study = make_study()
    claim = take(storage, study)
    renew(storage, claim, -1.0)
    url = url_of(storage)

    with next_version(tmp_path / "next"), open_storage(url) as newer:
        (slot, *_) = ledger.slots(newer, study, "search")
    assert (slot.state, slot.token, slot.expires_at) == ("free", claim.token + 1, None)

    attempts: list[Callable[[], object]] = [
        lambda: ledger.decide(storage, claim, Outcome(state=EndState.COMPLETE)),
        lambda: renew(storage, claim, 60.0),
        lambda: take(storage, study),
    ]
    for attempt in attempts:
        with pytest.raises(StorageError, match=f"upgraded to version {NEXT}") as caught:
            attempt()
        assert "start it again" in str(caught.value.hint)
    with next_version(tmp_path / "again"), open_storage(url) as newer:
        assert ledger.slots(newer, study, "search")[0] == slot


@pytest.mark.parametrize("change", ["COLUMN if_not_promoted TO unless_promoted", "TO mhist_units"])
def test_a_process_that_only_reads_is_told_of_an_upgrade(
    storage: Storage, make_study: MakeStudy, tmp_path: Path, change: str
) -> None:
    """After an upgrade that renamed a column or a table it reads, an open dashboard ends with the same line."""
    study = make_study()
    assert ledger.slots(storage, study, Stage.SEARCH)

    with next_version(tmp_path / "next", more=f'op.execute("ALTER TABLE mhist_slots RENAME {change}")'):
        open_storage(url_of(storage)).close()

    with pytest.raises(StorageError, match=f"upgraded to version {NEXT}") as caught:
        ledger.slots(storage, study, Stage.SEARCH)
    assert "start it again" in str(caught.value.hint)
    assert storage.read(versions)[0] == NEXT  # what is as before can be read


def test_a_missing_table_of_the_same_version_is_no_upgrade(storage: Storage, make_study: MakeStudy) -> None:
    """The error of the database is shown where the version is the known one."""
    study = make_study()
    storage.transaction(lambda connection: connection.execute(text("drop table mhist_slots")))

    with pytest.raises((StorageError, ProgrammingError), match="mhist_slots") as caught:
        ledger.slots(storage, study, Stage.SEARCH)
    assert "upgraded" not in str(caught.value)


def test_the_token_keeps_out_a_program_that_checks_nothing(
    storage: Storage, make_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of the first release does not look at the version again; its claim no longer holds."""
    study = make_study()
    claim = take(storage, study)
    renew(storage, claim, -1.0)
    with next_version(tmp_path / "next"):
        open_storage(url_of(storage)).close()
    monkeypatch.setattr(storage, "_refuse_other_tables", lambda connection: None)

    assert not ledger.decide(storage, claim, Outcome(state=EndState.COMPLETE))
    assert not ledger.finish(storage, claim)


def test_an_upgrade_lets_running_transactions_end(storage: Storage, tmp_path: Path) -> None:
    """A transaction that has read the version is committed before the tables change."""
    seen: list[int] = []

    def upgrade() -> None:
        with open_storage(url_of(storage)) as newer:
            query = text("select count(*) from mhist_events where kind = 'slow'")
            seen.append(newer.read(lambda connection: connection.execute(query).scalar_one()))

    with next_version(tmp_path / "next"):
        thread = threading.Thread(target=upgrade)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage, "_refuse_other_tables", lambda connection: revisions.current(connection))

            def slow(connection: Connection) -> None:
                thread.start()
                thread.join(1.0)
                assert seen == []
                row = {"study": "s", "at": 0.0, "kind": "slow", "detail": {}}
                connection.execute(sqlalchemy.insert(tables.events).values(row))

            storage.transaction(slow)
        thread.join(60)
    assert seen == [1]
