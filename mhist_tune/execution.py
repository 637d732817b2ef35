"""One claimed slot from its trial to its final state, the same way for every stage.

The order of the writes is what makes a kill at any point harmless: the epoch enters the ledger's tables first, then
Optuna's mirror of it; the outcome is decided in the ledger first, then given to Optuna, then the slot is done. Whoever
claims the slot next finds how far this went and goes on from there.
"""

import contextlib
import hashlib
import itertools
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from mhist_tune import journal, ledger, records, studies
from mhist_tune.checkpoint import CheckpointStore
from mhist_tune.dataset import ImageSet
from mhist_tune.errors import MhistTuneError
from mhist_tune.hyperparameters import Hyperparameters
from mhist_tune.leases import LeaseKeeper
from mhist_tune.ledger import Claim, StaleTokenError
from mhist_tune.pruning import Decision
from mhist_tune.scores import ScoreBook
from mhist_tune.storage import Storage
from mhist_tune.studies import Study
from mhist_tune.train import CheckpointSlot, Diverged, EpochResult, FitResult, fit

N_ATTEMPTS_AFTER_ERRORS = 3
"""How often a trial that fails by itself is tried before it is recorded as FAIL."""

_STEP_EVENT_S = 0.5


class Emit(Protocol):
    """Receives what happens, as an event's name and its fields; the command line decides how to show it."""

    def __call__(self, event: str, /, **fields: Any) -> None:
        """Take one event."""


