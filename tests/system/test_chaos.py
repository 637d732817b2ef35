"""Six real workers on two studies at once, while a seeded schedule kills, pauses and stops them and the database.

Every second worker has another version of the code. The two studies share room for fewer checkpoints than there are
workers: a budget, in the long form also a small disk.

One study is searched at random and prunes nothing, so its results must be bitwise those of a worker that nobody
disturbs; the other has TPE and the median rule. MHIST_TUNE_CHAOS_TRIALS and MHIST_TUNE_CHAOS_SEED choose the length
(trials of each study) and the schedule; `make chaos` runs the long form, with a hundred kills.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import pytest

import mhist_tune
from mhist_tune.arrays import FloatArray
from mhist_tune.cli import main
from mhist_tune.report.status import code_versions
from mhist_tune.storage import event_log, ledger, studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.decision import Verdict
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.predictions import predictions_of
from mhist_tune.storage.studies import Study
from tests.conftest import load_optuna_study
from tests.support.postgres import PostgresServer
from tests.support.workers import Event, Supervisor, Worker

N_TRIALS = int(os.environ.get("MHIST_TUNE_CHAOS_TRIALS", "8"))
SEED = int(os.environ.get("MHIST_TUNE_CHAOS_SEED", "0"))
N_EPOCHS = 8
N_WORKERS = 6
N_STATES = 3.5
"""How many checkpoints have room."""
ROOMS = ("budget",) if N_TRIALS < 40 else ("budget", "disk")
HASTY = (str(Path(__file__).parents[1] / "support" / "hasty_worker.py"),)
LEASE_S = 2.0
DOWN_S = 3.0
N_DATABASE_RESTARTS = 3
ASLEEP_S = 60.0

DEFINITION = """
[study]
name = "{name}"
n_trials = {n_trials}
sampler = {sampler}
pruner = {pruner}
lease_s = {lease_s}

[fixed]
model = "fcnn"
weights = "random"
image_size = 16
epochs = {n_epochs}
patience = {n_epochs}
precision = "fp32"
memory_format = "contiguous"
augmentation = "flip_rotate"
micro_batch_size = 8

