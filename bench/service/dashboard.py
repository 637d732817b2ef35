"""Measure the cost of watching: requests of one client, and many clients that poll a study's live page while a worker
trains.

The studies have made-up finished trials of 30 epochs. The worker trains a tiny network on generated images on one
core. By turns nobody watches, and the clients ask for the page every two seconds, as its script does. Any answer that
is not the page ends the run. It takes eight minutes and needs a quiet machine of two cores. Rows:

- overview and study page: the slowest of some requests by one client, in seconds, the first one and then with pages
  made anew; the goals are 0.2 s for 1,000 trials and 1 s for 10,000;
- `p99`: the 99th percentile of a page's seconds; the goal is one second;
- `epoch time`: the worker's median seconds an epoch with clients over those without; the goal is 1.02.
"""

import argparse
import http.client
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from mhist_tune.actions import create
from mhist_tune.data.synthesize import synthesize
from mhist_tune.definition import study_file
from mhist_tune.storage import studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.studies import Study
from tests.support import made_up

ROOT = Path(__file__).parents[2]
N_IMAGES = 600  # for epochs of half a second or more: nobody watches a trial of thousands of epochs
N_ASKED = 10
SIZES = ((1000, 0.2), (10_000, 1.0))
"""Trials of a study that one client looks at, and the goal in seconds."""
POLL_S = 2.0
_START_S = 600.0
DEFINITION = """
[study]
name = "watched"
n_trials = {n_trials}
pruner = {{ name = "none" }}

[fixed]
model = "test_vit"
weights = "random"
image_size = 64
epochs = 10000
patience = 10000

[space]
learning_rate = {{ low = 1e-5, high = 1e-2, log = true }}
drop_rate = {{ low = 0.1, high = 0.5 }}
"""


def watch(port: int, until: float, seconds: list[float], wrong: list[str]) -> None:
    """Ask for the page every two seconds over one connection, and append the seconds of each answer."""
    time.sleep(random.uniform(0, POLL_S))
    connection, tag = http.client.HTTPConnection("127.0.0.1", port, timeout=60), ""
    while time.monotonic() < until:
        started = time.perf_counter()
        try:
            connection.request("GET", "/study/watched", headers={"If-None-Match": tag})
            answer = connection.getresponse()
            answer.read()
        except OSError as error:
            wrong.append(repr(error))
            return
        seconds.append(time.perf_counter() - started)
        if answer.status not in (200, 304):
            wrong.append(f"status {answer.status}")
        tag = answer.headers.get("ETag", "")
        time.sleep(max(0.0, POLL_S - seconds[-1]))
    connection.close()


def epoch_s(storage: Storage, study: Study, slot: int, since: float) -> list[float]:
    """Return the seconds of each epoch of a slot recorded after `since`, by the database's clock."""
    rows = epochs_of(storage, study, "search", slot)
    return [row.metrics["elapsed_s"] or 0.0 for row in rows if row.recorded_at > since]


