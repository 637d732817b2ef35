"""A worker is killed between every two of its writes; the next one leaves the same records as an undisturbed one."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mhist_tune import ledger, records, studies
from mhist_tune.storage import open_storage

Run = Callable[..., tuple[int, str, str]]

DEFINITION = """
[study]
name = "tiny"
n_trials = 2
sampler = { name = "random", seed = 3 }
pruner = { name = "none" }
lease_s = 1.0

[fixed]
model = "test_resnet"
weights = "random"
image_size = 32
epochs = 2
precision = "fp32"
augmentation = "none"

[space]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
"""

GAPS = {
    "creation and ledger": ("mhist_tune.ledger:attach_trial", 1),
    "checkpoint and record": ("mhist_tune.records:record_epoch", 2),
    "record and mirror": ("mhist_tune.execution:SlotRun._mirror", 2),
    "mirror and decision": ("mhist_tune.records:record_decision", 2),
    "decision and final state": ("mhist_tune.execution:SlotRun._tell", 1),
    "final state and removed checkpoints": ("mhist_tune.checkpoint:CheckpointStore.remove", 1),
    "removed checkpoints and ledger": ("mhist_tune.ledger:finish", 1),
}
"""Between which two writes the worker dies, and the function that would make the second one."""

WORK = ("--devices", "cpu", "--per-device", "1")


def what_is_recorded(url: str, folder: Path) -> dict[str, Any]:
    """Return all that a finished search leaves behind, without times and names of workers."""
    with open_storage(url) as storage:
        study = studies.load_study(storage, "tiny")
        slots = ledger.slots(storage, study, "search")
        trials = studies.optuna_study(storage, study, "search").get_trials()
        return {
            "slots": [(slot.state, slot.trial_number, slot.outcome) for slot in slots],
            "epochs": [
                [
                    (row.epoch, row.value, row.metrics["train_loss"])
                    for row in records.epochs(storage, study, "search", n)
                ]
                for n in range(len(slots))
            ],
            "predictions": {
                slot: values.tolist() for slot, values in records.predictions(storage, study, "search", "val").items()
            },
            "trials": [(t.state.name, t.values, t.params, t.intermediate_values) for t in trials],
            "checkpoints": [str(path) for path in (folder / "storage" / "checkpoints").rglob("*.safetensors")],
        }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, generated: Path) -> dict[str, Any]:
    """The records of a search in which nobody was killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    url = f"sqlite:///{folder}/storage/mhist-tune.db"
    return create_and_work(url, folder, generated)


def create_and_work(url: str, folder: Path, generated: Path) -> dict[str, Any]:
    definition = folder / "tiny.toml"
    definition.write_text(DEFINITION)
    for arguments in (["create-study", str(definition)], ["worker", "tiny", *WORK]):
        command = [sys.executable, "-m", "mhist_tune", *arguments, "--data", str(generated), "--storage", url]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return what_is_recorded(url, folder)


@pytest.mark.parametrize("gap", GAPS)
def test_nothing_is_left_to_clean(
    gap: str, run: Run, storage_url: str, generated: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """The slot of a worker killed in the gap is finished by the next one, with one trial, as if nothing had been."""
    common = ("--data", str(generated), "--storage", storage_url)
    (tmp_path / "tiny.toml").write_text(DEFINITION)
    run("create-study", "tiny.toml", *common)
    place, n = GAPS[gap]
    script = Path(__file__).with_name("killed_worker.py")
    command = [sys.executable, str(script), place, str(n), "worker", "tiny", *WORK, *common]
    killed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    code, _, err = run("worker", "tiny", *WORK, *common)
    assert code == 0, err
    assert what_is_recorded(storage_url, tmp_path) == undisturbed
