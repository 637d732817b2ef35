"""One worker process: it claims slots until none is left in any stage it serves."""

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mhist_tune import cache, confirm, ledger, memory, models, probe, retrain, search, studies
from mhist_tune.checkpoint_places import open_checkpoints
from mhist_tune.checkpoint_store import CheckpointStore
from mhist_tune.errors import DataError, StorageError
from mhist_tune.events import Emit, StopRequest, format_event
from mhist_tune.hyperparameters import PROBED, Hyperparameters
from mhist_tune.leases import Claim, LeaseObserver
from mhist_tune.outcome import Outcome
from mhist_tune.session import Session
from mhist_tune.slot_run import SlotRun, run_slot
from mhist_tune.stages import OPEN, Stage, StudyState
from mhist_tune.storage import Storage, open_storage
from mhist_tune.studies import Study
from mhist_tune.worker_options import WorkerOptions

WORK: Mapping[Stage, Callable[[SlotRun], Outcome]] = {
    Stage.SEARCH: search.run,
    Stage.CONFIRM: confirm.run,
    Stage.RETRAIN: retrain.run,
    Stage.DESCRIPTIVE: retrain.run_with_validation,
}
"""What is done in each stage, in the order in which slots are claimed."""

_POLL_S = 1.0


def serve(options: WorkerOptions, device: str, n_threads: int, emit: Emit, stop: StopRequest) -> None:
    """Claim and run slots on one device until none is left (or for ever with `wait`).

    Raises:
        Interrupted: a signal asked to stop; the slot is free.
        MhistTuneError: the study, the data or the storage cannot be used.
    """
    torch.set_num_threads(n_threads)
    if device == "cpu":
        memory.keep_freed()
    worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    with open_storage(options.storage_url) as storage:
        storage.interrupt = stop.check
        log_path = storage.root / "logs" / f"{worker}.log"
        with _logged(emit, log_path) as emit:
            storage.paused = partial(_tell_paused, emit)
            emit("worker", worker=worker, device=device, threads=n_threads, log=str(log_path))
            _claim_and_run(storage, options, device, worker, emit, stop)
            emit("left", worker=worker, reason="no slot is left")


def _tell_paused(emit: Emit, error: StorageError) -> None:
    emit("paused", reason=f"{error}; it goes on, with nothing lost, when some space is free")


def _claim_and_run(
    storage: Storage, options: WorkerOptions, device: str, worker: str, emit: Emit, stop: StopRequest
) -> None:
    observer = LeaseObserver()
    sessions: dict[str, Session] = {}
    stages = options.stages or tuple(WORK)
    while True:
        stop.check()
        is_pending, claim = False, None
        for study in _studies(storage, options.study):
            if study.state == StudyState.PAUSED or not _has_slots(storage, study, stages):
                continue
            is_pending = True
            if study.uuid not in sessions:
                checkpoints = open_checkpoints(options.checkpoints, storage.root, options.checkpoints_gb)
                sessions[study.uuid] = open_session(
                    storage, study, options.data_root, device, worker, emit, stop, checkpoints
                )
            claim = _claim(sessions[study.uuid], stages, observer)
            if claim is None and study.definition.pruner["name"] == "promotion" and Stage.SEARCH in stages:
                # who waits is promoted or pruned as soon as nobody else is left; both frees slots
                sessions[study.uuid].rungs(Stage.SEARCH).settle()
                claim = _claim(sessions[study.uuid], stages, observer)
            if claim is not None:
                run_slot(sessions[study.uuid], claim, WORK[claim.stage])
                break
        if claim is None:
            if not is_pending and not options.wait:
                return
            stop.wait(_POLL_S)


def _has_slots(storage: Storage, study: Study, stages: Sequence[Stage]) -> bool:
    """Tell whether a slot is left; where none is, those of finalists that can be trained now are added."""

    def any_left() -> bool:
        counts = [ledger.counts(storage, study, stage) for stage in stages]
        return any(count.get(state, 0) for count in counts for state in OPEN)

    if any_left():
        return True
    if Stage.CONFIRM not in stages:
        return False
    confirm.add_slots(storage, study)
    return any_left()


