"""Measure waiting times: of `mhist-tune --help`, of `status` on a study of many trials, of a worker's first step.

The study has made-up finished trials of 30 epochs. The first step is ResNet-18's at 224 px, batch 32, by newly started
workers on all cores. The images are decoded before, as for every worker but the first. Each row is the median over
fresh processes, from their start. `ratio` is that over the limit and should be at most 1. Python keeps its bytecode,
as in an installed package.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.output import machine, show
from mhist_tune.actions import create
from mhist_tune.data.synthesize import synthesize
from mhist_tune.definition import study_file
from mhist_tune.storage.database import open_storage
from tests.support import made_up

ROOT = Path(__file__).parents[2]
LIMITS_S = {"help": 0.1, "status": 0.4, "first-step": 10.0}
DEFINITION = """
[study]
name = "{name}"
n_trials = {n_trials}
pruner = {{ name = "none" }}

[fixed]
model = "resnet18"
weights = "random"
image_size = 224
precision = "fp32"
memory_format = "contiguous"

[space]
learning_rate = {{ low = 1e-5, high = 1e-2, log = true }}
drop_rate = {{ low = 0.1, high = 0.5 }}
"""
# The work of `mhist-tune worker` up to the first step.
WORKER = """
import contextlib, signal, sys
from pathlib import Path
from mhist_tune.worker.devices import parse_devices
from mhist_tune.worker.options import WorkerOptions
from mhist_tune.events import Interrupted
from mhist_tune.worker.supervisor import run_workers, stop_on_signals

def emit(event, /, **fields):
    if event == "step" and not stop.signum:
        print(event, flush=True)
        stop.set(signal.SIGTERM)

if __name__ == "__main__":
    with contextlib.suppress(Interrupted), stop_on_signals() as stop:
        run_workers(WorkerOptions(sys.argv[1], Path(sys.argv[2]), "worked"), parse_devices("cpu", None), emit, stop)
"""


def seconds(command: list[str], folder: Path) -> float:
    """Return the seconds from a process's start to the first line that it prints, and wait for its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        taken = time.perf_counter() - started
        process.stdout.read()
    if not line:
        raise SystemExit(f"error: {' '.join(command[-3:])} ended with {process.returncode} and printed nothing")
    return taken


def measure(folder: Path, waits: Sequence[str], *, n_trials: int, n_rounds: int) -> list[dict[str, Any]]:
    """Make the studies in `folder`, and measure each wait `n_rounds` times, in turns."""
    synthesize(folder / "images", n_images=96, image_size=224, seed=0)
    url = f"sqlite:///{folder}/storage.db"
    with open_storage(url) as storage:
        for name, n in (("watched", n_trials), ("worked", 100)):
            text = DEFINITION.format(name=name, n_trials=n)
            study = create.create(storage, study_file.parse(text, name), folder / "images")
            if name == "watched":
                made_up.search(storage, study, n_trials=n_trials)
    (folder / "worker.py").write_text(WORKER)
    program = [sys.executable, "-m", "mhist_tune"]
    commands = {
        "help": [*program, "--help"],
        "status": [*program, "status", "watched", "--storage", url],
        "first-step": [sys.executable, "worker.py", url, str(folder / "images")],
    }
    taken: dict[str, list[float]] = {wait: [] for wait in waits}
    for turn in range(n_rounds + 1):
        for wait in waits:
            one_s = seconds(commands[wait], folder)
            if turn:  # the first turn fills the disk's cache and decodes the images
                taken[wait].append(one_s)
    rows = []
    for wait, found in taken.items():
        median_s, limit_s = statistics.median(found), LIMITS_S[wait]
        row = {"model": wait, "seconds": median_s, "fastest_s": min(found), "limit_s": limit_s}
        rows.append(row | {"ratio": median_s / limit_s, "goal": 1.0, "n_rounds": n_rounds, "n_trials": n_trials})
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wait", choices=LIMITS_S, action="append", help="only this one; may be given again")
    parser.add_argument("--n-trials", type=int, default=1000, help="finished trials of the study (default: 1000)")
    parser.add_argument("--n-rounds", type=int, default=5, help="processes of each kind that count (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    here = machine()
    with tempfile.TemporaryDirectory() as folder:
        waits = arguments.wait or list(LIMITS_S)
        rows = measure(Path(folder), waits, n_trials=arguments.n_trials, n_rounds=arguments.n_rounds)
    show(here, rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
