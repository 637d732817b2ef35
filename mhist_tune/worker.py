"""Worker processes: one per device, each claiming slots until none is left in any stage it serves."""

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mhist_tune import dataset, ledger, models, retrain, search, studies
from mhist_tune.errors import DataError, MhistTuneError, UsageError
from mhist_tune.execution import Emit, Interrupted, Session, SlotRun, StopRequest, run_slot
from mhist_tune.leases import LeaseObserver
from mhist_tune.storage import Storage, open_storage
from mhist_tune.studies import Study
from mhist_tune.train import resolve

WORK: Mapping[str, Callable[[SlotRun], Mapping[str, Any]]] = {search.STAGE: search.run, retrain.STAGE: retrain.run}
"""What is done in each stage, in the order in which slots are claimed."""

_POLL_S = 1.0
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 2**30
_N_CPU_WORKERS = 8  # each holds its own model and about a gigabyte of libraries
_FORWARD_S = 0.2


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker needs to know; picklable, since every device has a process of its own.

    Attributes:
        study: the study to serve; None for every study that has slots.
        stages: the stages to serve, see `WORK`.
        wait: stay for more when no slot is left.
    """

    storage_url: str
    data_root: Path
    study: str | None = None
    stages: tuple[str, ...] = tuple(WORK)
    wait: bool = False


def parse_devices(text: str, per_device: int | None) -> list[str]:
    """Return one torch device name per worker, for `all`, `cpu`, or indices such as `0,1`.

    Args:
        text: the devices.
        per_device: workers on each; None for one on a GPU and one per core on a CPU, where two one-thread workers
            finish more trials than one with two threads.

    Raises:
        UsageError: no such device on this machine.
    """
    n_cuda = torch.cuda.device_count()
    if text == "cpu" or (text == "all" and n_cuda == 0):
        return ["cpu"] * (per_device or min(_n_cores(), _N_CPU_WORKERS))
    indices = [str(index) for index in range(n_cuda)] if text == "all" else text.split(",")
    if not all(index.isdecimal() and int(index) < n_cuda for index in indices):
        raise UsageError(
            f"--devices {text}: this machine has {n_cuda} CUDA devices",
            hint="--devices all, --devices cpu or --devices 0,1",
        )
    return [f"cuda:{int(index)}" for index in indices for _ in range(per_device or 1)]


def _n_cores() -> int:
    return len(os.sched_getaffinity(0))


def run_workers(options: WorkerOptions, devices: Sequence[str], emit: Emit, stop: StopRequest) -> None:
    """Serve with one process per entry of `devices`; a single one runs in this process.

    Local CPU processes divide the cores among them. Each process has a log file below `logs/` in the storage folder.

    Raises:
        Interrupted: a signal asked to stop; every slot is free.
        MhistTuneError: what ended a worker process.
    """
    n_threads = max(1, _n_cores() // len(devices))
    if len(devices) == 1:
        serve(options, devices[0], n_threads, emit, stop)
        return
    context = multiprocessing.get_context("spawn")
    processes: dict[multiprocessing.connection.Connection, Any] = {}
    for device in devices:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(options, device, n_threads, theirs))
        process.start()
        theirs.close()
        processes[ours] = process
    errors = _forward(processes, emit, stop)
    if stop.signum:
        raise Interrupted(stop.signum)
    if errors:
        raise errors[0]


def _forward(
    processes: dict[multiprocessing.connection.Connection, Any], emit: Emit, stop: StopRequest
) -> list[MhistTuneError]:
    """Hand on the events of the processes until all have ended; return what ended them if it was an error."""
    errors: list[MhistTuneError] = []
    open_connections = dict(processes)
    is_told = False
    while open_connections:
        if stop.signum and not is_told:
            is_told = True
            for process in processes.values():
                process.terminate()
        for connection in multiprocessing.connection.wait(list(open_connections), timeout=_FORWARD_S):
            assert isinstance(connection, multiprocessing.connection.Connection)
            try:
                event, fields = connection.recv()
            except EOFError:
                process = open_connections.pop(connection)
                process.join()
                if process.exitcode not in (0, 143) and not errors:
                    errors.append(MhistTuneError(f"a worker process ended with exit code {process.exitcode}"))
                continue
            if event == "failed":
                errors.append(fields["error"])
            else:
                emit(event, **fields)
    return errors


def _child(
    options: WorkerOptions, device: str, n_threads: int, connection: multiprocessing.connection.Connection
) -> None:
    os.setsid()  # Ctrl-C in a terminal reaches the parent alone, which then asks every child once
    lock = threading.Lock()
    with stop_on_signals() as stop:

        def emit(event: str, /, **fields: Any) -> None:
            with lock:
                try:
                    connection.send((event, fields))
                except BrokenPipeError:  # the parent is gone: end as if it had asked to
                    stop.set(signal.SIGTERM)

        try:
            serve(options, device, n_threads, emit, stop)
        except Interrupted:
            raise SystemExit(128 + stop.signum) from None
        except MhistTuneError as error:
            emit("failed", error=error)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Yield a request that SIGTERM and SIGINT set; a second signal ends the process at once."""
    stop = StopRequest()

    def handle(signum: int, _: object) -> None:
        if stop.signum:
            os._exit(128 + signum)
        stop.set(signum)

    before = {signum: signal.signal(signum, handle) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def serve(options: WorkerOptions, device: str, n_threads: int, emit: Emit, stop: StopRequest) -> None:
    """Claim and run slots on one device until none is left (or for ever with `wait`).

    Raises:
        Interrupted: a signal asked to stop; the slot is free.
        MhistTuneError: the study, the data or the storage cannot be used.
    """
    torch.set_num_threads(n_threads)
    if device == "cpu":
        _keep_freed_memory()
    worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    with open_storage(options.storage_url) as storage:
        log_path = storage.root / "logs" / f"{worker}.log"
        with _logged(emit, log_path) as emit:
            emit("worker", worker=worker, device=device, threads=n_threads, log=str(log_path))
            _claim_and_run(storage, options, device, worker, emit, stop)
            emit("left", worker=worker, reason="no slot is left")


def _keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors, which it would hand back and fault in again in every step."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            libc.mallopt(option, _KEPT_BYTES)


def _claim_and_run(
    storage: Storage, options: WorkerOptions, device: str, worker: str, emit: Emit, stop: StopRequest
) -> None:
    observer = LeaseObserver()
    sessions: dict[str, Session] = {}
    while True:
        stop.check()
        is_pending, claim = False, None
        for study in _studies(storage, options.study):
            counts = [ledger.counts(storage, study, stage) for stage in options.stages]
            if study.state != "active" or not any(count.get("free", 0) + count.get("leased", 0) for count in counts):
                continue
            is_pending = True
            if study.uuid not in sessions:
                sessions[study.uuid] = _open_session(storage, study, options, device, worker, emit, stop)
            claim = ledger.claim(storage, study, options.stages, worker=worker, observer=observer)
            if claim is not None:
                run_slot(sessions[study.uuid], claim, WORK[claim.stage])
                break
        if claim is None:
            if not is_pending and not options.wait:
                return
            stop.wait(_POLL_S)


def _studies(storage: Storage, name: str | None) -> list[Study]:
    return [studies.load_study(storage, name)] if name else studies.list_studies(storage)


def _open_session(
    storage: Storage,
    study: Study,
    options: WorkerOptions,
    device: str,
    worker: str,
    emit: Emit,
    stop: StopRequest,
) -> Session:
    """Check that the data and the weights are the study's own, and settle what is probed once for a study."""
    fingerprint = dataset.fingerprint(options.data_root)
    if fingerprint != study.dataset["fingerprint"]:
        raise DataError(
            f"the images under {options.data_root} are not those that {study.name} was created with",
            hint="point --data to the same copy of the data set",
        )
    hp = study.definition.hyperparameters(study.definition.default_params())
    if models.weights_identity(hp.weights) != study.dataset["weights_sha256"]:
        raise DataError(
            f"{hp.weights} is not the weight file that {study.name} was created with",
            hint=f"its sha256 must be {study.dataset['weights_sha256']}",
        )
    torch_device = torch.device(device)
    if "probed" not in study.settings:
        settled = resolve(hp, torch_device)
        probed = {"precision": settled.precision, "memory_format": settled.memory_format}
        study = studies.set_setting(storage, study, "probed", probed)
    emit("setting", study=study.name, **study.settings["probed"])
    cache_dir = storage.root / "cache"
    train = dataset.load_train(options.data_root, image_size=hp.image_size, cache_dir=cache_dir)
    return Session(storage, study, options.data_root, cache_dir, train, torch_device, worker, emit, stop)


def format_event(event: str, fields: Mapping[str, Any]) -> str:
    """Return one line of key=value pairs; floats with four significant digits, text with spaces quoted."""
    parts = []
    for name, value in {"event": event, **fields}.items():
        if value is None:
            continue
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        parts.append(f'{name}="{text}"' if " " in text else f"{name}={text}")
    return " ".join(parts)


@contextlib.contextmanager
def _logged(emit: Emit, log_path: Path) -> Iterator[Emit]:
    """Yield what hands each event on, and writes all but steps to the worker's log file as well."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("a", buffering=1) as log:

        def tee(event: str, /, **fields: Any) -> None:
            if event != "step":
                log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {format_event(event, fields)}\n")
            emit(event, **fields)

        yield tee
