"""Runs real `mhist-tune worker` processes as a supervisor does: a worker that was stopped is started again."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 300.0  # without a word from any worker
_TICK_S = 0.1
_PAIR = re.compile(r'(\w+)=("[^"]*"|\S+)')

Event = dict[str, str]


class Worker:
    """One process; it uses one core, so that its sums do not depend on how many the machine has.

    Attributes:
        lines: its lines of output.
        signals: the signals that were sent to end it.
        resumes_at: the end of its pause in monotonic seconds; None if it is not paused.
        slot: the study and the slot that it trains, or trained last.
        may_find_no_database: whether it was starting when the database became unreachable.
    """

    def __init__(
        self, index: int, environment: dict[str, str], folder: Path, command: tuple[str, ...], root: Path
    ) -> None:
        self.index = index
        self.lines: list[str] = []
        self.signals: set[int] = set()
        self.resumes_at: float | None = None
        self.slot: tuple[str, str] | None = None
        self.may_find_no_database = False
        cores = sorted(os.sched_getaffinity(0))
        self.process = subprocess.Popen(
            [sys.executable, *command, "worker", "--devices", "cpu", "--per-device", "1"],
            env={**os.environ, **environment, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.sched_setaffinity(self.process.pid, {cores[index % len(cores)]})

    @property
    def is_ready(self) -> bool:
        return any(line.startswith("event=worker") for line in self.lines)

    @property
    def is_disturbed(self) -> bool:
        return self.resumes_at is not None or bool(self.signals)

    def send(self, signum: int) -> None:
        """Send a signal that ends it."""
        self.signals.add(signum)
        self.process.send_signal(signum)

    def pause(self, seconds: float) -> None:
        """Stop it in its tracks, for `seconds` or until `resume`."""
        self.process.send_signal(signal.SIGSTOP)
        self.resumes_at = time.monotonic() + seconds

    def resume(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)
        self.resumes_at = None


class Supervisor:
    """Keeps `n_workers` workers of the program `command` going until they leave by themselves.

    The workers take turns with the versions of the package in `roots`.

    Attributes:
        workers: those that have not left.
        past: those that were ever started.
        epochs: how often each (study, slot, epoch) was said to be recorded.
        overtaken: workers whose slot somebody else took while they were paused.
        unexpected: how workers ended that nobody had told to, other than by leaving, with their last words.
        n_restarts: how often a worker was started again.
    """

    def __init__(
        self,
        n_workers: int,
        environment: dict[str, str],
        folder: Path,
        command: tuple[str, ...] = ("-m", "mhist_tune"),
        roots: Sequence[Path] = (ROOT,),
    ) -> None:
        self.epochs: Counter[tuple[str, int, int]] = Counter()
        self.overtaken: list[Worker] = []
        self.unexpected: list[str] = []
        self.n_restarts = 0
        self.past: list[Worker] = []
        self._environment, self._folder, self._command, self._roots = environment, folder, command, roots
        self._events: queue.Queue[tuple[Worker, str | None]] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self.workers = [self._start(index) for index in range(n_workers)]

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.process.kill()
            worker.process.wait()
        for thread in self._threads:
            thread.join()

    def run_until(self, is_reached: Callable[[Worker, Event], bool]) -> Worker | None:
        """Hand on what the workers say until an event for which `is_reached`; return who said it.

        None if all workers have left before.
        """
        silent_since = time.monotonic()
        while self.workers:
            self._resume_the_paused()
            try:
                worker, line = self._events.get(timeout=_TICK_S)
            except queue.Empty:
                assert time.monotonic() - silent_since < _TIMEOUT_S, self._last_words()
                continue
            silent_since = time.monotonic()
            if line is None:
                self._ended(worker)
                continue
            worker.lines.append(line)
            event = {name: value.strip('"') for name, value in _PAIR.findall(line)}
            self._note(worker, event)
            if is_reached(worker, event):
                return worker
        return None

    def _start(self, index: int) -> Worker:
        root = self._roots[index % len(self._roots)]
        worker = Worker(index, self._environment, self._folder, self._command, root)
        self.past.append(worker)
        self._threads.append(threading.Thread(target=self._read, args=(worker,)))
        self._threads[-1].start()
        return worker

    def _read(self, worker: Worker) -> None:
        with worker.process.stderr as lines:  # type: ignore[union-attr]
            for line in lines:
                self._events.put((worker, line.rstrip("\n")))
        worker.process.wait()
        self._events.put((worker, None))

    def _note(self, worker: Worker, event: Event) -> None:
        match event.get("event"):
            case "trial":
                worker.slot = (event["study"], event["slot"])
                for other in self.workers:
                    if other is not worker and other.resumes_at is not None and other.slot == worker.slot:
                        other.resume()
                        self.overtaken.append(other)
            case "epoch":
                self.epochs[event["study"], int(event["slot"]), int(event["epoch"])] += 1

    def _resume_the_paused(self) -> None:
        now = time.monotonic()
        for worker in self.workers:
            if worker.resumes_at is not None and worker.resumes_at <= now:
                worker.resume()

    def _ended(self, worker: Worker) -> None:
        code = worker.process.returncode
        self.workers.remove(worker)
        if code == 0:
            return
        expected = {128 + signum for signum in worker.signals} | ({4} if worker.may_find_no_database else set())
        if (code if code > 0 else 128 - code) not in expected:  # as a shell counts
            self.unexpected.append(f"exit code {code}: {worker.lines[-3:]}")
        self.n_restarts += 1
        self.workers.append(self._start(worker.index))

    def _last_words(self) -> str:
        return "\n".join(f"{worker.index}: {worker.lines[-1:]}" for worker in self.workers)
