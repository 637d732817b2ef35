"""One slot to its end: trials that diverge, fail or do not fit; a database, disk or worker that fails."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import Pool, event
from torch import Tensor

from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.errors import StorageError
from mhist_tune.events import Emit
from mhist_tune.search.pruning import Decision
from mhist_tune.storage import event_log, ledger, studies
from mhist_tune.storage.database import open_storage
from mhist_tune.storage.epochs import EpochRow, epochs_of
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.slot_rows import SlotRow
from mhist_tune.training import forward, memory, step
from mhist_tune.training.checkpoints import files, writer
from mhist_tune.worker import loop, trial_checkpoints
from mhist_tune.worker.stages import search

Run = Callable[..., tuple[int, str, str]]

DEFINITION = """
[study]
name = "small"
n_trials = 1
lease_s = 2.0
{study}
pruner = {{ name = "none" }}

[fixed]
model = "{model}"
weights = "random"
image_size = 32
epochs = {epochs}
precision = "fp32"
memory_format = "contiguous"
augmentation = "none"
effective_batch_size = 16
micro_batch_size = 16
{more}

[space]
drop_rate = {{ low = 0.1, high = 0.5 }}
"""

Work = Callable[..., tuple[int, str]]
Recorded = Callable[[], tuple[SlotRow, list[EpochRow], list[event_log.EventRow]]]


@pytest.fixture
def work(run: Run, generated: Path, tmp_path: Path) -> Work:
    """A function that creates a study of one trial and works on it: exit code and stderr."""

    def call(model: str = "fcnn", more: str = "", epochs: int = 3, study: str = "") -> tuple[int, str]:
        text = DEFINITION.format(model=model, more=more, epochs=epochs, study=study)
        (tmp_path / "small.toml").write_text(text)
        code, _, err = run("create-study", "small.toml", "--data", str(generated))
        assert code == 0, err
        code, _, err = run("worker", "small", "--devices", "cpu", "--per-device", "1", "--data", str(generated))
        return code, err

    return call


@pytest.fixture
def recorded(storage_url_sqlite: str) -> Recorded:
    """A function that returns the study's only slot, its epochs and its events."""

    def call() -> tuple[SlotRow, list[EpochRow], list[event_log.EventRow]]:
        with open_storage(storage_url_sqlite) as storage:
            study = studies.load_study(storage, "small")
            [slot] = ledger.slots(storage, study, "search")
            return slot, epochs_of(storage, study, "search", 0), event_log.events(storage, study)

    return call


def test_a_smoothed_value_is_recorded_and_judged(work: Work, recorded: Recorded) -> None:
    """A trial's value is the mean F1 over two epochs, in every record and at the end; its best value is one epoch's."""
    assert work(study="smoothing = 2", epochs=4)[0] == 0
    slot, epochs, _ = recorded()

    assert slot.outcome is not None
    curve = [row.metrics["val_f1"] or 0.0 for row in epochs]
    best = slot.outcome.best_epoch
    assert slot.outcome.value == pytest.approx(sum(curve[max(0, best - 2) : best]) / min(best, 2))
    assert slot.outcome.best_score == curve[best - 1] == max(curve)
    assert epochs[-1].value == slot.outcome.value
    for n, row in enumerate(epochs, 1):
        kept = max(range(n), key=lambda index: curve[index])
        assert row.value == pytest.approx(sum(curve[max(0, kept - 1) : kept + 1]) / min(kept + 1, 2))


def test_a_diverged_trial_is_pruned_with_its_reason(work: Work, recorded: Recorded) -> None:
    """Weights that overflow end the trial as PRUNED with the reason, and use up its slot."""
    code, _ = work(more="learning_rate = 10.0\nweight_decay = 1e38")
    slot, _, _ = recorded()

    assert code == 0
    assert slot.state == "done"
    assert slot.outcome is not None
    assert slot.outcome.state == "PRUNED"
    assert slot.outcome.sampling["n_train"] > 0
    assert slot.outcome.reason.startswith("diverged: ")
    assert "epoch 1" in slot.outcome.reason


