"""Snapshots of studies, at most a second old, shared by all readers. Finished trials are read once."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mhist_tune.dashboard.slot_cache import SlotCache
from mhist_tune.report import files, status
from mhist_tune.report.status import BestTrial, Status
from mhist_tune.storage import event_log, studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.epochs import EpochRow, epochs_of
from mhist_tune.storage.event_log import EventRow
from mhist_tune.storage.heartbeats import load_workers
from mhist_tune.storage.slot_rows import SearchSlot
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.storage.studies import Study

_DECIDING = (Stage.SEARCH, Stage.CONFIRM)
_FRESH_S = 1.0
_N_CACHED = 256
_N_CHANGES = 20
T = TypeVar("T")


class Fresh(Generic[T]):
    """A value that is made again when it is older than a second. Threads that ask meanwhile wait for it."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._value: T | None = None
        self._made = float("-inf")

    def get(self) -> T:
        """Return the value, at most a second old."""
        with self._lock:
            if self._value is None or time.monotonic() - self._made > _FRESH_S:
                self._value = self._make()
                self._made = time.monotonic()
            return self._value


@dataclass(frozen=True)
class Snapshot:
    """A study at one moment.

    Attributes:
        summary: the result of `status.of_study`.
        slots: the search slots.
        optuna_id: Optuna's id of the search.
        changes: the events of the last changes by people, the newest first.
        active_at: the time of the last heartbeat of a worker, or of the creation, in seconds since 1970.
        now: the time by the database's clock, in seconds since 1970.
    """

    study: Study
    summary: Status
    slots: Sequence[SearchSlot]
    optuna_id: int
    changes: Sequence[EventRow]
    active_at: float
    now: float


class _StudyCache:
    """The records of one study that this process has read."""

    def __init__(self, storage: Storage, study: Study) -> None:
        self._storage, self._uuid, self._name = storage, study.uuid, study.name
        self._optuna_id = studies.optuna_study_id(storage, study, Stage.SEARCH)
        self._slots = SlotCache(storage, study)
        self._epochs: dict[tuple[int, int], list[EpochRow]] = {}
        self._best: tuple[object, BestTrial | None] | None = None
        self._report: tuple[object, str] | None = None
        self._lock = threading.Lock()
        self.snapshot = Fresh(self._read)

    def _read(self) -> Snapshot:
        study = studies.load_study(self._storage, self._name)
        slots = self._slots.read()
        ended = {stage: [(slot.slot, slot.token) for slot in slots.of(stage) if slot.outcome] for stage in _DECIDING}
        if self._best is None or self._best[0] != ended:  # a confirmation takes a bootstrap
            self._best = (ended, status.best(self._storage, study, slots))
        events = event_log.events(self._storage, study)
        seen = [worker["seen_at"] for worker in load_workers(self._storage, study)]
        return Snapshot(
            study=study,
            summary=status.summary(self._storage, study, slots, self._best[1]),
            slots=slots.search,
            optuna_id=self._optuna_id,
            changes=[event for event in events if "by" in event.detail][: -_N_CHANGES - 1 : -1],
            active_at=max([study.created_at, *seen]),
            now=self._storage.now(),
        )

    def epochs(self, slot: SearchSlot) -> list[EpochRow]:
        """Return a slot's epochs. Those of a finished slot are read once."""
        study = self.snapshot.get().study
        key = (slot.slot, slot.token)
        with self._lock:
            cached = self._epochs.get(key)
        if cached is not None:
            return cached
        rows = epochs_of(self._storage, study, Stage.SEARCH, slot.slot)
        if slot.state == SlotState.DONE:
            with self._lock:
                while len(self._epochs) >= _N_CACHED:
                    self._epochs.pop(next(iter(self._epochs)))
                self._epochs[key] = rows
        return rows

    def params(self, slot: SearchSlot) -> dict[str, Any]:
        """Return a trial's params, from its outcome, its slot or Optuna; empty before they are suggested."""
        params = (slot.outcome and slot.outcome.params) or slot.payload.params
        if params is None and slot.trial_id is not None:
            with contextlib.suppress(KeyError):
                params = self._storage.optuna.get_trial(slot.trial_id).params
        return dict(params or {})

    def report(self) -> str:
        """Return the report as HTML. It is made again when trials have ended or the test images were opened."""
        summary = self.snapshot.get().summary
        version = (summary.stages[Stage.RETRAIN].get(SlotState.DONE), summary.trials, len(summary.openings))
        with self._lock:
            if self._report is None or self._report[0] != version:
                self._report = (version, files.render(self._storage, self._name))
            return self._report[1]


class Board:
    """All studies of a storage. Several threads may use it at once."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._caches: dict[str, _StudyCache] = {}
        self._lock = threading.Lock()
        self._studies = Fresh(lambda: studies.list_studies(storage))

    def all(self) -> list[Snapshot]:
        """Return a snapshot of every study, the newest first."""
        return [self._of(study).snapshot.get() for study in reversed(self._studies.get())]

    def snapshot(self, name: str) -> Snapshot:
        """Return a snapshot of a study, at most a second old.

        Raises:
            StudyNotFoundError: there is no study of that name.
        """
        return self._named(name).snapshot.get()

    def epochs(self, name: str, slot: SearchSlot) -> list[EpochRow]:
        """Return the epochs of a search slot."""
        return self._named(name).epochs(slot)

    def params(self, name: str, slot: SearchSlot) -> dict[str, Any]:
        """Return the params of a search slot's trial, empty before they are suggested."""
        return self._named(name).params(slot)

    def report(self, name: str) -> str:
        """Return a study's report as HTML.

        Raises:
            UsageError: no retraining has finished, or there is no study of that name.
        """
        return self._named(name).report()

    def forget(self, study: Study) -> None:
        """Drop the cached records of a study, because it was changed or deleted."""
        with self._lock:
            self._caches.pop(study.uuid, None)
        self._studies = Fresh(lambda: studies.list_studies(self.storage))

    def _named(self, name: str) -> _StudyCache:
        listed = {study.name: study for study in self._studies.get()}
        return self._of(listed[name] if name in listed else studies.load_study(self.storage, name))

    def _of(self, study: Study) -> _StudyCache:
        with self._lock:
            if study.uuid not in self._caches:
                self._caches[study.uuid] = _StudyCache(self.storage, study)
            return self._caches[study.uuid]
