"""One worker process: what it reads for each slot, and what it reads once."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mhist_tune.actions import change
from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import open_storage

Run = Callable[..., tuple[int, str, str]]

DEFINITION = """
[study]
name = "small"
n_trials = 2
pruner = { name = "none" }
sampler = { name = "random" }

[fixed]
model = "fcnn"
weights = "random"
image_size = 16
epochs = 1
precision = "fp32"
memory_format = "contiguous"
augmentation = "none"

[space]
drop_rate = { low = 0.1, high = 0.5 }
"""


@pytest.fixture
def n_parsed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """A function that returns how many stored definitions were parsed since its last call."""
    calls: list[str] = []
    parse = StudyDefinition.from_json

    def count(record: str) -> StudyDefinition:
        calls.append(record)
        return parse(record)

    def take() -> int:
        n = len(calls)
        calls.clear()
        return n

    monkeypatch.setattr(StudyDefinition, "from_json", staticmethod(count))
    studies._definition.cache_clear()
    return take


def test_a_definition_is_parsed_once_until_its_row_changes(
    run: Run, generated: Path, tmp_path: Path, storage_url_sqlite: str, n_parsed: Callable[[], int]
) -> None:
    """Neither a claim nor a suggestion parses it again; a wider range is parsed once more."""
    (tmp_path / "small.toml").write_text(DEFINITION)
    work: tuple[Any, ...] = ("worker", "small", "--devices", "cpu", "--per-device", "1", "--data", str(generated))
    assert run("create-study", "small.toml", "--data", str(generated))[0] == 0
    studies._definition.cache_clear()
    n_parsed()
    assert run(*work)[0] == 0
    assert n_parsed() == 1

    with open_storage(storage_url_sqlite) as storage:
        study = change.widen(storage, studies.load_study(storage, "small"), "drop_rate=0.0..0.6")
        change.extend(storage, study, 1, by="a test")
    assert run(*work)[0] == 0
    assert n_parsed() == 1
    with open_storage(storage_url_sqlite) as storage:
        assert [slot.state for slot in ledger.slots(storage, study, "search")] == ["done"] * 3


@pytest.mark.parametrize(("umask", "mode_of_checkpoints"), [(0o000, 0o660), (0o022, 0o640), (0o077, 0o600)])
def test_others_cannot_read_what_a_worker_writes(
    run: Run, generated: Path, tmp_path: Path, umask: int, mode_of_checkpoints: int
) -> None:
    """Not the database, cache, checkpoints or logs, whatever the umask; it decides about the group alone."""
    (tmp_path / "small.toml").write_text(DEFINITION.replace("n_trials = 2", "n_trials = 1"))
    before = os.umask(umask)
    try:
        assert run("create-study", "small.toml", "--data", str(generated))[0] == 0
        assert run("worker", "small", "--data", str(generated), "--devices", "cpu", "--per-device", "1")[0] == 0
    finally:
        os.umask(before)

    written = [tmp_path / "storage", *(tmp_path / "storage").rglob("*")]
    assert [path for path in written if path.stat().st_mode & 0o007] == []
    checkpoints = [path for path in written if path.suffix == ".safetensors"]
    assert checkpoints and {path.stat().st_mode & 0o777 for path in checkpoints} == {mode_of_checkpoints}
    assert {path.suffix for path in written} >= {".db", ".log", ".safetensors", ".npy"}
