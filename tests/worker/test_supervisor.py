"""Real worker processes that are killed, paused, or lose their database."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mhist_tune.errors import DefinitionError, DeviceError, MhistTuneError
from mhist_tune.report.evidence import NothingRetrainedError
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import open_storage
from mhist_tune.storage.epochs import epochs_of
from tests.support.postgres import PostgresServer

Run = Callable[..., tuple[int, str, str]]

DEFINITION = """
[study]
name = "tiny"
n_trials = {n_trials}
lease_s = 1.0
pruner = {{ name = "none" }}
sampler = {{ name = "random" }}

[fixed]
model = "fcnn"
weights = "random"
image_size = 32
epochs = {epochs}
patience = {epochs}
precision = "fp32"
memory_format = "contiguous"
augmentation = "none"
micro_batch_size = 1

[space]
drop_rate = {{ low = 0.1, high = 0.5 }}
"""

WORKER = (sys.executable, "-m", "mhist_tune", "worker", "tiny", "--devices", "cpu")
BROKEN = Path(__file__).parents[1] / "support" / "broken_worker.py"


class Worker:
    """A worker with its children, whose events are read from its stderr."""

    def __init__(self, command: tuple[str, ...], folder: Path) -> None:
        self.process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        self.seen: list[str] = []

    def wait_for(self, *words: str) -> str:
        """Read up to the first line that contains all words, and return it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.seen.append(line)
            if all(word in line for word in words):
                return line
        raise AssertionError(f"the worker ended before {words}: {self.seen}")

    def end(self) -> tuple[int, str]:
        """Read to the end, and return the exit code and the rest of what was said."""
        _, rest = self.process.communicate(timeout=300)
        return self.process.returncode, rest


@pytest.fixture
def start(
    run: Run, generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Worker]]:
    """A function that starts a worker, after the study was created if it is new."""
    started: list[Worker] = []

    def call(url: str, *more: str, command: tuple[str, ...] = WORKER, n_trials: int = 1, epochs: int = 30) -> Worker:
        definition = tmp_path / "tiny.toml"
        if not definition.exists():
            definition.write_text(DEFINITION.format(n_trials=n_trials, epochs=epochs))
            code, _, err = run("create-study", "tiny.toml", "--data", str(generated), "--storage", url)
            assert code == 0, err
        monkeypatch.setenv("MHIST_TUNE_STORAGE", url)
        monkeypatch.setenv("MHIST_TUNE_DATA", str(generated))
        started.append(Worker((*command, *more), tmp_path))
        return started[-1]

    yield call
    for worker in started:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.communicate()


def recorded_epochs(url: str) -> list[list[int]]:
    """Return the recorded epochs of each slot, all of which must be done."""
    with open_storage(url) as storage:
        study = studies.load_study(storage, "tiny")
        slots = ledger.slots(storage, study, "search")
        assert {slot.state for slot in slots} == {"done"}
        return [[row.epoch for row in epochs_of(storage, study, "search", slot.slot)] for slot in slots]


def pid_of(line: str) -> int:
    """Return the process that a worker's first event names: worker=HOST-PID-NONCE."""
    [name] = [word for word in line.split() if word.startswith("worker=")]
    return int(name.split("-")[-2])


def test_a_crashed_process_is_started_again(start: Callable[..., Worker], storage_url_sqlite: str) -> None:
    """One of two device processes is killed: another one replaces it, and the budget is met."""
    worker = start(storage_url_sqlite, "--per-device", "2", n_trials=4, epochs=5)
    victim = pid_of(worker.wait_for("event=worker"))
    worker.wait_for("event=epoch")
    os.kill(victim, signal.SIGKILL)
    worker.wait_for("event=crashed", "SIGKILL")
    worker.wait_for("event=worker")
    code, _ = worker.end()

    assert code == 0
    assert recorded_epochs(storage_url_sqlite) == [[1, 2, 3, 4, 5]] * 4


