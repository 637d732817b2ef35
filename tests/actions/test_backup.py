"""`backup`: a copy of an SQLite storage that is in use."""

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy

from mhist_tune.actions.backup import backup
from mhist_tune.errors import UsageError
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import open_storage
from mhist_tune.storage.leases import LeaseObserver
from tests.support.postgres import PostgresServer

Run = Callable[..., tuple[int, str, str]]


def test_a_copy_is_a_storage(
    run: Run, make_definition: Callable[..., object], storage_url_sqlite: str, tmp_path: Path
) -> None:
    """It is made while another process writes, as one private file, and holds what was committed before."""
    from tests.conftest import IMAGE_SETS

    copy = tmp_path / "copy.db"
    with open_storage(storage_url_sqlite) as storage:
        study = studies.create_study(
            storage, make_definition(n_trials=2), dataset={"fingerprint": "f"}, image_sets=IMAGE_SETS
        )
        assert ledger.claim(storage, study, ["search"], worker="w", observer=LeaseObserver())

        def copy_within(connection: sqlalchemy.Connection) -> None:
            connection.execute(sqlalchemy.text("DELETE FROM mhist_slots"))
            code, out, err = run("backup", str(copy))
            assert (code, err) == (0, "")
            assert out.startswith(f"{copy}: ")
            raise LookupError

        with pytest.raises(LookupError):
            storage.transaction(copy_within)
    assert [path.name for path in tmp_path.glob("copy*")] == ["copy.db"]
    assert copy.stat().st_mode & 0o077 == 0
    with open_storage(f"sqlite:///{copy}", create=False) as storage:
        study = studies.load_study(storage, "small")
        assert ledger.counts(storage, study, "search") == {"leased": 1, "free": 1}


def test_a_file_is_not_overwritten(run: Run, storage_url_sqlite: str, tmp_path: Path) -> None:
    """An existing file is refused and kept."""
    open_storage(storage_url_sqlite).close()
    (tmp_path / "thesis.txt").write_text("mine")
    code, _, err = run("backup", "thesis.txt")

    assert code == 2
    assert "thesis.txt exists" in err
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_postgresql_has_a_tool_of_its_own(postgres: PostgresServer, tmp_path: Path) -> None:
    """The error names it."""
    with open_storage(postgres.new_database()) as storage, pytest.raises(UsageError) as caught:
        backup(storage, tmp_path / "copy.db")
    assert "pg_dump" in str(caught.value.hint)
