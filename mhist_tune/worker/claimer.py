"""Claims the slots of one worker, waits while there is none, and says why the worker leaves."""

import time
from collections.abc import Collection, Mapping

from mhist_tune.events import Emit, StopRequest
from mhist_tune.search import budget, race
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.leases import Claim, LeaseObserver, SlotKey
from mhist_tune.storage.stages import OPEN, Stage, StudyState
from mhist_tune.storage.studies import Study
from mhist_tune.storage.surveys import Survey, survey
from mhist_tune.words import counted, rough_duration
from mhist_tune.worker import mixed_versions
from mhist_tune.worker.checkpoint_places import open_checkpoints
from mhist_tune.worker.idle import Idle
from mhist_tune.worker.options import WorkerOptions
from mhist_tune.worker.session import Session, open_session
from mhist_tune.worker.stages import confirm


class Claimer:
    """Claims slots for one worker, and keeps a session for each study that it has worked on.

    Args:
        storage: the database.
        options: those of the worker.
        stages: the stages to claim from, in this order.
        device: torch's name of the device.
        worker: the name of the worker.
        emit: receives events.
        stop: the request to stop.

    Attributes:
        reason_to_leave: why `next_claim` returned None.
    """

    def __init__(
        self,
        storage: Storage,
        options: WorkerOptions,
        stages: Collection[Stage],
        *,
        device: str,
        worker: str,
        emit: Emit,
        stop: StopRequest,
    ) -> None:
        self.reason_to_leave = ""
        self._storage, self._options = storage, options
        self._device, self._worker, self._emit, self._stop = device, worker, emit, stop
        self._stages = options.stages or tuple(stages)
        self._observer = LeaseObserver()
        self._sessions: dict[str, Session] = {}
        self._without_finalists: set[str] = set()
        self._n_claimed = 0

    def next_claim(self) -> tuple[Session, Claim] | None:
        """Wait for a slot and claim it. Return None when the worker has to leave."""
        if self._options.limits.count is not None and self._n_claimed >= self._options.limits.count:
            self.reason_to_leave = f"{counted(self._n_claimed, 'slot')} done, as --count says"
            return None
        idle = Idle(self._storage, self._stop, self._options.limits.max_idle_s)
        try:
            while True:
                self._stop.check()
                open_surveys: dict[str, Survey] = {}
                paused: list[Study] = []
                for study in self._studies():
                    found = self._survey(study)
                    if not found.is_open:
                        continue
                    if found.state == StudyState.PAUSED:
                        paused.append(study)
                        continue
                    open_surveys[study.uuid] = found
                    session = self._session(study)
                    if claim := self._claim(session, found):
                        self._n_claimed += 1
                        return session, claim
                if not open_surveys and not self._options.wait:
                    self.reason_to_leave = "; ".join(map(self._paused, paused)) or "no slot is left"
                    return None
                if idle.is_over:
                    self.reason_to_leave = (
                        f"no slot was free for {rough_duration(self._options.limits.max_idle_s or 0.0)}"
                    )
                    return None
                self._wait(idle, open_surveys)
        finally:
            idle.end()

    def _wait(self, idle: Idle, open_surveys: Mapping[str, Survey]) -> None:
        held = [uuid for uuid, found in open_surveys.items() if found.leased]
        leases_s = [self._sessions[uuid].study.definition.lease_s for uuid in held]
        only = next(iter(open_surveys)) if self._options.study and len(open_surveys) == 1 else None
        idle.wait(only, min(leases_s, default=None), is_any_late=any(found.leases for found in open_surveys.values()))

    def _paused(self, study: Study) -> str:
        counts = [ledger.counts(self._storage, study, stage) for stage in self._stages]
        n_free, n_held, n_waiting = (sum(count.get(state, 0) for count in counts) for state in OPEN)
        more = [f"{n_held} held by others"] * bool(n_held) + [f"{n_waiting} waiting"] * bool(n_waiting)
        return f"{study.name} is paused: " + ", ".join([f"{counted(n_free, 'slot')} free", *more])

    def _studies(self) -> list[Study]:
        name = self._options.study
        return [studies.load_study(self._storage, name)] if name else studies.list_studies(self._storage)

    def _survey(self, study: Study) -> Survey:
        """Return what can be claimed. If no slot is open, add the slots of finalists that can be trained now."""
        found = self._read(study, self._skipped(study))
        if found.is_open:
            self._without_finalists.discard(study.uuid)
        elif Stage.CONFIRM in self._stages and study.uuid not in self._without_finalists:
            confirm.add_slots(self._storage, study)
            found = self._read(study)
            if not found.is_open:
                self._without_finalists.add(study.uuid)
        return found

    def _skipped(self, study: Study) -> Collection[SlotKey]:
        return self._sessions[study.uuid].skipped if study.uuid in self._sessions else ()

    def _read(self, study: Study, excluding: Collection[SlotKey] = ()) -> Survey:
        return survey(self._storage, study, self._stages, self._observer, excluding=excluding)

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
                observer=self._observer,
            )
        return self._sessions[study.uuid]

    def _claim(self, session: Session, found: Survey) -> Claim | None:
        """Claim a slot of a study, or return None. If none is free, decide the waiting trials and try again.

        A skipped slot comes last, and only from its `again_at` on. Looks of the finalists' race that are due are taken
        before, so that no dropped finalist is trained.
        """
        study, skipped = session.study, session.skipped
        if Stage.CONFIRM in (*found.free, *found.leased):
            race.advance(self._storage, study)
        claim = self._take(study, found, skipped)
        if claim is None and skipped:
            now = time.monotonic()
            later = [key for key, slot in skipped.items() if slot.again_at > now]
            if len(later) < len(skipped):
                claim = self._take(study, self._read(study, later), later)
        max_hours = study.definition.max_hours
        if claim is None and Stage.SEARCH in self._stages and max_hours is not None:
            if reached := budget.close_if_reached(self._storage, study):
                self._emit("budget", study=study.name, reason=budget.reached_text(reached))
            found = self._read(study, skipped)
        if claim is None and _may_close(found) and study.definition.pruner["name"] == "promotion":
            session.rungs(Stage.SEARCH).close()  # promotes or prunes them, which frees their slots
            claim = self._take(study, self._read(study, skipped), skipped)
        return claim

    def _take(self, study: Study, found: Survey, excluding: Collection[SlotKey]) -> Claim | None:
        may_begin = budget.gate(self._storage, study)
        return ledger.take(self._storage, study, found, worker=self._worker, excluding=excluding, may_begin=may_begin)


def _may_close(found: Survey) -> bool:
    """Return whether trials wait at rungs and none can arrive any more."""
    return Stage.SEARCH in found.waiting and Stage.SEARCH not in (*found.leased, *found.free)
