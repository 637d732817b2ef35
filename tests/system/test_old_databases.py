"""A storage of the first release (made by `tools/make_old_databases.py`) is read, resumed and extended."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic import command
from sqlalchemy.exc import OperationalError

from mhist_tune.storage import epochs, ledger, revisions, studies
from mhist_tune.storage.database import open_storage
from mhist_tune.storage.stages import SlotState, Stage
from tests.search.test_rungs import decide_again
from tests.support.postgres import PostgresServer
from tests.system.test_golden import golden

Run = Callable[..., tuple[int, str, str]]

ARCHIVE = Path(__file__).parents[1] / "first_release" / "first-release.tar.xz"
GOLDEN = json.loads((Path(__file__).parents[1] / "first_release" / "golden.json").read_text())
WORK = ("--devices", "cpu", "--per-device", "1", "--data", "images")


@pytest.fixture
def old(run: Run, tmp_path: Path) -> Run:
    """A function that runs one command line beside the old storage, which must succeed, and returns what it printed."""
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(tmp_path, filter="data")

    def call(*arguments: str) -> tuple[int, str, str]:
        code, out, err = run(*arguments)
        assert code == 0, err
        return code, out, err

    return call


def states(url: str, name: str) -> dict[int, SlotState]:
    with open_storage(url) as storage:
        return {
            slot.slot: slot.state for slot in ledger.slots(storage, studies.load_study(storage, name), Stage.SEARCH)
        }


def close(found: Any, expected: Any) -> bool:
    """Compare documents whose numbers come from sums of another processor."""
    if isinstance(expected, dict):
        same = expected.keys() - set(golden.DEFINED_ANEW)
        return found.keys() == expected.keys() and all(close(found[key], expected[key]) for key in same)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    if isinstance(expected, float):
        return bool(found == pytest.approx(expected, rel=1e-9, abs=1e-12))
    return bool(found == expected)


@pytest.mark.parametrize("name", ["finished", "table"])
def test_an_old_study_is_reported_as_before(old: Run, name: str) -> None:
    """Every metric and error rate is what the first release made of the same stored probabilities."""
    report = json.loads(old("report", name, "--json")[1])

    expected = GOLDEN["reports"][f"old {name}"]
    assert close({key: report[key] for key in expected}, expected)


def test_old_studies_are_shown(old: Run) -> None:
    """The list of studies, their status, their final choice and their CSV files can be read."""
    assert [line.split()[0] for line in old("studies")[1].splitlines()[:3]] == ["waiting", "finished", "table"]
    assert json.loads(old("best-trial", "waiting", "--json")[1])["number"] == 1
    assert json.loads(old("best-trial", "finished", "--json")[1])["number"] == 1
    assert "3 done" in old("status", "waiting")[1]
    for name in ("waiting", "finished", "table"):
        old("export", name, f"csv-{name}")


def test_a_worker_of_the_first_release_can_claim_nothing_more(old: Run, storage_url_sqlite: str) -> None:
    """The columns that it reads at each claim and each epoch are gone, so it ends."""
    engine = sqlalchemy.create_engine(storage_url_sqlite)
    claim = sqlalchemy.text("SELECT slot, token, state, attempts, outcome FROM mhist_slots")
    epoch = sqlalchemy.text("SELECT value, best_value FROM mhist_epochs")
    for before in (claim, epoch):
        with engine.connect() as connection:
            assert connection.execute(before).all() != []

    old("status", "waiting")

    for after in (claim, epoch):
        with engine.connect() as connection, pytest.raises(OperationalError, match="no such column"):
            connection.execute(after)
    engine.dispose()


def test_an_upgrade_writes_the_same_rows_into_both_databases(
    old: Run, storage_url_sqlite: str, postgres: PostgresServer
) -> None:
    """The old rows, copied into PostgreSQL tables of the first release, become what they become in SQLite."""
    url = postgres.new_database()
    source, target = (
        sqlalchemy.create_engine(storage_url_sqlite),
        sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:")),
    )
    before = all_rows(source)
    with target.begin() as connection:
        command.upgrade(revisions._config(connection), "0001")
        found = sqlalchemy.MetaData()
        found.reflect(connection)
        for name, rows in before.items():
            if rows:
                connection.execute(sqlalchemy.insert(found.tables[name]), rows)

    for each in (storage_url_sqlite, url):
        open_storage(each).close()

    after = all_rows(source)
    assert after != before
    assert after == all_rows(target)
    source.dispose()
    target.dispose()


def all_rows(engine: sqlalchemy.Engine) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of all our tables, sorted."""
    found = sqlalchemy.MetaData()
    with engine.connect() as connection:
        found.reflect(connection)
        names = sorted(name for name in found.tables if name.startswith("mhist_"))
        rows = {name: connection.execute(sqlalchemy.select(found.tables[name])).mappings().all() for name in names}
    return {name: sorted(map(dict, some), key=lambda row: str(sorted(row.items()))) for name, some in rows.items()}


def test_old_openings_get_a_chain(old: Run) -> None:
    """Each old opening names its study and the hash of its test rows, and the chain of them is whole."""
    found = json.loads(old("openings", "--verify", "--json")[1])

    assert [row["study_name"] for row in found["openings"]] == ["finished", "table"]
    assert len({row["test_rows"] for row in found["openings"]}) == 1
    assert [(entry["opening"], entry["kind"]) for entry in found["chain"]] == [
        (1, "opened"),
        (1, "read"),
        (2, "opened"),
        (2, "read"),
    ]
    assert found["problems"] == []


def test_old_decisions_and_suggestions_come_out_again(old: Run, storage_url_sqlite: str) -> None:
    """From the recorded scores this version suggests and decides what the first release did, on any processor."""
    assert "4 matching" in old("replay", "finished")[1]
    assert "7 matching" in old("replay", "waiting")[1]
    with open_storage(storage_url_sqlite) as storage:
        rungs = decide_again(storage, studies.load_study(storage, "waiting"))
    assert {epoch: len(rung.values) for epoch, rung in rungs.items()} == {1: 6, 2: 3}


def test_an_old_search_is_resumed(old: Run, storage_url_sqlite: str) -> None:
    """The waiting trials, the one that its worker left and the slots that nobody began all end, with whole curves."""
    before = states(storage_url_sqlite, "waiting")
    assert list(before.values()).count(SlotState.WAITING) == 3

    old("worker", "waiting", *WORK)

    assert set(states(storage_url_sqlite, "waiting").values()) == {SlotState.DONE}
    with open_storage(storage_url_sqlite) as storage:
        study = studies.load_study(storage, "waiting")
        decide_again(storage, study)
        for slot in ledger.slots(storage, study, Stage.SEARCH):
            curve = epochs.epochs_of(storage, study, Stage.SEARCH, slot.slot)
            assert slot.outcome is not None
            assert [one.epoch for one in curve] == list(range(1, (slot.outcome.stopped_epoch or 0) + 1))


def test_old_studies_are_extended(old: Run, storage_url_sqlite: str) -> None:
    """More trials are searched in an old study, and an old table's rows are retrained with a recorded reason."""
    old("extend", "finished", "--n-trials", "2")
    old("worker", "finished", *WORK)
    old("retrain", "table", "--trial", "1", "--n-seeds", "2", "--again", "another row", *WORK)

    assert len(states(storage_url_sqlite, "finished")) == 6
    assert json.loads(old("report", "finished", "--json")[1])["n_seeds"] == 3
    assert len(json.loads(old("report", "table", "--json")[1])["test_openings"]) == 2