[space]
learning_rate = {{ low = 1e-4, high = 1e-2, log = true }}
drop_rate = {{ low = 0.1, high = 0.6 }}
sampling = {{ choices = ["none", "random_over"] }}
"""

EVENT = re.compile(r"^event=(\w+)")

SEARCHES = {
    "random": ('{ name = "random", seed = 3 }', '{ name = "none" }'),
    "pruned": ('{ name = "tpe", seed = 3, n_startup_trials = 4 }', '{ name = "median", n_startup_trials = 3 }'),
}


@dataclass(frozen=True)
class Blow:
    """An action after `after` recorded epochs: a signal to a worker, or a restart of the database."""

    after: int
    kind: str
    is_aimed: bool
    seconds: float


def schedule(n_epochs: int, dialect: str) -> list[Blow]:
    """Return the blows of a run in which at least `n_epochs` are recorded, the earliest first."""
    rng = random.Random(SEED)
    n_kills = 5 * N_TRIALS // 8
    kinds = ["kill"] * n_kills + ["pause"] * (n_kills // 2) + ["terminate"] * (n_kills // 2)
    kinds += ["restart"] * N_DATABASE_RESTARTS if dialect == "postgresql" else []
    rng.shuffle(kinds)
    points = sorted(rng.sample(range(1, int(0.7 * n_epochs)), len(kinds)))
    return [
        Blow(after, kind, is_aimed=rng.random() < 0.5, seconds=rng.uniform(1.5, 2.5) * LEASE_S)
        for after, kind in zip(points, kinds, strict=True)
    ]


def strike(blow: Blow, speaker: Worker, supervisor: Supervisor, server: PostgresServer | None) -> None:
    """Do it: to the worker that has just recorded an epoch, or to any other, which may be starting."""
    if blow.kind == "restart":
        assert server is not None
        for worker in supervisor.workers:
            worker.may_find_no_database |= not worker.is_ready
        server.crash()
        time.sleep(DOWN_S)
        server.start()
        return
    rng = random.Random(f"{SEED} {blow.after}")
    others = [worker for worker in supervisor.workers if not worker.is_disturbed]
    worker = speaker if blow.is_aimed and not speaker.is_disturbed else rng.choice(others)
    match blow.kind:
        case "kill":
            worker.send(signal.SIGKILL)
        case "terminate":
            worker.send(signal.SIGTERM)
        case "pause":
            worker.pause(blow.seconds)


def create_studies(url: str, data: Path, folder: Path) -> None:
    for name, (sampler, pruner) in SEARCHES.items():
        text = DEFINITION.format(
            name=name, n_trials=N_TRIALS, sampler=sampler, pruner=pruner, lease_s=LEASE_S, n_epochs=N_EPOCHS
        )
        (folder / f"{name}.toml").write_text(text)
        main(["create-study", str(folder / f"{name}.toml"), "--storage", url, "--data", str(data)])


def has_epochs_left(event: Event) -> bool:
    """Whether who says this has more to do in its trial: who has not may be gone before he is struck."""
    return event.get("event") == "epoch" and int(event["epoch"]) < N_EPOCHS


def run_all(supervisor: Supervisor, blows: list[Blow], server: PostgresServer | None) -> None:
    """Let the workers work until the blows are dealt."""
    for blow in blows:

        def is_time(_: Worker, event: Event, after: int = blow.after) -> bool:
            return has_epochs_left(event) and supervisor.epochs.total() >= after

        speaker = supervisor.run_until(is_time)
        assert speaker is not None, f"all workers left before epoch {blow.after}"
        strike(blow, speaker, supervisor, server)


def overtake_one(supervisor: Supervisor, storage: Storage) -> None:
    """Let a worker sleep until it is found out: when no slot is free any more, another one takes its own.

    One that was put to sleep too late, or while it kept the database's lock, is woken, and the next one tried.
    """
    while not supervisor.overtaken:
        worker = supervisor.run_until(lambda worker, event: has_epochs_left(event) and not worker.is_disturbed)
        assert worker is not None, "all workers left before one was overtaken"
        worker.pause(ASLEEP_S)
        assert worker.slot is not None
        name, slot = worker.slot
        if ledger.slots(storage, studies.load_study(storage, name), "search")[int(slot)].state == "leased":
            supervisor.run_until(lambda worker, _, asleep=worker: asleep.resumes_at is None)
        else:
            worker.resume()


@pytest.fixture(scope="module")
def undisturbed(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """A storage with the same studies, searched by one undisturbed worker."""
    folder = tmp_path_factory.mktemp("undisturbed")
    url = f"sqlite:///{folder}/study.db"
    create_studies(url, generated, folder)
    with Supervisor(1, {"MHIST_TUNE_STORAGE": url, "MHIST_TUNE_DATA": str(generated)}, folder) as supervisor:
        assert supervisor.run_until(lambda *_: False) is None
    assert not supervisor.unexpected
    with open_storage(url) as storage:
        yield storage


@pytest.fixture(params=ROOMS)
def room(request: pytest.FixtureRequest, undisturbed: Storage, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of workers that have too little room for their checkpoints."""
    state_bytes = max(path.stat().st_size for path in undisturbed.root.rglob("*.safetensors"))
    n_bytes = int(N_STATES * state_bytes)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    place = {"MHIST_TUNE_CHECKPOINTS": str(folder)}
    if request.param == "budget":
        yield place | {"MHIST_TUNE_CHECKPOINTS_GB": f"{n_bytes / 1e9:.9f}"}
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "none", folder]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a tmpfs")
    yield place
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def versions(tmp_path: Path) -> tuple[Path, Path]:
    """The folders of this package, and of a copy with one more comment, which is another version."""
    root = tmp_path / "other"
    package = Path(mhist_tune.__file__).parent
    shutil.copytree(package, root / "mhist_tune", ignore=shutil.ignore_patterns("__pycache__"))
    with (root / "mhist_tune" / "training" / "step.py").open("a") as file:
        file.write("# another version\n")
    return package.parent, root


