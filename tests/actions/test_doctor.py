"""`doctor` finds what would stop or spoil the work before it starts."""

import json
from collections.abc import Callable
from pathlib import Path

import sqlalchemy

from mhist_tune.storage import tables
from mhist_tune.storage.database import open_storage

Run = Callable[..., tuple[int, str, str]]


def states(out: str) -> dict[str, str]:
    """Return the state of each check by its name."""
    return {check["name"]: check["state"] for check in json.loads(out)["checks"]}


def test_a_sound_installation_passes(run: Run, generated: Path) -> None:
    """With a data set and a study of it no check fails, and each part has a check."""
    assert run("create-study", "demo", "--data", str(generated))[0] == 0
    code, out, _ = run("doctor", "--json", "--data", str(generated))

    found = states(out)
    assert code == 0
    assert {"python", "data", "database", "latency", "clocks", "folder", "shared memory"} <= found.keys()
    assert found["data"] == found["database"] == found["study demo"] == "ok"
    assert "ok    python: " in run("doctor")[1]


def test_a_fresh_machine_is_only_warned(run: Run) -> None:
    """Without a storage and a data set no check fails, and each hint says what to do."""
    code, out, _ = run("doctor", "--json")

    assert code == 0
    assert states(out)["database"] == states(out)["data"] == "warn"


def test_a_missing_data_set_and_server_fail(run: Run, tmp_path: Path) -> None:
    """The exit code is 1, both failures are named, and the password is not shown."""
    url = "postgresql://nobody:sesame@127.0.0.1:9/none"
    code, out, err = run("doctor", "--json", "--data", str(tmp_path / "nowhere"), "--storage", url)

    assert code == 1
    assert states(out)["database"] == states(out)["data"] == "fail"
    assert "failed: data, database" in err
    assert "sesame" not in out + err


def test_tables_of_another_version_fail_with_the_remedy(run: Run, storage_url_sqlite: str) -> None:
    """A storage that a newer mhist-tune made is named with both versions and what to do."""
    with open_storage(storage_url_sqlite) as storage:
        update = sqlalchemy.update(tables.schema).values(version=tables.SCHEMA_VERSION + 1)
        storage.transaction(lambda connection: connection.execute(update))
    code, out, _ = run("doctor")

    assert code == 1
    assert f"tables of version {tables.SCHEMA_VERSION + 1}" in out
    assert "hint: use the version of mhist-tune that made it" in out
