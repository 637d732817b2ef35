"""Tests of mhist_tune.training.checkpoints.store."""

import io
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from mhist_tune.errors import DiskFullError, StorageError
from mhist_tune.training.checkpoints.files import Files
from mhist_tune.training.checkpoints.store import Cancelled, CheckpointStore, snapshot
from mhist_tune.worker.checkpoint_places import open_checkpoints
from tests.support.s3 import S3Server

KEY = "3f/search/0007"


def state(epoch: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(epoch)
    probabilities = torch.rand(3, generator=generator, dtype=torch.float64)
    return {
        "epoch": epoch,
        "model": {"layer.weight": torch.rand(4, 3, generator=generator), "n": torch.tensor(epoch)},
        "optimizer": {"groups": [{"lr": 0.1, "betas": [0.9, 0.999]}], "half": torch.ones(2, dtype=torch.bfloat16)},
        "history": [{"value": 0.1 + 0.2, "probabilities": probabilities, "none": None}],
        "nothing": torch.zeros(0),
    }


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CheckpointStore:
    """An empty store of each kind; the second one behind a real server."""
    if request.param == "folder":
        return CheckpointStore(tmp_path)
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return open_checkpoints(server.new_place(), tmp_path)


def save(store: CheckpointStore, epoch: int, *, token: int = 1, key: str = KEY) -> None:
    store.save(key, snapshot(state(epoch)), epoch=epoch, token=token)


def names(files: Files) -> list[str]:
    return sorted(files.sizes(f"{KEY}/"))


def assert_same(first: Any, second: Any) -> None:
    """Compare nested states bit by bit."""
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


def test_round_trip(store: CheckpointStore) -> None:
    """Tensors of any type, numbers, None and nesting come back bit by bit."""
    assert store.load(KEY) is None
    save(store, 3)

    assert_same(state(3), store.load(KEY))


def test_a_file_is_a_safetensors_file(tmp_path: Path) -> None:
    """Anything that reads safetensors reads a checkpoint, memory-mapped too, which takes aligned tensors."""
    store = CheckpointStore(tmp_path)
    save(store, 3)
    [name] = names(store.files)

    with safe_open(tmp_path / name, framework="pt") as file:
        tensors = {one: file.get_tensor(one) for one in file.keys()}  # noqa: SIM118 (not a dict)

    assert_same(tensors, snapshot(state(3)).tensors)


def test_a_snapshot_stays_as_it_was() -> None:
    """What training does to a tensor afterwards does not reach the copy."""
    changing = torch.zeros(3)
    taken = snapshot({"x": changing})
    changing += 1

    assert torch.equal(taken.tensors["/x"], torch.zeros(3))


def test_two_generations_are_kept_and_the_newest_is_read(store: CheckpointStore) -> None:
    """Older files go; names carry epoch and token; the highest epoch wins over the highest token."""
    for epoch, token in [(1, 1), (2, 1), (9, 1), (10, 2)]:
        save(store, epoch, token=token)

    assert names(store.files) == [
        f"{KEY}/epoch-00009.token-00001.safetensors",
        f"{KEY}/epoch-00010.token-00002.safetensors",
    ]
    loaded = store.load(KEY)
    assert loaded is not None
    assert loaded["epoch"] == 10


@pytest.mark.parametrize("damage", ["torn", "empty", "flipped", "foreign", "garbage"])
def test_a_damaged_file_falls_back_to_the_previous(store: CheckpointStore, damage: str) -> None:
    """A torn, empty, altered or foreign newest file is passed over."""
    save(store, 1)
    save(store, 2)
    files, newest = store.files, names(store.files)[-1]
    content = bytearray(files.read(newest))
    if damage == "torn":
        content = content[:-5]
    elif damage == "empty":
        content.clear()
    elif damage == "garbage":
        content = bytearray(b"not a checkpoint at all")
    elif damage == "flipped":
        content[-3] ^= 1
    else:
        save(store, 2, key="another")
        content = bytearray(files.read(f"another/{newest.rpartition('/')[2]}"))
    files.write(newest, io.BytesIO(content))

    loaded = store.load(KEY)

    assert loaded is not None
    assert loaded["epoch"] == 1


def test_nothing_intact_is_none(store: CheckpointStore) -> None:
    """With every generation damaged the run starts afresh."""
    save(store, 1)
    store.files.write(names(store.files)[0], io.BytesIO(b""))

    assert store.load(KEY) is None


def test_what_a_kill_left_behind_is_removed(tmp_path: Path) -> None:
    """Half-written files of this and older leases go with the next save; a newer lease's stays."""
    store = CheckpointStore(tmp_path)
    save(store, 1, token=2)
    old, newer = (tmp_path / KEY / f"epoch-00002.token-0000{token}.safetensors.partial" for token in (1, 3))
    old.write_bytes(b"half")
    newer.write_bytes(b"half")

    save(store, 2, token=2)

    assert not old.exists()
    assert newer.exists()


def test_a_cancelled_save_leaves_nothing(store: CheckpointStore) -> None:
    """A save that is no longer wanted ends with Cancelled, and the generation before is still the newest."""
    save(store, 1)
    cancelled = threading.Event()
    cancelled.set()

    with pytest.raises(Cancelled):
        store.save(KEY, snapshot(state(2)), epoch=2, token=1, cancelled=cancelled)

    assert names(store.files) == [f"{KEY}/epoch-00001.token-00001.safetensors"]


def test_remove(store: CheckpointStore) -> None:
    """Removing a key deletes its files and those below it, and no others; removing it again is no error."""
    for key in (KEY, "3f/search/0008", "3fa/search/0007"):
        save(store, 1, key=key)
    assert store.keys("3f/") == {KEY, "3f/search/0008"}

    store.remove(KEY)
    store.remove(KEY)

    assert store.keys("") == {"3f/search/0008", "3fa/search/0007"}
    store.remove("3f")
    assert store.keys("") == {"3fa/search/0007"}


def test_a_budget_is_kept(store: CheckpointStore) -> None:
    """A save that would be over the budget for all keys is refused with the sizes, until something is removed."""
    save(store, 1, key="other")
    [size] = store.files.sizes("").values()
    limited = CheckpointStore(store.files, budget_bytes=size + 10)

    with pytest.raises(DiskFullError, match="over their budget") as caught:
        save(limited, 1)
    assert "--checkpoints-gb" in str(caught.value.hint)
    limited.remove("other")
    save(limited, 1)

    assert limited.load(KEY) is not None


def test_a_run_replaces_its_own_files_where_there_is_no_room(store: CheckpointStore) -> None:
    """With room for one state a run keeps its newest one, and neither another run's nor a newer lease's is touched."""
    save(store, 1, key="other")
    [size] = store.files.sizes("").values()
    limited = CheckpointStore(store.files, budget_bytes=2 * size + 10)
    for epoch in (1, 2, 3):
        save(limited, epoch)
    assert sorted(name.rpartition("/")[2] for name in store.files.sizes(f"{KEY}/")) == [
        "epoch-00003.token-00001.safetensors"
    ]
    limited.remove(KEY)
    save(limited, 3, token=2)

    with pytest.raises(DiskFullError):
        save(limited, 4, token=1)
    assert store.keys("") == {"other", KEY}


@pytest.mark.parametrize("key", ["", "../x", "/etc", "a//b", "a/../b", "a b"])
def test_a_key_cannot_leave_the_folder(tmp_path: Path, key: str) -> None:
    """Keys that would name another folder are refused."""
    with pytest.raises(ValueError, match="not a checkpoint key"):
        CheckpointStore(tmp_path).load(key)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A file where the folder should be gives a storage error with a hint."""
    (tmp_path / "store").write_text("in the way")

    with pytest.raises(StorageError, match="cannot write the checkpoint") as caught:
        save(CheckpointStore(tmp_path / "store"), 1)
    assert caught.value.hint
