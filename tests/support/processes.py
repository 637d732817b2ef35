"""Starts `ledger_process.py` several times and hands its lines on as they come."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TIMEOUT_S = 120.0


class Fleet:
    """A number of processes; their lines arrive in one queue, each with the process that said it."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        self._lines: queue.Queue[tuple[subprocess.Popen[str], dict[str, Any] | None]] = queue.Queue()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for thread in self._threads:
            thread.join()
        for process in self.processes:
            for stream in (process.stdin, process.stdout, process.stderr):
                assert stream is not None
                stream.close()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start one more process."""
        script = Path(__file__).with_name("ledger_process.py")
        process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(script.parents[2]), "OMP_NUM_THREADS": "1"},
        )
        self.processes.append(process)
        self._threads.append(threading.Thread(target=self._read, args=(process,)))
        self._threads[-1].start()
        return process

    def go(self, processes: list[subprocess.Popen[str]] | None = None) -> None:
        """Let the processes begin together, once each of them is ready."""
        chosen = self.processes if processes is None else processes
        waiting = list(chosen)
        while waiting:
            process, line = self._lines.get(timeout=TIMEOUT_S)
            assert line == {"event": "ready"}, self._complaint(process)
            waiting.remove(process)
        for process in chosen:
            self.begin(process)

    @staticmethod
    def begin(process: subprocess.Popen[str]) -> None:
        """Let one process begin, as soon as it is ready."""
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    def lines(self) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
        """Yield what the processes say until all of them, also those started meanwhile, have ended."""
        n_ended = 0
        while n_ended < len(self.processes):
            process, line = self._lines.get(timeout=TIMEOUT_S)
            if line is None:
                n_ended += 1
            else:
                yield process, line

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.put((process, json.loads(line)))
        process.wait()
        self._lines.put((process, None))

    def _complaint(self, process: subprocess.Popen[str]) -> str:
        assert process.stderr is not None
        return process.stderr.read()