def _claim(session: Session, stages: Sequence[Stage], observer: LeaseObserver) -> Claim | None:
    """Claim a slot; one that was left to others only if there is no other, and they have had their time."""
    claim_but = partial(ledger.claim, session.storage, session.study, stages, worker=session.worker, observer=observer)
    claim = claim_but(excluding=session.elsewhere)
    if claim is None and session.elsewhere:
        now = time.monotonic()
        claim = claim_but(excluding=[key for key, found in session.elsewhere.items() if found.again_at > now])
    return claim


def _studies(storage: Storage, name: str | None) -> list[Study]:
    return [studies.load_study(storage, name)] if name else studies.list_studies(storage)


def open_session(
    storage: Storage,
    study: Study,
    data_root: Path,
    device: str,
    worker: str,
    emit: Emit,
    stop: StopRequest,
    checkpoints: CheckpointStore | None = None,
) -> Session:
    """Check that the data and the weights are the study's own, and settle what is probed once for a study.

    Checkpoints lie in the storage folder unless a store is given.

    Raises:
        DataError: the images or a weight file are others.
    """
    fingerprint = cache.fingerprint(data_root)
    if fingerprint != study.dataset["fingerprint"]:
        raise DataError(
            f"the images under {data_root} are not those that {study.name} was created with",
            hint="point --data to the same copy of the data set",
        )
    for weights, sha256 in study.dataset.get("weight_files", {}).items():
        if models.weights_identity(weights) != sha256:
            raise DataError(
                f"{weights} is not the weight file that {study.name} was created with",
                hint=f"its sha256 must be {sha256}",
            )
    hp = study.definition.hyperparameters(study.definition.default_params())
    torch_device = torch.device(device)
    study, micro_batch_size = _settled(storage, study, hp, torch_device, emit)
    cache_dir = storage.root / "cache"
    train = cache.load_train(data_root, image_size=hp.image_size, cache_dir=cache_dir).to(torch_device)
    checkpoints = checkpoints or open_checkpoints(None, storage.root)
    return Session(
        storage, study, data_root, cache_dir, checkpoints, train, torch_device, worker, emit, stop, micro_batch_size
    )


def _settled(
    storage: Storage, study: Study, hp: Hyperparameters, device: torch.device, emit: Emit
) -> tuple[Study, int | None]:
    """Return the study with what is probed once for it, and the micro-batch that fits this device, None for any.

    Where another kind of device was probed, the choice stands, so that trials are comparable; only the memory differs.
    """
    name = probe.device_name(device)
    if "probed" not in study.settings:
        probed = probe.measure(hp, device, study.definition.space)
        study = studies.set_setting(storage, study, "probed", probed)
    probed = study.settings["probed"]
    micro_batch_size: int | None = probed.get("micro_batch_size")
    emit("setting", study=study.name, **{key: probed.get(key) for key in (*PROBED, "micro_batch_size")})
    if probed.get("device", name) != name:
        settled = studies.hyperparameters(study, study.definition.default_params())
        micro_batch_size = probe.micro_batch_size(settled, device)
        shown = {"device": name, "probed_on": probed["device"], "micro_batch_size": micro_batch_size}
        emit("hardware", study=study.name, **shown)
    return study, micro_batch_size


@contextlib.contextmanager
def _logged(emit: Emit, log_path: Path) -> Iterator[Emit]:
    """Yield what hands each event on, and writes all but steps to the worker's log file as well.

    A line that finds no space is lost: no trial may fail for want of a log.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab", buffering=0) as log:

        def tee(event: str, /, **fields: Any) -> None:
            if event != "step":
                line = f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {format_event(event, fields)}\n"
                with contextlib.suppress(OSError):
                    log.write(line.encode())
            emit(event, **fields)

        yield tee