def test_repeated_crashes_end_with_one_line(start: Callable[..., Worker], storage_url_sqlite: str) -> None:
    """After three crashes on a device the worker ends with exit code 1."""
    worker = start(storage_url_sqlite, "--per-device", "2", n_trials=1, epochs=100_000)
    pids = [pid_of(worker.wait_for("event=worker")) for _ in range(2)]
    worker.wait_for("event=epoch")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for _ in range(4):
        os.kill(pid_of(worker.wait_for("event=worker")), signal.SIGKILL)
    code, rest = worker.end()

    assert code == 1
    assert "error: the worker on cpu crashed 3 times" in rest
    assert "Traceback" not in rest


@pytest.mark.parametrize("per_device", ["1", "2"])
def test_an_error_that_nobody_foresaw_is_one_line(
    start: Callable[..., Worker],
    storage_url_sqlite: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    per_device: str,
) -> None:
    """In the command's own process and in a device process: exit code 1, and a file with the traceback."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    worker = start(storage_url_sqlite, "--per-device", per_device, command=(sys.executable, str(BROKEN), *WORKER[3:]))
    code, said = worker.end()

    assert code == 1
    assert "error: unexpected KeyError: 'postgresql://***@h/d'" in said
    assert "Traceback" not in said
    [hint] = [line for line in said.splitlines() if line.startswith("  hint: ")]
    traceback = Path(hint.rpartition(" is in ")[2]).read_text()
    assert "Traceback" in traceback and "broken_worker.py" in traceback
    assert "SECRET" not in said + traceback
    assert said.count("event=crashed") == (0 if per_device == "1" else 4)


@pytest.mark.parametrize(
    "error",
    [
        DefinitionError("x.toml", ["a", "b"]),
        DeviceError("lost", hint="restart"),
        NothingRetrainedError("nothing", hint="retrain"),
    ],
)
def test_an_error_reaches_the_parent_whole(error: MhistTuneError) -> None:
    """Device processes send their errors through a pipe: class, message and hint stay."""
    received = pickle.loads(pickle.dumps(error))

    assert (type(received), str(received), received.hint) == (type(error), str(error), error.hint)


def test_training_goes_on_while_the_database_restarts(start: Callable[..., Worker], postgres: PostgresServer) -> None:
    """PostgreSQL stops during a trial: the next epochs wait, and each is recorded once, in order."""
    url = postgres.new_database()
    worker = start(url, "--per-device", "1", epochs=60)
    worker.wait_for("event=epoch")
    postgres.crash()
    try:
        worker.wait_for("event=waiting")
    finally:
        postgres.start()
    code, _ = worker.end()

    assert code == 0
    assert recorded_epochs(url) == [list(range(1, 61))]


def test_a_database_that_stays_away_ends_the_worker(start: Callable[..., Worker], postgres: PostgresServer) -> None:
    """After the time for retries (here three seconds) the worker exits 4 with one line, and another one resumes."""
    url = postgres.new_database()
    worker = start(url, "--per-device", "1", "--max-outage", "0.05", epochs=60)
    worker.wait_for("event=epoch", " epoch=3")
    postgres.crash()
    try:
        code, rest = worker.end()
    finally:
        postgres.start()

    assert code == 4
    assert "error: cannot use the storage" in rest
    assert "keeps its checkpoint" in rest
    assert "Traceback" not in rest
    second = start(url, "--per-device", "1")
    assert " epoch=1 " not in second.wait_for("event=epoch")
    assert second.end()[0] == 0
    assert recorded_epochs(url) == [list(range(1, 61))]


def test_a_signal_is_heard_while_the_database_is_away(start: Callable[..., Worker], postgres: PostgresServer) -> None:
    """SIGTERM during an outage ends the worker with 143 within seconds, not after ten minutes."""
    url = postgres.new_database()
    worker = start(url, "--per-device", "1", epochs=100_000)
    worker.wait_for("event=epoch")
    postgres.crash()
    try:
        worker.wait_for("event=waiting")
        worker.process.terminate()
        code, _ = worker.end()
    finally:
        postgres.start()

    assert code == 143


def test_a_paused_worker_drops_its_trial_quietly(start: Callable[..., Worker], storage_url_sqlite: str) -> None:
    """A worker that slept longer than its lease finds its trial taken, says so once and exits with 0."""
    first = start(storage_url_sqlite, "--per-device", "1", epochs=60)
    first.wait_for("event=epoch")
    first.process.send_signal(signal.SIGSTOP)
    second = start(storage_url_sqlite, "--per-device", "1")
    second.wait_for("event=epoch")
    first.process.send_signal(signal.SIGCONT)
    first.wait_for("event=lost")
    assert second.end()[0] == 0
    code, rest = first.end()

    assert code == 0
    assert "event=epoch" not in rest
    assert recorded_epochs(storage_url_sqlite) == [list(range(1, 61))]


def test_a_signal_to_every_process_frees_the_slots(start: Callable[..., Worker], storage_url_sqlite: str) -> None:
    """As Slurm ends a job step: every process gets SIGTERM twice, the children once more from their parent."""
    for _ in range(3):
        worker = start(storage_url_sqlite, "--per-device", "2", n_trials=2, epochs=100_000)
        for _ in range(2):
            worker.wait_for("event=trial")
        worker.wait_for("event=epoch")
        processes = tree(worker.process.pid)
        assert len(processes) >= 4  # the command, the server that forks, two workers
        for _ in range(2):
            for pid in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        code, rest = worker.end()

        assert code == 143, rest
        with open_storage(storage_url_sqlite) as storage:
            slots = ledger.slots(storage, studies.load_study(storage, "tiny"), "search")
        assert [slot.state for slot in slots] == ["free", "free"], rest


def tree(root: int) -> list[int]:
    """Return a process and its descendants."""
    out = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = dict(map(int, line.split()) for line in out.splitlines())
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


@pytest.mark.parametrize(
    ("at_once", "signals", "code"),
    [("SIGINT", "SIGTERM", 0), ("SIGINT", "SIGHUP", 0), ("SIGINT", "SIGINT", 130), (None, "SIGINT", 0)],
)
def test_only_a_second_ctrl_c_stops_at_once(at_once: str | None, signals: str, code: int) -> None:
    """Other signals may come as often as they like, and a device process ignores every later one."""
    program = "import signal; from mhist_tune.worker.supervisor import stop_on_signals\n"
    program += f"with stop_on_signals(at_once={'signal.' + at_once if at_once else None}) as stop:\n"
    program += f"    for _ in range(3): signal.raise_signal(signal.{signals})\n    assert stop.signum"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == code


def test_a_closed_terminal_frees_the_slot(start: Callable[..., Worker], storage_url_sqlite: str) -> None:
    """SIGHUP, with nobody left who reads stderr, ends the worker with 129 and frees its slot as SIGTERM does."""
    worker = start(storage_url_sqlite, "--per-device", "1", epochs=100_000)
    worker.wait_for("event=epoch")
    assert worker.process.stderr is not None
    worker.process.stderr.close()
    worker.process.send_signal(signal.SIGHUP)
    code = worker.process.wait(timeout=300)

    with open_storage(storage_url_sqlite) as storage:
        [slot] = ledger.slots(storage, studies.load_study(storage, "tiny"), "search")
    assert (code, slot.state) == (129, "free")


def test_nohup_is_respected(start: Callable[..., Worker], storage_url_sqlite: str) -> None:
    """A worker that was started with SIGHUP ignored works on after one."""
    command = (*WORKER, "--per-device", "1")
    code = f"import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv({command[0]!r}, {command!r})"
    worker = start(storage_url_sqlite, command=(sys.executable, "-c", code), epochs=20)
    worker.wait_for("event=epoch")
    worker.process.send_signal(signal.SIGHUP)

    assert worker.end()[0] == 0
    assert recorded_epochs(storage_url_sqlite) == [list(range(1, 21))]