class Interrupted(Exception):
    """The worker was asked to stop by a signal; its slot has been freed."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by signal {signum}")
        self.signum = signum


class StopRequest:
    """A signal's wish to stop, heard between two training steps."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.signum = 0

    def set(self, signum: int) -> None:
        """Ask to stop."""
        self.signum = signum
        self._event.set()

    def check(self) -> None:
        """Raise Interrupted if a stop was asked for."""
        if self._event.is_set():
            raise Interrupted(self.signum)

    def wait(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` seconds, and raise Interrupted as soon as a stop is asked for."""
        self._event.wait(timeout_s)
        self.check()


class _Pruned(Exception):
    def __init__(self, decision: Mapping[str, Any]) -> None:
        super().__init__(decision["reason"])
        self.decision = decision


@dataclass(frozen=True)
class Session:
    """What one worker process holds while it serves one study.

    Attributes:
        train: the whole train partition.
        cache_dir: where decoded partitions are kept.
        emit: receives events for whoever watches.
    """

    storage: Storage
    study: Study
    data_root: Path
    cache_dir: Path
    train: ImageSet
    device: torch.device
    worker: str
    emit: Emit
    stop: StopRequest
    _subsets: dict[str, ImageSet] = field(default_factory=dict)
    _scores: dict[str, ScoreBook] = field(default_factory=dict)

    def subset(self, image_set: str) -> ImageSet:
        """Return the images of a stored set (`train` or `val`) in their stored order."""
        if image_set not in self._subsets:
            position = {name: index for index, name in enumerate(self.train.names)}
            names = records.image_set(self.storage, self.study, image_set).names
            self._subsets[image_set] = self.train.take(np.array([position[name] for name in names], dtype=np.int64))
        return self._subsets[image_set]

    def scores(self, stage: str) -> ScoreBook:
        """Return the scores of a stage's slots, as far as this process knows them."""
        if stage not in self._scores:
            self._scores[stage] = ScoreBook(self.storage, self.study, stage)
        return self._scores[stage]

    def hyperparameters(self, params: Mapping[str, Any]) -> Hyperparameters:
        """Return what `fit` takes: the definition's fixed fields, these params, and what was probed for the study."""
        fields = self.study.definition.hyperparameters(params).to_dict()
        return Hyperparameters.from_dict({**fields, **self.study.settings["probed"]})


def derive_seed(*parts: object) -> int:
    """Return a seed in [0, 2**31) that depends on all parts and on nothing else."""
    text = ":".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


class SlotRun:
    """One slot while this worker holds its lease.

    Args:
        session: the worker's session.
        claim: the slot as claimed.
        keeper: renews the lease and knows when it is lost.
    """

    def __init__(self, session: Session, claim: Claim, keeper: LeaseKeeper) -> None:
        self.session = session
        self.claim = claim
        self.trial_number = -1 if claim.trial_number is None else claim.trial_number
        self._trial_id = -1 if claim.trial_id is None else claim.trial_id
        self._keeper = keeper
        self._epoch = 0
        self._last_step_event = 0.0

    def ensure_trial(self, template: Callable[[], FrozenTrial]) -> int:
        """Return the Optuna trial id of this slot: stored, or adopted by its tag, or created from `template`.

        The template is a RUNNING trial whose user attribute `slot` is the slot's number.
        """
        storage, claim = self.session.storage, self.claim
        if claim.trial_id is not None:
            return claim.trial_id
        study_id = studies.optuna_study_id(storage, self.session.study, claim.stage)
        attempts = itertools.count(claim.token)

        def adopt_or_create() -> FrozenTrial:
            # a first claim has no orphan, unless the answer to its own creation was lost
            if next(attempts) > 1:
                running = storage.optuna.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
                orphan = next((trial for trial in running if trial.user_attrs.get("slot") == claim.slot), None)
                if orphan is not None:
                    return orphan
            return storage.optuna.get_trial(storage.optuna.create_new_trial(study_id, template_trial=template()))

        trial = storage.retrying(adopt_or_create)
        self._trial_id, self.trial_number = trial._trial_id, trial.number
        if not ledger.attach_trial(storage, claim, trial._trial_id, trial.number):
            raise StaleTokenError(claim)
        return trial._trial_id

    def fit(
        self,
        hp: Hyperparameters,
        train: ImageSet,
        val: ImageSet | None,
        *,
        seed: int,
        stop_epoch: int | None = None,
        judge: Callable[[EpochResult], Decision] | None = None,
    ) -> FitResult | dict[str, Any]:
        """Train with fenced reports; return the result, or the outcome that ended it early (pruned or diverged)."""
        session = self.session
        session.emit("trial", **self._where(), epochs=stop_epoch or hp.epochs, attempt=self.claim.attempts)
        store = CheckpointStore(session.storage.root / "checkpoints")
        try:
            return fit(
                hp,
                train,
                val,
                seed=seed,
                device=session.device,
                checkpoint=CheckpointSlot(store, checkpoint_key(session.study, self.claim), self.claim.token),
                on_epoch=lambda result: self._on_epoch(result, stop_epoch or hp.epochs, judge),
                on_step=self._on_step,
                stop_epoch=stop_epoch,
            )
        except _Pruned as pruned:
            return self._ended_early(str(pruned), decision=dict(pruned.decision))
        except Diverged as diverged:
            return self._ended_early(f"diverged: {diverged}")

    def _ended_early(self, reason: str, **details: Any) -> dict[str, Any]:
        rows = records.epochs(self.session.storage, self.session.study, self.claim.stage, self.claim.slot)
        best = max(rows, key=lambda row: (row.value, -row.epoch), default=None)
        return {
            "state": "PRUNED",
            "value": rows[-1].value if rows else None,
            "best_value": best.value if best else None,
            "best_epoch": best.epoch if best else None,
            "stopped_epoch": len(rows),
            "reason": reason,
            **details,
        }

    def _on_epoch(self, result: EpochResult, n_epochs: int, judge: Callable[[EpochResult], Decision] | None) -> None:
        session, claim = self.session, self.claim
        value = result.metrics.get("val_f1", result.metrics["train_loss"])
        assert value is not None
        is_new = records.record_epoch(
            session.storage,
            claim,
            epoch=result.epoch,
            value=value,
            best_value=result.best_value,
            metrics=result.metrics,
            predictions=result.probabilities,
        )
        session.storage.retrying(partial(self._mirror, result.epoch, value))
        self._epoch = result.epoch
        if is_new:
            session.emit("epoch", **self._where(), epochs=n_epochs, best_epoch=result.best_epoch, **result.metrics)
            self._heartbeat(result.metrics)
        if judge is not None:
            decision = records.record_decision(session.storage, claim, result.epoch, judge(result).to_dict())
            if decision["prune"]:
                raise _Pruned(decision)

    def _mirror(self, epoch: int, value: float) -> None:
        self.session.storage.optuna.set_trial_intermediate_value(self._trial_id, epoch, value)

    def _on_step(self, n_done: int, n_images: int) -> None:
        self.session.stop.check()
        if self._keeper.lost.is_set():
            raise StaleTokenError(self.claim)
        now = time.monotonic()
        if now - self._last_step_event >= _STEP_EVENT_S:
            self._last_step_event = now
            self.session.emit("step", **self._where(), n_done=n_done, n_images=n_images)

    def _heartbeat(self, metrics: Mapping[str, float | None]) -> None:
        journal.heartbeat_worker(
            self.session.storage,
            self.session.worker,
            study=self.session.study.uuid,
            device=str(self.session.device),
            stage=self.claim.stage,
            slot=self.claim.slot,
            trial_number=self.trial_number,
            epoch=self._epoch,
            images_per_s=metrics.get("images_per_s"),
            memory_bytes=metrics.get("peak_memory_bytes"),
            state="training",
        )

    def _where(self) -> dict[str, Any]:
        claim = self.claim
        return {
            "study": self.session.study.name,
            "stage": claim.stage,
            "slot": claim.slot,
            "trial": self.trial_number,
            "epoch": self._epoch,
        }

    def conclude(self, outcome: Mapping[str, Any]) -> None:
        """Decide the outcome, hand it to Optuna, and finish the slot.

        Raises:
            StaleTokenError: another worker holds the slot now.
        """
        storage, claim = self.session.storage, self.claim
        if not ledger.decide(storage, claim, dict(outcome)):
            raise StaleTokenError(claim)
        storage.retrying(lambda: self._tell(outcome))
        if not ledger.finish(storage, claim):
            raise StaleTokenError(claim)
        CheckpointStore(storage.root / "checkpoints").remove(checkpoint_key(self.session.study, claim))
        shown = {
            name: outcome[name] for name in ("state", "value", "best_epoch", "reason") if outcome.get(name) is not None
        }
        self.session.emit("done", **self._where(), **shown)

    def _tell(self, outcome: Mapping[str, Any]) -> None:
        optuna_storage, value = self.session.storage.optuna, outcome.get("value")
        if optuna_storage.get_trial(self._trial_id).state.is_finished():
            return
        # a worker that lost this slot after its decision may write the same outcome at the same time
        with contextlib.suppress(UpdateFinishedTrialError):
            for name in ("best_epoch", "stopped_epoch", "reason"):
                if outcome.get(name) is not None:
                    optuna_storage.set_trial_user_attr(self._trial_id, name, outcome[name])
            values = None if value is None else [value]
            optuna_storage.set_trial_state_values(self._trial_id, TrialState[outcome["state"]], values)


def checkpoint_key(study: Study, claim: Claim) -> str:
    """Return where a slot's checkpoints lie, relative to the checkpoint folder."""
    return f"{study.name}-{study.uuid[:8]}/{claim.stage}-{claim.slot:05d}"


def run_slot(session: Session, claim: Claim, work: Callable[[SlotRun], Mapping[str, Any]]) -> None:
    """Run a claimed slot to its end with `work`, which returns the outcome.

    A lease lost on the way ends the run quietly, a stop request frees the slot, and an error is recorded with its
    traceback and the slot freed, until it has failed `N_ATTEMPTS_AFTER_ERRORS` times and becomes FAIL.

    Raises:
        Interrupted: a signal asked to stop; the slot is free.
    """
    storage, name = session.storage, session.study.name
    stage, slot = claim.stage, claim.slot
    with LeaseKeeper(storage, claim, session.study.definition.lease_s) as keeper:
        run = SlotRun(session, claim, keeper)
        try:
            run.conclude(claim.outcome or work(run))
        except StaleTokenError:
            session.emit("lost", study=name, stage=stage, slot=slot)
        except (Interrupted, MhistTuneError):
            ledger.release(storage, claim)
            raise
        except Exception as error:
            summary = f"{type(error).__name__}: {error}"
            detail = {"error": summary, "traceback": traceback.format_exc()}
            journal.event(storage, session.study, kind="error", stage=stage, slot=slot, detail=detail)
            session.emit("error", study=name, stage=stage, slot=slot, error=summary)
            errors = journal.events(storage, session.study, kind="error", stage=stage, slot=slot)
            if len(errors) < N_ATTEMPTS_AFTER_ERRORS:
                ledger.release(storage, claim)
            else:
                run.conclude({"state": "FAIL", "value": None, "reason": summary})
