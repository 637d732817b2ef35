"""Several workers whose checkpoints have room for one state only, and that are killed: the search ends all the same."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import open_storage
from mhist_tune.storage.epochs import epochs_of
from tests.support.workers import Event, Supervisor, Worker

Run = Callable[..., tuple[int, str, str]]

HASTY = (str(Path(__file__).parents[1] / "support" / "hasty_worker.py"),)
N_TRIALS, N_EPOCHS, N_KILLS = 5, 4, 2
DEFINITION = f"""
[study]
name = "tight"
n_trials = {N_TRIALS}
lease_s = 1.0
sampler = {{ name = "random" }}
pruner = {{ name = "promotion", min_resource = 2, reduction_factor = 2 }}

[fixed]
model = "fcnn"
weights = "random"
image_size = 16
epochs = {N_EPOCHS}
precision = "fp32"
memory_format = "contiguous"
augmentation = "none"

[space]
learning_rate = {{ low = 1e-4, high = 1e-2, log = true }}
"""


@pytest.fixture
def create(run: Run, generated: Path, tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """A function that creates the study in a new storage, and returns a worker's environment."""

    def call(name: str) -> dict[str, str]:
        url = f"sqlite:///{tmp_path}/{name}/mhist-tune.db"
        (tmp_path / "tight.toml").write_text(DEFINITION)
        code, _, err = run("create-study", "tight.toml", "--data", str(generated), "--storage", url)
        assert code == 0, err
        return {"MHIST_TUNE_STORAGE": url, "MHIST_TUNE_DATA": str(generated)}

    return call


@pytest.fixture
def state_bytes(create: Callable[[str], dict[str, str]], tmp_path: Path) -> int:
    """The size of the study's state, as a worker of another storage writes it."""
    place = tmp_path / "measured"
    environment = create("measuring") | {"MHIST_TUNE_CHECKPOINTS": str(place)}
    with Supervisor(1, environment, tmp_path, HASTY) as supervisor:
        assert supervisor.run_until(lambda _, event: event.get("event") == "epoch" and event["epoch"] == "2")
    return max(path.stat().st_size for path in place.rglob("*.safetensors"))


@pytest.fixture
def full_disk(state_bytes: int, tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one state and a half."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = f"size={state_bytes * 3 // 2}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", folder], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"this user may not mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def search(create: Callable[[str], dict[str, str]], tmp_path: Path) -> Callable[..., list[str]]:
    """A function that lets three workers search, and returns what became of the trials.

    Twice the worker that trains the trial with the checkpoint is killed as soon as another one waits for room.
    """

    def call(place: Path, **environment: str) -> list[str]:
        common = create("storage") | {"MHIST_TUNE_CHECKPOINTS": str(place)}

        def is_blocked(_: Worker, event: Event) -> bool:
            return event.get("event") == "blocked"

        with Supervisor(3, common | environment, tmp_path, HASTY) as supervisor:
            for _ in range(N_KILLS):
                assert supervisor.run_until(is_blocked) is not None
                kill_holder(supervisor, place)
            assert supervisor.run_until(lambda *_: False) is None
            assert supervisor.unexpected == []
        with open_storage(common["MHIST_TUNE_STORAGE"]) as storage:
            study = studies.load_study(storage, "tight")
            slots = ledger.slots(storage, study, "search")
            assert {slot.state for slot in slots} == {"done"}
            for slot in slots:
                assert slot.outcome is not None
                recorded = [row.epoch for row in epochs_of(storage, study, "search", slot.slot)]
                assert recorded == list(range(1, (slot.outcome.stopped_epoch or 0) + 1))
            return [slot.outcome.state for slot in slots if slot.outcome]

    return call


def kill_holder(supervisor: Supervisor, place: Path) -> None:
    """Kill the worker of the trial with a checkpoint, if one trains it now."""
    slots = {path.parent.name.rpartition("-")[2] for path in place.rglob("*.safetensors")}
    for worker in supervisor.workers:
        if worker.slot is not None and f"{int(worker.slot[1]):05d}" in slots:
            worker.signals.add(signal.SIGKILL)
            os.kill(worker.process.pid, signal.SIGKILL)
            return


def test_a_budget_of_one_state_is_enough(search: Callable[..., list[str]], state_bytes: int, tmp_path: Path) -> None:
    """Abandoned trials go on first, waiting trials make room, and one trial is complete."""
    budget_gb = f"{1.5 * state_bytes / 1e9:.9f}"
    outcomes = search(tmp_path / "store", MHIST_TUNE_CHECKPOINTS_GB=budget_gb)

    assert set(outcomes) == {"COMPLETE", "PRUNED"}


def test_a_disk_with_room_for_one_state_is_enough(search: Callable[..., list[str]], full_disk: Path) -> None:
    """A disk that is full behaves as a budget does."""
    assert set(search(full_disk / "store")) == {"COMPLETE", "PRUNED"}