def test_a_failing_trial_is_retried_twice_from_its_checkpoint(
    work: Work, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in judging epoch 2 ends three attempts, then the trial as FAIL; epoch 1 is trained once."""
    judged = []

    def buggy(*args: object, epoch: int, **kwargs: object) -> None:
        judged.append(epoch)
        if epoch == 2:
            raise ZeroDivisionError("a bug")
        return decide(*args, epoch=epoch, **kwargs)

    decide = search.decide
    monkeypatch.setattr(search, "decide", buggy)
    monkeypatch.setattr(writer, "SAVING_SHARE", 1e9)  # a checkpoint after every epoch
    code, _ = work()
    slot, epochs, events = recorded()

    assert code == 1  # every training of this worker failed
    assert (slot.state, slot.n_claims) == ("done", 3)
    assert slot.outcome == Outcome(state=EndState.FAIL, reason="ZeroDivisionError: a bug")
    assert [(row.epoch, row.token) for row in epochs] == [(1, 1)]
    assert judged == [1, 2] * 3
    errors = [event.detail["traceback"] for event in events if event.kind == "error"]
    assert len(errors) == 3
    assert all("in buggy" in traceback for traceback in errors)


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device with memory for four images with gradients; for more torch's own allocator fails."""

    def limited(model: torch.nn.Module, images: Tensor, hp: Hyperparameters) -> Tensor:
        if len(images) > 4 and torch.is_grad_enabled():
            torch.empty(2**60)
        return logits_of(model, images, hp)

    logits_of = forward.logits_of
    monkeypatch.setattr(step, "logits_of", limited)


def test_out_of_memory_halves_the_micro_batch(work: Work, recorded: Recorded, small_memory: None) -> None:
    """Without BatchNorm the trial goes on with 8, then 4 images at once, and ends as COMPLETE."""
    code, err = work()
    slot, epochs, events = recorded()

    assert code == 0
    assert slot.outcome is not None
    assert slot.outcome.state == "COMPLETE"
    assert [row.epoch for row in epochs] == [1, 2, 3]
    assert [event.detail["micro_batch_size"] for event in events if event.kind == "out of memory"] == [16, 8]
    assert "micro_batch_size=4" in err


def test_out_of_memory_with_batch_norm_returns_the_slot(work: Work, recorded: Recorded, small_memory: None) -> None:
    """With BatchNorm nothing is changed or scored: the slot is free, and the error names the micro-batch that fits."""
    code, err = work(model="test_resnet")
    slot, epochs, _ = recorded()

    assert code == 1
    assert (slot.state, slot.outcome, epochs) == ("free", None, [])
    assert "micro_batch_size = 4" in err
    assert "Traceback" not in err


def test_a_full_disk_pauses_the_trial(work: Work, recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two checkpoints fail for lack of space: the worker says so once, waits, and completes the trial."""
    failures = iter([OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Disk quota exceeded")])

    def copy(*args: Any) -> None:
        if error := next(failures, None):
            raise error
        real_copy(*args)

    real_copy = shutil.copyfileobj
    monkeypatch.setattr(files.shutil, "copyfileobj", copy)
    monkeypatch.setattr(trial_checkpoints, "_WAIT_S", 0.01)
    code, err = work()
    slot, epochs, _ = recorded()

    assert code == 0
    assert slot.outcome is not None
    assert slot.outcome.state == "COMPLETE"
    assert [row.epoch for row in epochs] == [1, 2, 3]
    assert err.count("event=blocked") == 1
    assert "no space is left" in err


def test_a_full_disk_of_the_database_pauses_the_trial(
    work: Work, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite gets no further page after the first epoch: the worker says so, waits, and records every epoch."""
    n_pages, reports = 2**30, []

    def limit(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {n_pages}").close()

    def fill(*args: Any, **kwargs: Any) -> Decision:
        nonlocal n_pages
        if kwargs["epoch"] == 1:
            n_pages = 1
        return decide(*args, **kwargs)

    def free(emit: Emit, error: StorageError, max_outage_s: float) -> None:
        nonlocal n_pages
        n_pages = 2**30
        reports.append(str(error))
        report_blocked(emit, error, max_outage_s)

    decide, report_blocked = search.decide, loop._report_blocked
    monkeypatch.setattr(search, "decide", fill)
    monkeypatch.setattr(loop, "_report_blocked", free)
    event.listen(Pool, "checkout", limit)
    try:
        code, err = work(more="patience = 12", epochs=12)
    finally:
        event.remove(Pool, "checkout", limit)
    slot, epochs, _ = recorded()

    assert code == 0
    assert slot.outcome is not None
    assert slot.outcome.state == "COMPLETE"
    assert [row.epoch for row in epochs] == list(range(1, 13))
    assert len(reports) == 1
    assert "disk is full" in err
    assert err.count("event=blocked") == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_every_shortage_of_memory_is_recognized(error: Exception) -> None:
    """Allocators of torch, CUDA and Python; the tests above cover the CPU's message."""
    assert memory.is_out_of_memory(error)
    assert not memory.is_out_of_memory(RuntimeError("shape mismatch"))
