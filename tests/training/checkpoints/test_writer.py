"""Checkpoints that are written while training goes on."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from mhist_tune.errors import DiskFullError, StorageError
from mhist_tune.training.checkpoints import writer as checkpoint_writer
from mhist_tune.training.checkpoints.files import Folder
from mhist_tune.training.checkpoints.store import CheckpointStore
from mhist_tune.training.checkpoints.writer import CheckpointWriter

TIMEOUT_S = 60.0


class SlowFolder(Folder):
    """A folder that begins to write only when it may."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.may_write = threading.Event()

    def write(self, name: str, body: BinaryIO) -> None:
        assert self.may_write.wait(TIMEOUT_S)
        super().write(name, body)


class FullFolder(Folder):
    """A folder with space for the given number of files."""

    def __init__(self, path: Path, n_files: int) -> None:
        super().__init__(path)
        self.n_left = n_files

    def write(self, name: str, body: BinaryIO) -> None:
        if self.n_left == 0:
            raise DiskFullError("no space is left")
        self.n_left -= 1
        super().write(name, body)


def state(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "weights": torch.full((3,), float(epoch))}


def epoch_in(writer: CheckpointWriter) -> int | None:
    loaded = writer.load()
    return None if loaded is None else loaded["epoch"]


def test_training_goes_on_while_a_save_is_on_its_way(tmp_path: Path) -> None:
    """Saving returns before anything is durable; until it is, nothing is claimed, and no further save is due."""
    folder = SlowFolder(tmp_path)
    writer = CheckpointWriter(CheckpointStore(folder), "run", 1)
    assert writer.is_due()
    training = state(1)
    writer.save(training, epoch=1)
    training["weights"] += 1

    assert not writer.is_due()
    assert writer.saved_epoch is None
    assert writer.store.load("run") is None
    folder.may_write.set()
    writer.wait()

    assert writer.saved_epoch == 1
    loaded = writer.load()
    assert loaded is not None
    assert loaded["weights"].tolist() == [1.0, 1.0, 1.0]


def test_the_last_state_overtakes_the_one_before(tmp_path: Path) -> None:
    """At the end of a run a save on its way is given up for the newest state, and that one may be given up as well."""
    folder = SlowFolder(tmp_path)
    writer = CheckpointWriter(CheckpointStore(folder), "run", 1)
    writer.save(state(1), epoch=1)
    threading.Timer(0.05, folder.may_write.set).start()
    writer.save(state(2), epoch=2, is_last=True)
    writer.wait()

    assert [path.name for path in (tmp_path / "run").iterdir()] == ["epoch-00002.token-00001.safetensors"]


def test_a_failing_save_surfaces_at_the_next_epoch(tmp_path: Path) -> None:
    """`wait` raises the error of a failed save; `finish` passes it to `on_unsaved`."""
    (tmp_path / "run").write_text("in the way")
    unsaved: list[Exception] = []
    writer = CheckpointWriter(CheckpointStore(tmp_path), "run", 1, on_unsaved=unsaved.append)
    writer.save(state(1), epoch=1)
    with pytest.raises(StorageError, match="cannot write the checkpoint"):
        writer.wait()

    writer.save(state(2), epoch=2)
    writer.finish()

    assert [type(error) for error in unsaved] == [StorageError]
    assert writer.saved_epoch is None


def test_a_full_store_is_waited_for(tmp_path: Path) -> None:
    """The same state is written again as long as on_wait returns."""
    folder = FullFolder(tmp_path, n_files=0)
    heard: list[StorageError] = []

    def make_space(error: StorageError) -> None:
        heard.append(error)
        folder.n_left = len(heard) - 1

    writer = CheckpointWriter(CheckpointStore(folder), "run", 1, on_wait=make_space)
    writer.save(state(4), epoch=4)
    writer.wait()

    assert len(heard) == 2
    assert epoch_in(writer) == 4


def test_what_was_kept_is_written_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest state that was not saved overtakes a save on its way; after a save there is nothing to write."""
    monkeypatch.setattr(checkpoint_writer, "_KEEPING_SHARE", 1e9)
    folder = SlowFolder(tmp_path)
    writer = CheckpointWriter(CheckpointStore(folder), "run", 1)
    writer.keep(state(1), epoch=1)
    writer.save(state(2), epoch=2)
    writer.save_kept()
    training = state(3)
    writer.keep(training, epoch=3)
    training["weights"] += 1
    folder.may_write.set()
    writer.save_kept()
    writer.finish()

    assert writer.saved_epoch == 3
    loaded = writer.load()
    assert loaded is not None
    assert loaded["weights"].tolist() == [3.0, 3.0, 3.0]


def test_epochs_shorter_than_copying_them_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where training an epoch again costs hardly more than a copy after each, none is made."""
    clock = Clock()
    monkeypatch.setattr(checkpoint_writer.time, "perf_counter", clock)
    monkeypatch.setattr(checkpoint_writer, "snapshot", clock.taking(0.5, checkpoint_writer.snapshot))
    writer = CheckpointWriter(CheckpointStore(tmp_path), "run", 1)
    writer.save(state(1), epoch=1)
    writer.wait()
    n_kept = {}
    for seconds in (50.0, 150.0):
        before = clock.now
        for epoch in range(2, 12):
            clock.now += seconds
            writer.keep(state(epoch), epoch=epoch)
        n_kept[seconds] = (clock.now - before - 10 * seconds) / 0.5

    assert n_kept == {50.0: 0, 150.0: 10}
    writer.save_kept()
    writer.finish()
    assert writer.saved_epoch == 11


@pytest.mark.parametrize("share", [0.02, 0.2])
def test_saving_keeps_to_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Over a thousand epochs of a made-up clock, saving takes its share of the time and hardly less."""
    clock = Clock()
    monkeypatch.setattr(checkpoint_writer, "SAVING_SHARE", share)
    monkeypatch.setattr(checkpoint_writer.time, "perf_counter", clock)
    monkeypatch.setattr(checkpoint_writer, "snapshot", clock.taking(0.5, checkpoint_writer.snapshot))
    writer = CheckpointWriter(CheckpointStore(tmp_path), "run", 1, shares_cores=False)
    n_saves = 0
    for epoch in range(1, 1001):
        clock.now += 1.0
        if writer.is_due():
            writer.save(state(epoch), epoch=epoch)
            writer.wait()
            n_saves += 1

    assert 0.8 * share < 0.5 * n_saves / clock.now <= 1.01 * share


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*args: Any) -> Any:
            self.now += seconds
            return function(*args)

        return slow
