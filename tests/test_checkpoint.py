"""Tests of mhist_tune.checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mhist_tune.checkpoint import CheckpointSlot, CheckpointStore
from mhist_tune.errors import StorageError

KEY = "3f/search/0007"


def state(epoch: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(epoch)
    return {
        "epoch": epoch,
        "model": {"layer.weight": torch.rand(4, 3, generator=generator), "n": torch.tensor(epoch)},
        "optimizer": {"groups": [{"lr": 0.1, "betas": [0.9, 0.999]}], "half": torch.ones(2, dtype=torch.bfloat16)},
        "history": [{"value": 0.1 + 0.2, "probabilities": torch.rand(3, dtype=torch.float64), "none": None}],
        "nothing": torch.zeros(0),
    }


def files(store: CheckpointStore) -> list[Path]:
    return sorted(path for path in (store.folder / KEY).iterdir())


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


def test_round_trip(tmp_path: Path) -> None:
    """Tensors of any type, numbers, None and nesting come back bit by bit."""
    saved = state(3)
    slot = CheckpointSlot(CheckpointStore(tmp_path), KEY, token=2)

    assert slot.load() is None
    slot.save(saved, epoch=3)

    loaded = slot.load()
    assert_same(saved, loaded)


def test_two_generations_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    """Older files go; names carry epoch and token; the highest epoch wins over the highest token."""
    store = CheckpointStore(tmp_path)
    for epoch, token in [(1, 1), (2, 1), (9, 1), (10, 2)]:
        store.save(KEY, state(epoch), epoch=epoch, token=token)

    names = [path.name for path in files(store)]
    assert names == ["epoch-00009.token-00001.safetensors", "epoch-00010.token-00002.safetensors"]
    loaded = store.load(KEY)
    assert loaded is not None
    assert loaded["epoch"] == 10


@pytest.mark.parametrize("damage", ["torn", "empty", "flipped", "foreign", "garbage"])
def test_a_damaged_file_falls_back_to_the_previous(tmp_path: Path, damage: str) -> None:
    """A torn, empty, altered or foreign newest file is passed over."""
    store = CheckpointStore(tmp_path)
    store.save(KEY, state(1), epoch=1, token=1)
    store.save(KEY, state(2), epoch=2, token=1)
    newest = files(store)[-1]
    content = bytearray(newest.read_bytes())
    if damage == "torn":
        newest.write_bytes(content[: len(content) - 5])
    elif damage == "empty":
        newest.write_bytes(b"")
    elif damage == "garbage":
        newest.write_bytes(b"not a checkpoint at all")
    elif damage == "flipped":
        content[-3] ^= 1
        newest.write_bytes(content)
    else:
        store.save("another", state(5), epoch=2, token=1)
        newest.write_bytes((tmp_path / "another" / newest.name).read_bytes())

    loaded = store.load(KEY)

    assert loaded is not None
    assert loaded["epoch"] == 1


def test_nothing_intact_is_none(tmp_path: Path) -> None:
    """With every generation damaged the run starts afresh."""
    store = CheckpointStore(tmp_path)
    store.save(KEY, state(1), epoch=1, token=1)
    files(store)[0].write_bytes(b"")

    assert store.load(KEY) is None


def test_what_a_kill_left_behind_is_removed(tmp_path: Path) -> None:
    """Half-written files of this and older leases go with the next save; a newer lease's stays."""
    store = CheckpointStore(tmp_path)
    store.save(KEY, state(1), epoch=1, token=2)
    old, newer = (tmp_path / KEY / f"epoch-00002.token-0000{token}.partial" for token in (1, 3))
    old.write_bytes(b"half")
    newer.write_bytes(b"half")

    store.save(KEY, state(2), epoch=2, token=2)

    assert not old.exists()
    assert newer.exists()


def test_remove(tmp_path: Path) -> None:
    """Removing a key deletes its files and no others; removing it again is no error."""
    store = CheckpointStore(tmp_path)
    store.save(KEY, state(1), epoch=1, token=1)
    store.save("other", state(1), epoch=1, token=1)

    store.remove(KEY)
    store.remove(KEY)

    assert store.load(KEY) is None
    assert store.load("other") is not None


@pytest.mark.parametrize("key", ["", "../x", "/etc", "a//b", "a/../b", "a b"])
def test_a_key_cannot_leave_the_folder(tmp_path: Path, key: str) -> None:
    """Keys that would name another folder are refused."""
    with pytest.raises(ValueError, match="not a checkpoint key"):
        CheckpointStore(tmp_path).load(key)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A file where the folder should be gives a storage error with a hint."""
    (tmp_path / "store").write_text("in the way")

    with pytest.raises(StorageError, match="cannot write the checkpoint") as caught:
        CheckpointStore(tmp_path / "store").save(KEY, state(1), epoch=1, token=1)
    assert caught.value.hint
