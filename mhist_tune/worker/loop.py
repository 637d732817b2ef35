"""One worker process: claims slots and runs them until none is left in its stages."""

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from mhist_tune.errors import StorageError
from mhist_tune.events import Emit, StopRequest, format_event
from mhist_tune.storage.database import open_storage
from mhist_tune.storage.leases import Claim
from mhist_tune.storage.outcome import Outcome
from mhist_tune.storage.retries import Waiting
from mhist_tune.storage.stages import Stage
from mhist_tune.training import memory
from mhist_tune.words import rough_duration
from mhist_tune.worker.attempt import run_slot
from mhist_tune.worker.claimer import Claimer
from mhist_tune.worker.options import WorkerOptions
from mhist_tune.worker.slot_run import SlotRun
from mhist_tune.worker.stages import confirm, retrain, search
from mhist_tune.writing import private_file, private_folder

WORK: Mapping[Stage, Callable[[SlotRun], Outcome]] = {
    Stage.SEARCH: search.run,
    Stage.CONFIRM: confirm.run,
    Stage.RETRAIN: retrain.run,
    Stage.DESCRIPTIVE: retrain.run_with_validation,
}
"""The work of each stage, in the order in which slots are claimed."""


def serve(options: WorkerOptions, device: str, n_threads: int, emit: Emit, stop: StopRequest) -> None:
    """Claim and run slots on one device until none is left, or for ever with `wait`.

    Waits while the database is full, read-only, unreachable, or has no connection left.

    Raises:
        Interrupted: a signal asked to stop; the slot is free.
        MhistTuneError: the study, the data or the storage cannot be used.
    """
    torch.set_num_threads(n_threads)
    if device == "cpu":
        memory.keep_freed()
    worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    if options.job:
        worker = f"{worker}-{options.job}"
    waiting = Waiting(
        interrupt=stop.check,
        on_blocked=lambda error: _report_blocked(emit, error, options.limits.max_outage_s),
        retry_s=options.limits.max_outage_s,
    )
    with open_storage(options.storage_url, waiting=waiting) as storage:
        log_path = storage.root / "logs" / f"{worker}.log"
        with _logged(emit, log_path) as emit:
            emit("worker", worker=worker, device=device, threads=n_threads, log=str(log_path))
            claimer = Claimer(storage, options, WORK, device=device, worker=worker, emit=emit, stop=stop)
            while claimed := claimer.next_claim():
                session, claim = claimed
                following: Claim | None = claim
                while following is not None:
                    following = run_slot(session, following, WORK[following.stage])
            emit("left", worker=worker, reason=claimer.reason_to_leave)


def _report_blocked(emit: Emit, error: StorageError, max_outage_s: float) -> None:
    rest = (
        f"an unreachable database is waited for {rough_duration(max_outage_s)}, then the worker ends with exit code 4"
    )
    emit("blocked", reason=f"{error}; the worker goes on after that, and nothing is lost; {rest}")


@contextlib.contextmanager
def _logged(emit: Emit, log_path: Path) -> Iterator[Emit]:
    """Yield a function that passes each event on and writes it to the worker's log file; steps are not written.

    On a full disk the line is dropped, so that no trial fails because of its log.
    """
    private_folder(log_path.parent, is_for_group=True)
    private_file(log_path, is_for_group=True)
    with log_path.open("ab", buffering=0) as log:

        def tee(event: str, /, **fields: Any) -> None:
            if event != "step":
                line = f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {format_event(event, fields)}\n"
                with contextlib.suppress(OSError):
                    log.write(line.encode())
            emit(event, **fields)

        yield tee
