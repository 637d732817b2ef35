"""A worker is killed between every two of its writes; the next one leaves the same records as an undisturbed one."""

import contextlib
import io
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mhist_tune.cli import main
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import open_storage
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.predictions import predictions_of
from tests.conftest import load_optuna_study
from tests.support.killed_worker import run_killed

Run = Callable[..., tuple[int, str, str]]

DEFINITION = """
[study]
name = "tiny"
n_trials = 9
sampler = { name = "random", seed = 3 }
pruner = { name = "none" }
lease_s = 0.5

[fixed]
model = "fcnn"
weights = "random"
image_size = 16
epochs = 2
precision = "fp32"
memory_format = "contiguous"
augmentation = "none"

[space]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
"""

GAPS = {
    # first, so that it is resumed by a worker that has read no other trial yet
    "suggestion and params": ("optuna.storages._rdb.storage:RDBStorage._set_trial_param", 1),
    "creation and ledger": ("mhist_tune.storage.ledger:attach_trial", 1),
    "ledger and suggestion": ("mhist_tune.search.suggestions:record", 1),
    "checkpoint and record": ("mhist_tune.worker.slot_run:record_epoch", 2),
    "record and mirror": ("mhist_tune.worker.optuna_trial:OptunaTrial.record", 2),
    "mirror and outcome": ("mhist_tune.storage.ledger:decide", 1),
    "outcome and final state": ("mhist_tune.worker.optuna_trial:OptunaTrial.finish", 1),
    "final state and removed checkpoints": ("mhist_tune.worker.trial_checkpoints:TrialCheckpoints.tidy", 1),
    "removed checkpoints and ledger": ("mhist_tune.storage.ledger:finish", 1),
}
"""Between which two writes the worker dies, and the function (at its Nth call) that would make the second one."""

WORK = ("--devices", "cpu", "--per-device", "1")


def what_is_recorded(url: str, folder: Path) -> dict[str, Any]:
    """Return all records of a finished search, by the gap of each slot, without times and names of workers."""
    with open_storage(url) as storage:
        study = studies.load_study(storage, "tiny")
        trials = load_optuna_study(storage, study, "search").get_trials()
        predictions = predictions_of(storage, study, "search", "val")
        found = {
            gap: {
                "slot": (slot.state, slot.trial_number, slot.outcome),
                "epochs": [
                    (row.epoch, row.score, row.metrics["train_loss"])
                    for row in epochs_of(storage, study, "search", slot.slot)
                ],
                "predictions": predictions[slot.slot].tolist(),
                "trials": [
                    (trial.number, trial.state.name, trial.values, trial.params, trial.intermediate_values)
                    for trial in trials
                    if trial.user_attrs["slot"] == slot.slot
                ],
            }
            for gap, slot in zip(GAPS, ledger.slots(storage, study, "search"), strict=True)
        }
    checkpoints = folder / "storage" / "checkpoints"
    slots = {path.parent.name for path in checkpoints.rglob("*.safetensors")}
    return {**found, "checkpoints": slots}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, generated: Path) -> dict[str, Any]:
    """The records of a search without kills."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "tiny.toml").write_text(DEFINITION)
    url = f"sqlite:///{folder}/storage/mhist-tune.db"
    for arguments in (["create-study", str(folder / "tiny.toml")], ["worker", "tiny", *WORK]):
        main_quietly([*arguments, "--data", str(generated), "--storage", url])
    return what_is_recorded(url, folder)


def main_quietly(arguments: list[str]) -> None:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        main(arguments)


def test_nothing_is_left_to_clean(
    run: Run, storage_url: str, generated: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """Another worker finishes the slots of workers killed in each gap, with one trial each and undisturbed records."""
    common = ("--data", str(generated), "--storage", storage_url)
    (tmp_path / "tiny.toml").write_text(DEFINITION)
    assert run("create-study", "tiny.toml", *common)[0] == 0
    for gap, (place, n) in GAPS.items():
        assert run_killed(place, n, ["worker", "tiny", *WORK, *common]) == -signal.SIGKILL, gap

    code, _, err = run("worker", "tiny", *WORK, *common)
    assert code == 0, err
    assert what_is_recorded(storage_url, tmp_path) == undisturbed
    assert len(undisturbed["checkpoints"]) == 1  # those of the best trial