def test_workers_lose_nothing(
    storage_url: str,
    generated: Path,
    tmp_path: Path,
    undisturbed: Storage,
    room: dict[str, str],
    versions: tuple[Path, Path],
    request: pytest.FixtureRequest,
) -> None:
    """Killed, paused, stopped, without room, the database restarted: every trial and epoch is there once."""
    create_studies(storage_url, generated, tmp_path)
    environment = {"MHIST_TUNE_STORAGE": storage_url, "MHIST_TUNE_DATA": str(generated), **room}
    with open_storage(storage_url) as storage:
        server = request.getfixturevalue("postgres") if storage.dialect == "postgresql" else None
        blows = schedule(2 * N_TRIALS * N_EPOCHS // 2, storage.dialect)
        with Supervisor(N_WORKERS, environment, tmp_path, HASTY, versions) as supervisor:
            run_all(supervisor, blows, server)
            overtake_one(supervisor, storage)
            assert supervisor.run_until(lambda *_: False) is None

        assert supervisor.unexpected == []
        assert [key for key, times in supervisor.epochs.items() if times > 1] == []
        assert supervisor.overtaken
        for worker in supervisor.overtaken:
            assert worker.signals or any("event=lost" in line for line in worker.lines), worker.lines
        for name in SEARCHES:
            check_complete(storage, studies.load_study(storage, name))
        compare(storage, undisturbed, "random")
        assert {len(code_versions(storage, studies.load_study(storage, name))) for name in SEARCHES} == {2}
        said = Counter(kind for worker in supervisor.past for line in worker.lines for kind in EVENT.findall(line))
        assert said["blocked"]
        blows_by_kind = dict(Counter(blow.kind for blow in blows))
        sys.stdout.write(
            f"{storage.dialect}, {request.node.callspec.params['room']}: {blows_by_kind}, "
            f"{supervisor.n_restarts} restarts, {len(supervisor.overtaken)} overtaken, "
            f"{supervisor.epochs.total()} epochs recorded, each once; {said['blocked']} waits for room, "
            f"{said['gives_way']} gave way, {said['gave_room']} gave room to another study\n"
        )


def check_complete(storage: Storage, study: Study) -> None:
    """Assert that the budget is spent exactly, and that ledger, epochs and Optuna's trials say the same."""
    slots = ledger.slots(storage, study, "search")
    assert Counter(slot.state for slot in slots) == {"done": N_TRIALS}
    trials = {trial._trial_id: trial for trial in load_optuna_study(storage, study, "search").get_trials()}
    assert sorted(trial.number for trial in trials.values()) == list(range(N_TRIALS))
    assert trials.keys() == {slot.trial_id for slot in slots}
    assert event_log.events(storage, study, kind="error") == []
    for slot in slots:
        trial, outcome = trials[slot.trial_id or 0], slot.outcome
        assert outcome is not None
        assert trial.state.name == outcome.state
        assert trial.state in (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        rows = epochs_of(storage, study, "search", slot.slot)
        assert [row.epoch for row in rows] == list(range(1, outcome.stopped_epoch + 1))
        assert [row.token for row in rows] == sorted(row.token for row in rows)  # nobody wrote after he was overtaken
        assert trial.state.name == "PRUNED" or len(rows) == N_EPOCHS
        assert trial.intermediate_values == {row.epoch: row.score for row in rows}
        assert [row.decision.verdict is Verdict.PRUNE for row in rows if row.decision] == [False] * (len(rows) - 1) + [
            trial.state.name == "PRUNED"
        ]


def compare(storage: Storage, undisturbed: Storage, name: str) -> None:
    """Assert that a study has bitwise the same params, values and predictions in both storages."""
    one, other = (results(where, name) for where in (storage, undisturbed))
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    for slot, probabilities in one[1].items():
        np.testing.assert_array_equal(probabilities, other[1][slot], strict=True)


def results(storage: Storage, name: str) -> tuple[list[object], dict[int, FloatArray]]:
    """Return the outcome and the predictions of each slot."""
    study = studies.load_study(storage, name)
    outcomes: list[object] = [slot.outcome for slot in ledger.slots(storage, study, "search")]
    timed = ("elapsed_s", "images_per_s", "peak_memory_bytes")
    for slot in range(N_TRIALS):
        for row in epochs_of(storage, study, "search", slot):
            outcomes.append({key: value for key, value in row.metrics.items() if key not in timed})
    return outcomes, predictions_of(storage, study, "search", "val")
