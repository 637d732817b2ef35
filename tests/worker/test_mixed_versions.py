"""Two versions of the code on one database: recorded and said in a search, refused in a table."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy

import mhist_tune
from mhist_tune.code_version import code_version
from mhist_tune.storage import studies, tables
from mhist_tune.storage.database import open_storage
from mhist_tune.storage.stages import Stage
from tests.conftest import load_optuna_study

Run = Callable[..., tuple[int, str, str]]

FIXED = """
[study]
name = "tiny"
n_trials = 2
[fixed]
model = "test_resnet"
weights = "random"
image_size = 32
epochs = 1
precision = "fp32"
memory_format = "contiguous"
"""
SEARCH = FIXED + "[space]\nlearning_rate = { low = 1e-4, high = 1e-2, log = true }\n"
TABLE = FIXED + '[[row]]\nlabel = "a"\nlearning_rate = 1e-3\n[[row]]\nlabel = "b"\nlearning_rate = 1e-2\n'
WORK = ("--devices", "cpu", "--per-device", "1")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A checkout of the package with one more comment."""
    root = tmp_path / "other"
    shutil.copytree(Path(mhist_tune.__file__).parent, root / "mhist_tune", ignore=shutil.ignore_patterns("__pycache__"))
    with (root / "mhist_tune" / "training" / "step.py").open("a") as file:
        file.write("# another version\n")
    return root


def run_other(other: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command line with the other version."""
    environment = {**os.environ, "PYTHONPATH": str(other)}
    command = [sys.executable, "-m", "mhist_tune", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def create(run: Run, tmp_path: Path, definition: str, data: Path) -> None:
    (tmp_path / "tiny.toml").write_text(definition)
    assert run("create-study", str(tmp_path / "tiny.toml"), "--data", str(data))[0] == 0


def version_of(other: Path) -> str:
    code = "from mhist_tune.code_version import code_version; print(code_version())"
    environment = {**os.environ, "PYTHONPATH": str(other)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_search_goes_on_with_another_version_and_says_so(
    run: Run, tmp_path: Path, generated: Path, other: Path, storage_url_sqlite: str
) -> None:
    """An event, the trials' attributes and `status` name both versions; one version alone is no matter."""
    create(run, tmp_path, SEARCH, generated)
    assert run("worker", "tiny", "--data", str(generated), *WORK)[0] == 0
    assert "Warning" not in run("status", "tiny")[1]
    assert run("extend", "tiny", "--n-trials", "1")[0] == 0

    done = run_other(other, "worker", "tiny", "--data", str(generated), *WORK)

    assert done.returncode == 0, done.stderr
    theirs = version_of(other)
    assert theirs != code_version()
    assert theirs.split("+")[0] == code_version().split("+")[0] == mhist_tune.__version__
    assert f"event=version study=tiny code_version={theirs} first={code_version()}" in done.stderr
    assert json.loads(run("status", "tiny", "--json")[1])["code_versions"] == [code_version(), theirs]
    assert f"different versions of the code: {code_version()}, {theirs}" in run("status", "tiny")[1]
    with open_storage(storage_url_sqlite) as storage:
        trials = load_optuna_study(storage, studies.load_study(storage, "tiny"), Stage.SEARCH).trials
    assert [trial.user_attrs["code_version"] for trial in trials] == [code_version()] * 2 + [theirs]


def test_a_table_refuses_another_version_unless_told(
    run: Run, tmp_path: Path, generated: Path, other: Path, storage_url_sqlite: str
) -> None:
    """The error names both versions and the option. With it the rows are trained, and both versions are recorded."""
    create(run, tmp_path, TABLE, generated)
    theirs = version_of(other)
    with open_storage(storage_url_sqlite) as storage:  # as their first worker does
        studies.set_setting(storage, studies.load_study(storage, "tiny"), studies.CODE_VERSION, theirs)
    work = ("worker", "tiny", "--data", str(generated), *WORK)

    code, _, err = run(*work)
    assert code == 2
    assert f"by mhist-tune {theirs}, and this is {code_version()}" in err
    assert "--mix-versions" in err
    assert json.loads(run("status", "tiny", "--json")[1])["stages"]["search"] == {"free": 2}

    assert run(*work, "--mix-versions")[0] == 0
    assert json.loads(run("status", "tiny", "--json")[1])["code_versions"] == [theirs, code_version()]


def test_a_table_is_not_opened_for_a_version_that_may_not_train_it(
    run: Run, tmp_path: Path, generated: Path, other: Path
) -> None:
    """The refusal comes before the opening of the test partition."""
    create(run, tmp_path, TABLE, generated)
    assert run_other(other, "worker", "tiny", "--data", str(generated), *WORK).returncode == 0
    for extra in ((), ("--with-validation",)):
        assert run("retrain", "tiny", "--n-seeds", "2", "--data", str(generated), *WORK, *extra)[0] == 2
    assert json.loads(run("status", "tiny", "--json")[1])["test_openings"] == 0


def test_a_study_from_before_has_an_earlier_version(
    run: Run, tmp_path: Path, generated: Path, storage_url_sqlite: str
) -> None:
    """Nobody knows which code began it, so no version is made up."""
    create(run, tmp_path, SEARCH, generated)
    assert run("worker", "tiny", "--data", str(generated), *WORK)[0] == 0
    with open_storage(storage_url_sqlite) as storage, storage.engine.begin() as connection:
        connection.execute(sqlalchemy.update(tables.studies).values(settings={}))
    assert run("extend", "tiny", "--n-trials", "1")[0] == 0
    code, _, err = run("worker", "tiny", "--data", str(generated), *WORK)
    assert code == 0
    assert 'first="an earlier version"' in err
