"""Measure the cost of an epoch in the ledger, on SQLite and PostgreSQL, and in stock Optuna on the same database.

Each worker is a process that finishes an epoch every two seconds and then does what a real worker does. It judges the
trial by the median rule. In one transaction it records the epoch with its predictions and the decision, renews the
lease and writes its heartbeat. Then it mirrors the epoch to Optuna. `ratio` is the time of all that over an epoch of
five seconds (names ending in p50 and p99), or over the same with no finished trials (names ending in growth). Stock
Optuna reports the same value to the same database and asks its median pruner. Each of its processes holds all trials,
so it is left out where they would not fit into memory.

Finished trials have 30 epochs each, in our tables and in Optuna's. The PostgreSQL server is that of the tests, with
fsync. `--postgresql URL` uses another one: an empty database with enough connections (two a worker, four at its
start).
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import optuna
import sqlalchemy
from optuna.trial import TrialState, create_trial

from bench.output import machine, show
from mhist_tune.definition import study_file
from mhist_tune.search import pruning
from mhist_tune.search.values import ValueBook
from mhist_tune.storage import ledger, studies, tables
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.epochs import record_epoch
from mhist_tune.storage.heartbeats import heartbeat
from mhist_tune.storage.leases import LeaseObserver
from mhist_tune.storage.payloads import SearchPayload
from mhist_tune.storage.stages import SlotState
from mhist_tune.storage.studies import Study
from mhist_tune.worker import devices
from tests.support.postgres import PostgresServer

EPOCH_S = 2.0
SHARE_OF_S = 5.0
N_EPOCHS = 30
N_VAL = 435  # a fifth of MHIST's train partition
GOAL_P50, GOAL_P99, GOAL_GROWTH = 0.01, 0.05, 1.5
STOCK = "stock"
STOCK_BYTES = 40_000  # of a finished trial in a process: 64 of them with 10,000 trials each filled 24 GB
DEFINITION = """
[study]
name = "ledger"
n_trials = 1
sampler = {{ name = "random", seed = 0 }}
pruner = {{ name = "median", n_startup_trials = 5, n_warmup_epochs = 0 }}

[fixed]
epochs = {n_epochs}

[space]
learning_rate = {{ low = 1e-5, high = 1e-1, log = true }}
"""


@dataclass(frozen=True)
class Setting:
    """One measurement. `n_waiting` further trials wait at a rung. Later settings never have fewer trials."""

    n_workers: int
    n_finished: int
    n_waiting: int = 0


@dataclass(frozen=True)
class Result:
    """One row. `model` names the measurement. Times are milliseconds an epoch, over all workers."""

    model: str
    database: str
    n_workers: int
    n_finished: int
    n_waiting: int
    ledger_ms: float | None
    stock_ms: float | None
    ratio: float | None
    stock_ratio: float | None
    goal: float


FULL = [Setting(n_workers, n_finished) for n_finished in (0, 1000, 10_000) for n_workers in (1, 16, 64)]
FULL.append(Setting(64, 10_000, n_waiting=256))
QUICK = [Setting(n_workers, n_finished) for n_finished in (0, 200) for n_workers in (1, 4)]


def fill(storage: Storage, study: Study, n_trials: int, state: str) -> None:
    """Add trials to our study and to the stock one: finished ones of 30 epochs, or waiting ones of 15."""
    if n_trials <= 0:
        return
    rng = np.random.default_rng(n_trials)
    n_epochs = N_EPOCHS if state == "done" else N_EPOCHS // 2
    best = np.maximum.accumulate(rng.uniform(0.4, 0.8, (n_trials, n_epochs)), axis=1).tolist()

    def work(connection: sqlalchemy.Connection) -> None:
        numbers = studies.insert_slots(connection, study.uuid, "search", [SearchPayload()] * n_trials)
        of_these = sqlalchemy.and_(tables.slots.c.study == study.uuid, tables.slots.c.slot >= numbers[0])
        connection.execute(sqlalchemy.update(tables.slots).where(of_these).values(state=state))
        rows = [
            {
                "study": study.uuid,
                "stage": "search",
                "slot": slot,
                "epoch": epoch,
                "token": 1,
                "score": value,
                "value": value,
                "metrics": {"val_f1": value},
                "recorded_at": 0.0,
            }
            for slot, values in zip(numbers, best, strict=True)
            for epoch, value in enumerate(values, 1)
        ]
        connection.execute(sqlalchemy.insert(tables.epochs), rows)

    storage.transaction(work)
    stock_id = storage.optuna.get_study_id_from_name(STOCK)
    insert_stock(storage, stock_id, best, is_finished=state == "done")


def insert_stock(storage: Storage, study_id: int, best: Sequence[Sequence[float]], *, is_finished: bool) -> None:
    """Add trials to Optuna's own tables, many rows at a time."""
    metadata = sqlalchemy.MetaData()
    names = ("trials", "trial_values", "trial_intermediate_values")
    metadata.reflect(storage.engine, only=names)
    trials, values, intermediate = (metadata.tables[name] for name in names)
    with storage.engine.begin() as connection:
        count = sqlalchemy.select(sqlalchemy.func.count()).where(trials.c.study_id == study_id)
        first = connection.execute(count).scalar_one()
        state = "COMPLETE" if is_finished else "RUNNING"
        rows = [{"number": first + index, "study_id": study_id, "state": state} for index in range(len(best))]
        connection.execute(sqlalchemy.insert(trials), rows)
        query = sqlalchemy.select(trials.c.trial_id).where(trials.c.study_id == study_id, trials.c.number >= first)
        ids = list(connection.execute(query.order_by(trials.c.number)).scalars())
        reported = [
            {"trial_id": one, "step": step, "intermediate_value": value, "intermediate_value_type": "FINITE"}
            for one, series in zip(ids, best, strict=True)
            for step, value in enumerate(series, 1)
        ]
        connection.execute(sqlalchemy.insert(intermediate), reported)
        if is_finished:
            final = [
                {"trial_id": one, "objective": 0, "value": series[-1], "value_type": "FINITE"}
                for one, series in zip(ids, best, strict=True)
            ]
            connection.execute(sqlalchemy.insert(values), final)


