"""Creating a study: its data set is checked as `data check` does, and no test image is opened."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mhist_tune.data.annotations import read_annotations

Run = Callable[..., tuple[int, str, str]]

DEFINITION = """
[study]
name = "tiny"
n_trials = 1

[fixed]
model = "test_resnet"
weights = "random"
image_size = 32
epochs = 1

[space]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
"""


@pytest.fixture
def definition(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(DEFINITION)
    return path


@pytest.fixture
def root(generated: Path, tmp_path: Path) -> Path:
    """A copy of generated images that a test may change."""
    return Path(shutil.copytree(generated, tmp_path / "data"))


def add_column(root: Path, column: str, n_groups: int) -> None:
    path = root / "annotations.csv"
    header, *rows = path.read_text().splitlines()
    lines = [f"{header},{column}", *(f"{row},p{index % n_groups}" for index, row in enumerate(rows))]
    path.write_text("\n".join(lines) + "\n")


def lines_with(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if word in line]


def test_patients_in_both_partitions_are_refused_in_the_words_of_data_check(
    run: Run, definition: Path, root: Path
) -> None:
    """Both exit with 3 and name the groups; the same definition then creates no study."""
    add_column(root, "Group", 5)
    code, out, _ = run("data", "check", str(root))
    assert code == 3
    (problem,) = lines_with(out, "cross the partitions")

    for arguments in (["create-study", str(definition)], ["create-study", str(definition), "--dry-run"]):
        code, _, err = run(*arguments, "--data", str(root))
        assert code == 3
        assert problem in err
    assert json.loads(run("studies", "--json")[1])["studies"] == []


@pytest.mark.parametrize("column", ["patient_id", "group"])
def test_a_column_that_is_not_read_is_said_by_both(run: Run, definition: Path, root: Path, column: str) -> None:
    """They go on, with the same warning."""
    add_column(root, column, 5)
    code, out, _ = run("data", "check", str(root))
    assert code == 0
    (warning,) = lines_with(out, "Warning")
    code, _, err = run("create-study", str(definition), "--data", str(root))
    assert code == 0
    assert lines_with(err, "Warning") == [warning]
    assert column in warning


@pytest.mark.parametrize("kept", ["", ",SSA,"])
def test_a_test_partition_that_cannot_be_reported_on_is_said_at_creation(
    run: Run, definition: Path, root: Path, kept: str
) -> None:
    """Whether empty or of one class: a search can do without it, so it is a warning, in the dry run too."""
    path = root / "annotations.csv"
    header, *rows = path.read_text().splitlines()
    rows = [row for row in rows if not row.endswith("test") or (kept and kept in row)]
    path.write_text("\n".join([header, *rows]) + "\n")
    for extra in ("--dry-run", "--n-trials=1"):
        code, _, err = run("create-study", str(definition), extra, "--data", str(root))
        assert code == 0
        assert len(lines_with(err, "test partition")) == 1


def test_no_test_image_is_opened(run: Run, definition: Path, root: Path) -> None:
    """Unreadable files in their places go unnoticed."""
    for path in read_annotations(root, "test").paths:
        path.unlink()
        os.mkfifo(path)
    assert run("create-study", str(definition), "--data", str(root))[0] == 0


def test_a_broken_train_image_is_found_before_a_worker_starts(run: Run, definition: Path, root: Path) -> None:
    """The error names it."""
    path = read_annotations(root, "train").paths[3]
    path.write_bytes(path.read_bytes()[:60])
    code, _, err = run("create-study", str(definition), "--data", str(root))
    assert code == 3
    assert path.name in err
