"""What watching costs: many clients poll the live page of a study while a worker trains on it.

The study has made-up finished trials of 30 epochs; the worker trains a tiny network on generated images on one core.
First nobody watches, then the clients ask for the page every two seconds, as its script does. Rows: `p99`, the 99th
percentile of a page's seconds over the goal of one second; `epoch time`, the worker's median seconds an epoch while
watched over those before, with the goal of 1.02 at most. Any answer that is not the page ends the run.
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

import sqlalchemy

from mhist_tune import creation, definition, records, studies, tables
from mhist_tune.storage import Storage, open_storage
from mhist_tune.studies import Study
from mhist_tune.synthesize import synthesize

ROOT = Path(__file__).parents[1]
N_EPOCHS = 30
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
epochs = 1000
patience = 1000

[space]
learning_rate = {{ low = 1e-5, high = 1e-2, log = true }}
drop_rate = {{ low = 0.1, high = 0.5 }}
"""


def make_up(storage: Storage, study: Study, n_trials: int) -> None:
    """Finish the first slots, as a search of that many trials leaves them."""
    rng, now = random.Random(0), time.time()
    epochs, ended = [], []
    for slot in range(n_trials):
        best, rate = 0.0, 10 ** rng.uniform(-5, -2)
        for epoch in range(1, N_EPOCHS + 1):
            value = 0.8 - 0.3 / epoch + rng.gauss(0, 0.01)
            best = max(best, value)
            metrics = {"train_loss": 1 / epoch, "val_loss": 0.5 + 1 / epoch, "val_f1": value, "val_auroc": value}
            metrics |= {"learning_rate": rate, "elapsed_s": 10.0, "images_per_s": 200.0}
            row = {"study": study.uuid, "stage": "search", "slot": slot, "epoch": epoch, "token": 1}
            epochs.append({**row, "value": value, "best_value": best, "metrics": metrics, "recorded_at": now})
        outcome = {"state": "COMPLETE", "value": best, "best_value": best, "best_epoch": 20, "stopped_epoch": N_EPOCHS}
        outcome["params"] = {"learning_rate": rate, "drop_rate": 0.2}
        ended.append({"place": slot, "number": slot, "result": outcome})
    slots = tables.slots
    update = sqlalchemy.update(slots).where(
        slots.c.study == study.uuid, slots.c.stage == "search", slots.c.slot == sqlalchemy.bindparam("place")
    )
    update = update.values(
        state="done",
        token=1,
        attempts=1,
        trial_number=sqlalchemy.bindparam("number"),
        outcome=sqlalchemy.bindparam("result", type_=tables.Json),
    )
    with storage.engine.begin() as connection:
        connection.execute(sqlalchemy.insert(tables.epochs), epochs)
        connection.execute(update, ended)


def watch(port: int, until: float, seconds: list[float], wrong: list[str]) -> None:
    """Ask for the page every two seconds over one connection, and note how long each answer took."""
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
    """Return the seconds of each epoch of a slot that was recorded after `since`, by the database's clock."""
    rows = records.epochs(storage, study, "search", slot)
    return [row.metrics["elapsed_s"] or 0.0 for row in rows if row.recorded_at > since]


def measure(folder: Path, n_clients: int, n_trials: int, seconds: float) -> list[dict[str, Any]]:
    """Run dashboard and worker, first alone and then watched, each for `seconds`."""
    synthesize(folder / "images", n_images=120, image_size=64, seed=0)
    url = f"sqlite:///{folder}/storage.db"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {**os.environ, "MHIST_TUNE_STORAGE": url, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment["MHIST_TUNE_DATA"] = str(folder / "images")
    program = [sys.executable, "-m", "mhist_tune"]
    with open_storage(url) as storage:
        text = DEFINITION.format(n_trials=n_trials + 1)
        study = creation.create(storage, definition.parse(text, "watched"), folder / "images")
        make_up(storage, study, n_trials)
        commands = [["dashboard", "--port", str(port)], ["worker", "watched", "--devices", "cpu", "--per-device", "1"]]
        processes = [
            subprocess.Popen([*program, *command], env=environment, cwd=folder, stderr=subprocess.DEVNULL)
            for command in commands
        ]
        try:
            wait_until(lambda: bool(epoch_s(storage, studies.load_study(storage, "watched"), n_trials, 0.0)))
            wait_until(lambda: is_alive(port))
            begin = storage.now()
            time.sleep(seconds)
            alone = epoch_s(storage, study, n_trials, begin)
            taken: list[float] = []
            wrong: list[str] = []
            begin, until = storage.now(), time.monotonic() + seconds
            threads = [threading.Thread(target=watch, args=(port, until, taken, wrong)) for _ in range(n_clients)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            watched = epoch_s(storage, study, n_trials, begin)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()
    if wrong or not taken or not alone or not watched:
        raise SystemExit(f"error: {len(wrong)} requests failed, {len(alone)} and {len(watched)} epochs: {wrong[:3]}")
    p99 = sorted(taken)[min(len(taken) - 1, int(0.99 * len(taken)))]
    common = {"n_clients": n_clients, "n_trials": n_trials, "n_requests": len(taken)}
    ratio = statistics.median(watched) / statistics.median(alone)
    return [
        {"model": "p99", "ratio": p99, "goal": 1.0, "median_s": statistics.median(taken), **common},
        {"model": "epoch time", "ratio": ratio, "goal": 1.02, "n_epochs": [len(alone), len(watched)], **common},
    ]


def wait_until(is_so: Any) -> None:
    """Ask until it is so, for ten minutes."""
    deadline = time.monotonic() + _START_S
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit("error: the dashboard or the worker did not start")
        time.sleep(0.2)


def is_alive(port: int) -> bool:
    """Tell whether the dashboard answers."""
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
    parser.add_argument("--seconds", type=float, default=60.0, help="of each half")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    machine = {"cpu": platform.processor() or platform.machine(), "n_cores": os.cpu_count(), "load": os.getloadavg()}
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), options.n_clients, options.n_trials, options.seconds)
    if options.json:
        sys.stdout.write(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
        return
    for row in results:
        sys.stdout.write(f"{row['model']:12} {row['ratio']:.3f}  goal {row['goal']}  of {row['n_requests']} requests\n")


if __name__ == "__main__":
    main()
