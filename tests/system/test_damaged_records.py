"""Records that were damaged from outside: a command that reads them says so in one line."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import Column, Table

from mhist_tune.storage import event_log, tables
from mhist_tune.storage.database import open_storage
from tests.support import made_up

Run = Callable[..., tuple[int, str, str]]

DAMAGE = ("", "{", '"text"', "[]", "{}", "[" * 100_000, "\udcff")
COMMANDS = (("status", "tiny"), ("report", "tiny", "--output", "out"), ("export", "tiny", "out"), ("studies",))


def records() -> Iterator[tuple[Table, Column[object]]]:
    """Yield every column of our tables that holds a document, a record, a name of ours or probabilities."""
    for table in tables.metadata.sorted_tables:
        for column in table.columns:
            kind = column.type
            is_ours = isinstance(kind, tables.Json | tables.Record | tables.Name | sqlalchemy.LargeBinary)
            if is_ours or column.name == "definition":
                yield table, column


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a storage with a finished study that has an event."""
    path = tmp_path_factory.mktemp("finished") / "x.db"
    with open_storage(f"sqlite:///{path}") as storage:
        study = made_up.create(storage)
        made_up.search(storage, study, n_trials=1)
        made_up.open_test(storage, study, trial=0)
        made_up.retrain(storage, study, n_slots=3)
        event_log.event(storage, study, kind="note", detail={"a": 1})
    return path.read_bytes()


def damaged(path: Path, finished: bytes, table: str, column: str, damage: str) -> Path:
    """Write a copy of a storage in which every row of a table has another text in one column, and return its path."""
    path.write_bytes(finished)
    value = damage if damage.isascii() else damage.encode("utf-8", "surrogateescape")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", (value,))
        connection.commit()
    return path


@pytest.mark.parametrize(("table", "column"), list(records()), ids=lambda one: str(one.name))
def test_a_damaged_record_is_one_line(
    table: Table, column: Column[object], finished: bytes, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading it ends with a documented code, and with one line and its hint where it matters."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for number, damage in enumerate(DAMAGE):
        path = damaged(tmp_path / f"{number}.db", finished, table.name, column.name, damage)
        for command in (COMMANDS[number % 2], COMMANDS[2 + number % 2]):
            code, out, err = run(*command, "--storage", f"sqlite:///{path}")

            assert code in (0, 1, 2, 4), (damage[:20], command, err)
            assert "Traceback" not in out + err
            if code:
                assert [line[:6] for line in err.splitlines()].count("error:") == 1, err


@pytest.mark.parametrize("column", ["definition", "dataset", "settings"])
@pytest.mark.parametrize("damage", ["{", "[]", "[" * 100_000])
def test_what_is_damaged_is_named(column: str, damage: str, finished: bytes, run: Run, tmp_path: Path) -> None:
    """The storage is at fault, so the exit code is 4, and the message says what cannot be read."""
    path = damaged(tmp_path / "x.db", finished, "mhist_studies", column, damage)
    code, _, err = run("status", "tiny", "--storage", f"sqlite:///{path}")

    assert code == 4
    assert err.startswith("error: the storage holds ")
    assert " that cannot be read (" in err


@pytest.mark.parametrize("size", [1, 100, 4096, 20_000])
def test_a_file_that_is_no_database_is_left_alone(size: int, run: Run, tmp_path: Path, generated: Path) -> None:
    """A file of any size that SQLite did not write is refused, and stays as it is."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"x" * size)
    for command in (("studies",), ("status",), ("create-study", "demo", "--data", str(generated))):
        code, _, err = run(*command, "--storage", f"sqlite:///{path}")
        assert code == 4
        assert "is not an SQLite database" in err

    assert path.read_bytes() == b"x" * size