def work(url: str, index: int, connection: Connection) -> None:
    """Be one worker: receive (kind, number of epochs) and answer with the seconds of each epoch, until None comes."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with open_storage(url) as storage:
        study = studies.load_study(storage, "ledger")
        book = ValueBook(storage, study, "search")
        connection.send(None)
        while (order := connection.recv()) is not None:
            kind, n_epochs = order
            measure = ledger_epochs if kind == "ledger" else stock_epochs
            rng = random.Random(index)
            connection.send(list(measure(storage, study, book, n_epochs, rng)))


def ledger_epochs(
    storage: Storage, study: Study, book: ValueBook, n_epochs: int, rng: random.Random
) -> Iterator[float]:
    """Yield the seconds of each epoch of one trial, without the first one.

    A process reads the finished trials once, during its first trial. Here it reads them before the clock runs.
    """
    for epoch in range(1, n_epochs + 2):
        book.at(epoch)
    worker = f"w{os.getpid()}"
    claim = ledger.claim(storage, study, ["search"], worker=worker, observer=LeaseObserver())
    assert claim is not None
    study_id = studies.optuna_study_id(storage, study, "search")
    template = create_trial(state=TrialState.RUNNING, user_attrs={"slot": claim.slot, "token": claim.token})
    trial_id = storage.retrying(lambda: storage.optuna.create_new_trial(study_id, template_trial=template))
    ledger.attach_trial(storage, claim, trial_id, 0)
    probabilities = np.linspace(0, 1, N_VAL)
    for epoch, value in paced(n_epochs, rng):
        started = time.perf_counter()
        decision = pruning.decide(
            study.definition.pruner, slot=claim.slot, epoch=epoch, n_epochs=N_EPOCHS, value=value, values_at=book.at
        )
        record_epoch(
            storage,
            claim,
            epoch=epoch,
            score=value,
            value=value,
            metrics=dict.fromkeys(("train_loss", "val_loss", "val_f1", "val_auroc", "learning_rate"), value),
            decision=decision,
            predictions=probabilities if epoch % 3 == 1 else None,
            lease_s=study.definition.lease_s,
            alongside=heartbeat(storage, worker, study=study.uuid, device="cpu", state="training"),
        )
        storage.retrying(lambda e=epoch, v=value: storage.optuna.set_trial_intermediate_value(trial_id, e, v))
        if epoch > 1:
            yield time.perf_counter() - started
    ledger.finish(storage, claim)


def stock_epochs(storage: Storage, _: Study, __: ValueBook, n_epochs: int, rng: random.Random) -> Iterator[float]:
    """Yield the same for stock Optuna: report and should_prune."""
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=0)
    study = optuna.load_study(study_name=STOCK, storage=storage.optuna, pruner=pruner)
    trial = storage.retrying(study.ask)
    for epoch, value in paced(n_epochs, rng):
        started = time.perf_counter()
        storage.retrying(lambda e=epoch, v=value: trial.report(v, e))
        storage.retrying(trial.should_prune)
        if epoch > 1:
            yield time.perf_counter() - started
    storage.retrying(lambda: study.tell(trial, 0.5, skip_if_finished=True))


def paced(n_epochs: int, rng: random.Random) -> Iterator[tuple[int, float]]:
    """Yield an epoch and its value every two seconds, the workers out of step."""
    start = time.monotonic() + rng.uniform(0, EPOCH_S)
    for epoch in range(1, n_epochs + 2):
        time.sleep(max(0.0, start + epoch * EPOCH_S - time.monotonic()))
        yield epoch, rng.uniform(0.7, 0.9)


class Crew:
    """Worker processes on one database. They start once, since a start takes longer than the measurement."""

    def __init__(self, url: str, n_workers: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["optuna", "mhist_tune.storage.epochs", "mhist_tune.storage.ledger", "mhist_tune.search.pruning"]
        )
        self._members = []
        for index in range(n_workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(url, index, theirs), daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))
        for _, connection in self._members:
            connection.recv()

    def measure(self, kind: str, n_workers: int, n_epochs: int) -> list[float]:
        """Return the seconds of every epoch of `n_workers` workers, each with its own trial."""
        busy = [connection for _, connection in self._members[:n_workers]]
        for connection in busy:
            connection.send((kind, n_epochs))
        return [seconds for connection in busy for seconds in connection.recv()]

    def leave(self) -> None:
        """End all workers."""
        for process, connection in self._members:
            connection.send(None)
            process.join()


def measure(url: str, database: str, settings: Sequence[Setting], n_epochs: int) -> list[Result]:
    """Measure all settings on one database, ordered by its number of trials."""
    results: list[Result] = []
    at_first: dict[int, list[float | None]] = {}
    with open_storage(url) as storage:
        image_set = {"val": [[f"{index}.png", index % 2, 0, None] for index in range(N_VAL)]}
        parsed = study_file.parse(DEFINITION.format(n_epochs=N_EPOCHS), "bench")
        study = studies.create_study(storage, parsed, dataset={"fingerprint": "bench"}, image_sets=image_set)
        ledger.cancel_free(storage, study)
        optuna.create_study(study_name=STOCK, storage=storage.optuna, direction="maximize")
        n_all = max(setting.n_workers for setting in settings)
        crew = Crew(url, n_all)
        ledger.add_slots(storage, study, "search", [SearchPayload()] * n_all)
        crew.measure("ledger", n_all, 1)  # imports and connections of a new process are not the cost of an epoch
        n_finished = n_waiting = 0
        for setting in settings:
            fill(storage, study, setting.n_finished - n_finished, "done")
            fill(storage, study, setting.n_waiting - n_waiting, SlotState.WAITING)
            n_finished, n_waiting = setting.n_finished, setting.n_waiting
            ledger.add_slots(storage, study, "search", [SearchPayload()] * setting.n_workers)
            sys.stderr.write(f"measuring {database} with {setting}\n")
            ours = 1e3 * np.array(crew.measure("ledger", setting.n_workers, n_epochs))
            stock = None
            if setting.n_workers * setting.n_finished * STOCK_BYTES < devices.memory_bytes():
                stock = 1e3 * np.array(crew.measure("stock", setting.n_workers, n_epochs))
            both = [ours, stock]
            where = (database, setting.n_workers, setting.n_finished, n_waiting)
            for name, percent, goal in (("p50", 50, GOAL_P50), ("p99", 99, GOAL_P99)):
                times = [None if one is None else float(np.percentile(one, percent)) for one in both]
                shares = [None if one is None else one / 1e3 / SHARE_OF_S for one in times]
                results.append(Result(f"{database} {name}", *where, *times, *shares, goal))
            medians = [None if one is None else float(np.median(one)) for one in both]
            if setting.n_finished == 0:
                at_first[setting.n_workers] = medians
            else:
                firsts = zip(medians, at_first[setting.n_workers], strict=True)
                growth = [one / first if one and first else None for one, first in firsts]
                results.append(Result(f"{database} growth", *where, *medians, *growth, GOAL_GROWTH))
        crew.leave()
    return results


@contextlib.contextmanager
def databases(folder: Path, postgresql_url: str | None) -> Iterator[dict[str, str]]:
    """Yield the URL of an empty database of each kind."""
    sqlite_url = f"sqlite:///{folder}/storage/bench.db"
    if postgresql_url:
        yield {"sqlite": sqlite_url, "postgresql": postgresql_url}
        return
    server = PostgresServer(fsync="on", max_connections="300")
    try:
        yield {"sqlite": sqlite_url, "postgresql": server.new_database()}
    finally:
        server.remove()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few workers and trials, about a minute")
    parser.add_argument("--postgresql", metavar="URL", help="an empty database instead of the tests' server")
    parser.add_argument("--n-epochs", type=int, default=15, help="epochs of each worker in a measurement (default: 15)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    if arguments.n_epochs < 1 or arguments.n_epochs >= N_EPOCHS:
        parser.error(f"--n-epochs must be from 1 to {N_EPOCHS - 1}")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    versions = {"optuna": optuna.__version__, "sqlalchemy": sqlalchemy.__version__}
    before, results = {**machine(), **versions}, []
    n_epochs = min(2, arguments.n_epochs) if arguments.quick else arguments.n_epochs
    with (
        tempfile.TemporaryDirectory() as temporary,
        databases(Path(temporary), arguments.postgresql) as urls,
    ):
        for database, url in urls.items():
            results += measure(url, database, QUICK if arguments.quick else FULL, n_epochs)
    show(before, [asdict(result) for result in results], as_json=arguments.json)


if __name__ == "__main__":
    main()
