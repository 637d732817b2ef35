"""One worker process: claims slots and runs them until none is left in its stages."""

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mhist_tune.errors import StorageError
from mhist_tune.events import Emit, StopRequest, format_event
from mhist_tune.search import budget, race
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.leases import Claim
from mhist_tune.storage.outcome import Outcome
from mhist_tune.storage.retries import Waiting
from mhist_tune.storage.stages import OPEN, Stage, StudyState
from mhist_tune.storage.studies import Study
from mhist_tune.training import memory
from mhist_tune.worker import mixed_versions
from mhist_tune.worker.attempt import run_slot
from mhist_tune.worker.checkpoint_places import open_checkpoints
from mhist_tune.worker.options import WorkerOptions
from mhist_tune.worker.session import Session, open_session
from mhist_tune.worker.slot_run import SlotRun
from mhist_tune.worker.stages import confirm, retrain, search

WORK: Mapping[Stage, Callable[[SlotRun], Outcome]] = {
    Stage.SEARCH: search.run,
    Stage.CONFIRM: confirm.run,
    Stage.RETRAIN: retrain.run,
    Stage.DESCRIPTIVE: retrain.run_with_validation,
}
"""The work of each stage, in the order in which slots are claimed."""

_POLL_S = 1.0


def serve(options: WorkerOptions, device: str, n_threads: int, emit: Emit, stop: StopRequest) -> None:
    """Claim and run slots on one device until none is left, or for ever with `wait`.

    Waits while the database is full, read-only, or has no connection left.

    Raises:
        Interrupted: a signal asked to stop; the slot is free.
        MhistTuneError: the study, the data or the storage cannot be used.
    """
    torch.set_num_threads(n_threads)
    if device == "cpu":
        memory.keep_freed()
    worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    waiting = Waiting(interrupt=stop.check, on_blocked=lambda error: _report_blocked(emit, error))
    with open_storage(options.storage_url, waiting=waiting) as storage:
        log_path = storage.root / "logs" / f"{worker}.log"
        with _logged(emit, log_path) as emit:
            emit("worker", worker=worker, device=device, threads=n_threads, log=str(log_path))
            claimer = _Claimer(storage, options, device=device, worker=worker, emit=emit, stop=stop)
            while claimed := claimer.next_claim():
                session, claim = claimed
                following: Claim | None = claim
                while following is not None:
                    following = run_slot(session, following, WORK[following.stage])
            emit("left", worker=worker, reason=claimer.reason_to_leave())


def _report_blocked(emit: Emit, error: StorageError) -> None:
    emit("blocked", reason=f"{error}; the worker goes on after that, and nothing is lost")


class _Claimer:
    """Claims slots for one worker, and keeps a session for each study that it has worked on."""

    def __init__(
        self, storage: Storage, options: WorkerOptions, *, device: str, worker: str, emit: Emit, stop: StopRequest
    ) -> None:
        self._storage, self._options = storage, options
        self._device, self._worker, self._emit, self._stop = device, worker, emit, stop
        self._stages = options.stages or tuple(WORK)
        self._sessions: dict[str, Session] = {}

    def next_claim(self) -> tuple[Session, Claim] | None:
        """Wait for a slot and claim it. Return None when none is left; with `wait` that never happens."""
        while True:
            self._stop.check()
            is_any_left = False
            for study in self._open_studies():
                is_any_left = True
                session = self._session(study)
                if claim := self._claim(session):
                    return session, claim
            if not is_any_left and not self._options.wait:
                return None
            self._stop.wait(_POLL_S)

    def reason_to_leave(self) -> str:
        """Return why there is no slot: none is left, or the studies that have slots are paused."""
        paused = [study.name for study in self._studies() if study.state == StudyState.PAUSED and self._is_open(study)]
        return f"{', '.join(paused)}: paused" if paused else "no slot is left"

    def _studies(self) -> list[Study]:
        name = self._options.study
        return [studies.load_study(self._storage, name)] if name else studies.list_studies(self._storage)

    def _open_studies(self) -> Iterator[Study]:
        """Yield the studies that have slots left and are not paused."""
        for study in self._studies():
            if study.state != StudyState.PAUSED and self._has_slots(study):
                yield study

    def _has_slots(self, study: Study) -> bool:
        """Return whether a slot is left. If none is, add the slots of finalists that can be trained now."""
        if self._is_open(study):
            return True
        if Stage.CONFIRM not in self._stages:
            return False
        confirm.add_slots(self._storage, study)
        return self._is_open(study)

    def _is_open(self, study: Study) -> bool:
        counts = [ledger.counts(self._storage, study, stage) for stage in self._stages]
        return any(count.get(state, 0) for count in counts for state in OPEN)

    def _session(self, study: Study) -> Session:
        if study.uuid not in self._sessions:
            options = self._options
            study = mixed_versions.join(self._storage, study, may_mix=options.mix_versions, emit=self._emit)
            self._sessions[study.uuid] = open_session(
                self._storage,
                study,
                data_root=options.data_root,
                device=self._device,
                worker=self._worker,
                emit=self._emit,
                stop=self._stop,
                checkpoints=open_checkpoints(options.checkpoints, self._storage.root, options.checkpoints_gb),
                stages=self._stages,
                weights=options.weights,
            )
        return self._sessions[study.uuid]

    def _claim(self, session: Session) -> Claim | None:
        """Claim a slot of a study, or return None.

        Before, the looks of the finalists' race that are due are taken, so that no dropped finalist is trained. If no
        slot is free, close a search whose budget is reached, decide the waiting trials and try again.
        """
        if Stage.CONFIRM in self._stages:
            race.advance(self._storage, session.study)
        claim = self._claim_free(session)
        if claim is not None or Stage.SEARCH not in self._stages:
            return claim
        definition = session.study.definition
        if definition.max_hours is not None and (reached := budget.close_if_reached(self._storage, session.study)):
            self._emit("budget", study=definition.name, reason=budget.reached_text(reached))
        if definition.pruner["name"] == "promotion":
            session.rungs(Stage.SEARCH).close()  # promotes or prunes them, which frees their slots
            claim = self._claim_free(session)
        return claim

    def _claim_free(self, session: Session) -> Claim | None:
        """Claim an abandoned or a free slot. A skipped slot comes last, and only from its `again_at` on."""
        claim_slot = partial(
            ledger.claim,
            self._storage,
            session.study,
            self._stages,
            worker=self._worker,
            observer=session.observer,
            may_begin=budget.gate(self._storage, session.study),
        )
        claim = claim_slot(excluding=session.skipped)
        if claim is None and session.skipped:
            now = time.monotonic()
            claim = claim_slot(excluding=[key for key, slot in session.skipped.items() if slot.again_at > now])
        return claim


@contextlib.contextmanager
def _logged(emit: Emit, log_path: Path) -> Iterator[Emit]:
    """Yield a function that passes each event on and writes it to the worker's log file; steps are not written.

    On a full disk the line is dropped, so that no trial fails because of its log.
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