class Server:
    """A storage with a study of made-up trials and one free slot, and the dashboard that serves it.

    Args:
        folder: an empty folder.
        n_trials: finished trials.
    """

    def __init__(self, folder: Path, n_trials: int) -> None:
        synthesize(folder / "images", n_images=N_IMAGES, image_size=64, seed=0)
        self.folder, self.url = folder, f"sqlite:///{folder}/storage.db"
        with open_storage(self.url) as storage:
            text = DEFINITION.format(n_trials=n_trials + 1)
            study = create.create(storage, study_file.parse(text, "watched"), folder / "images")
            made_up.search(storage, study, n_trials=n_trials)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Server":
        """Start the dashboard."""
        self.start("dashboard", "--port", str(self.port))
        wait_until(lambda: is_alive(self.port))
        return self

    def start(self, *command: str) -> None:
        """Start a command of the program on one core."""
        environment = {**os.environ, "MHIST_TUNE_STORAGE": self.url, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        environment["MHIST_TUNE_DATA"] = str(self.folder / "images")
        program = [sys.executable, "-m", "mhist_tune", *command]
        log = subprocess.DEVNULL
        self._processes.append(subprocess.Popen(program, env=environment, cwd=self.folder, stdout=log, stderr=log))

    def __exit__(self, *_: object) -> None:
        """Stop the started processes."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()


def measure_pages(folder: Path, n_trials: int, goal: float) -> list[dict[str, Any]]:
    """Let one client ask for overview and study page, each time after the page has to be made anew."""
    results = []
    with Server(folder, n_trials) as server:
        for path in ("/", "/study/watched"):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            seconds = []
            for _ in range(N_ASKED):
                started = time.perf_counter()
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                seconds.append(time.perf_counter() - started)
                if answer.status != 200:
                    raise SystemExit(f"error: {path} answered {answer.status}")
                time.sleep(1.1)  # the server keeps a page for a second
            connection.close()
            row = {"model": f"{path} of {n_trials} trials", "ratio": max(seconds), "goal": goal}
            results.append(
                {**row, "first_s": seconds[0], "median_s": statistics.median(seconds), "n_requests": N_ASKED}
            )
    return results


def measure_load(folder: Path, n_clients: int, n_trials: int, seconds: float, n_rounds: int) -> list[dict[str, Any]]:
    """Let a worker train for `seconds`, by turns without and with clients, so that other load affects both."""
    alone: list[float] = []
    watched: list[float] = []
    taken: list[float] = []
    wrong: list[str] = []
    with Server(folder, n_trials) as server, open_storage(server.url) as storage:
        study = studies.load_study(storage, "watched")
        server.start("worker", "watched", "--devices", "cpu", "--per-device", "1")
        wait_until(lambda: len(epoch_s(storage, study, n_trials, 0.0)) > 1)
        for _ in range(n_rounds):
            begin = storage.now()
            time.sleep(seconds)
            alone += epoch_s(storage, study, n_trials, begin)[1:]  # the first one began before
            begin, until = storage.now(), time.monotonic() + seconds
            threads = [
                threading.Thread(target=watch, args=(server.port, until, taken, wrong)) for _ in range(n_clients)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            watched += epoch_s(storage, study, n_trials, begin)[1:]
    if wrong or not taken or not alone or not watched:
        raise SystemExit(f"error: {len(wrong)} requests failed, {len(alone)} and {len(watched)} epochs: {wrong[:3]}")
    p99 = sorted(taken)[min(len(taken) - 1, int(0.99 * len(taken)))]
    common = {"n_clients": n_clients, "n_trials": n_trials, "n_requests": len(taken)}
    medians = [statistics.median(one) for one in (alone, watched)]
    epochs = {"median_epoch_s": medians, "n_epochs": [len(alone), len(watched)]}
    return [
        {"model": "p99", "ratio": p99, "goal": 1.0, "median_s": statistics.median(taken), **common},
        {"model": "epoch time", "ratio": medians[1] / medians[0], "goal": 1.02, **epochs, **common},
    ]


def wait_until(is_so: Any) -> None:
    """Ask until the answer is true, for at most ten minutes."""
    deadline = time.monotonic() + _START_S
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit("error: the dashboard or the worker did not start")
        time.sleep(0.2)


def is_alive(port: int) -> bool:
    """Return whether the dashboard answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5):
            return True
    except OSError:
        return False


def main() -> None:
    """Measure, and print a table or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-clients", type=int, default=50)
    parser.add_argument("--n-trials", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds of each turn")
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds of a turn without clients and one with (default: 3)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    machine = {"cpu": platform.processor() or platform.machine(), "n_cores": os.cpu_count(), "load": os.getloadavg()}
    results = []
    for n_trials, goal in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            results += measure_pages(Path(folder), n_trials, goal)
    with tempfile.TemporaryDirectory() as folder:
        results += measure_load(Path(folder), options.n_clients, options.n_trials, options.seconds, options.rounds)
    if options.json:
        sys.stdout.write(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
        return
    for row in results:
        sys.stdout.write(f"{row['model']:32} {row['ratio']:.3f}  goal {row['goal']}  of {row['n_requests']} requests\n")


if __name__ == "__main__":
    main()
