"""One claimed slot, from its trial to its final state. Every stage uses it.

The order of the writes makes a kill at any point harmless. An epoch and the decision after it are written to our tables
first, then copied to Optuna's. The outcome is decided in our tables first, then given to Optuna, and then the slot is
done. The next worker that claims the slot goes on where the records end.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Container, Mapping
from functools import partial
from typing import Any

from sqlalchemy import Executable

from mhist_tune.data.images import ImageSet
from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.errors import MhistTuneError
from mhist_tune.mhist import NEGATIVE_CLASS, POSITIVE_CLASS
from mhist_tune.search.values import is_trivial, objective
from mhist_tune.storage import event_log, ledger
from mhist_tune.storage.decision import Decision, Verdict
from mhist_tune.storage.epochs import epochs_of, record_epoch
from mhist_tune.storage.heartbeats import heartbeat
from mhist_tune.storage.leases import Claim, LeaseKeeper, StaleTokenError
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.stages import Stage
from mhist_tune.training import memory
from mhist_tune.training.fit import fit
from mhist_tune.training.fit_result import Diverged, EpochResult, FitResult
from mhist_tune.worker import mixed_versions
from mhist_tune.worker.optuna_trial import OptunaTrial
from mhist_tune.worker.outbox import Outbox
from mhist_tune.worker.session import Session
from mhist_tune.worker.trial_checkpoints import TrialCheckpoints

Judge = Callable[[int, float], Decision]
"""Decides about a trial from the number of the epoch just finished and the value so far."""

Arrive = Callable[[EpochResult, float], Decision]
"""Decides about a trial that has arrived at a rung, from the epoch just finished and the value so far."""

_STEP_EVENT_S = 0.5
_ANSWER_S = 2.0  # training waits so long for the report of an epoch, then goes on while the report waits
_LISTEN_S = 0.2


class EndedEarly(Exception):
    """Training ended before its last epoch: a decision pruned the trial, or it diverged."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class Waits(Exception):
    """The trial waits at a rung, and so does its slot."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.reason)


class _Pruned(Exception):
    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.reason)
        self.decision = decision


class SlotRun:
    """One slot while this worker holds its lease.

    Args:
        session: the worker's session.
        claim: the slot as claimed.
        keeper: renews the lease and knows when it is lost.

    Attributes:
        trial: Optuna's trial of the slot.
        params: the params of the trial; None until the stage has set them.
        sampling: what `fit` records about the sampling, see its `on_sampling`; None before.
        checkpoints: the checkpoints of the trial.
    """

    def __init__(self, session: Session, claim: Claim, keeper: LeaseKeeper) -> None:
        self.session = session
        self.claim = claim
        self.params: dict[str, Any] | None = None
        self.sampling: dict[str, Any] | None = None
        self.trial = OptunaTrial(session.storage, session.study, claim)
        self._keeper = keeper
        self._epoch = 0
        self._curve: list[float] = []
        self._last_step_event = 0.0
        self.checkpoints = TrialCheckpoints(session, claim, keeper, self._where)

    def fit(
        self,
        hp: Hyperparameters,
        train: ImageSet,
        val: ImageSet | None,
        *,
        seed: int,
        stop_epoch: int | None = None,
        judge: Judge | None = None,
        arrive: Arrive | None = None,
        rungs: Container[int] = (),
        after_epoch: Callable[[int], None] | None = None,
        image_set: str = "val",
    ) -> FitResult:
        """Train, report every epoch under the lease, and return the result.

        Epochs are reported in order while training goes on, so that an unreachable database does not stop it. When
        memory runs out, the run goes on from its checkpoint with half the micro-batch.

        Args:
            hp: the hyperparameters.
            train: the images to train on.
            val: the images that score each epoch; None for none.
            seed: the seed of the training.
            stop_epoch: the epoch after which training ends; None for `hp.epochs`.
            judge: decides after every epoch.
            arrive: decides after the epochs in `rungs`. Their state is saved before.
            rungs: epochs at which `arrive` decides.
            after_epoch: called with the number of each recorded epoch. It ends the training by raising `EndedEarly`.
            image_set: the name under which the images of `val` are stored.

        Raises:
            EndedEarly: the trial was pruned, or it diverged.
            Interrupted: a signal asked to stop.
            MhistTuneError: memory ran out, and the micro-batch cannot be halved.
            StaleTokenError: the lease was lost.
            Waits: the trial waits at a rung.
        """
        session, n_epochs = self.session, stop_epoch or hp.epochs
        session.emit("trial", **self._where(), epochs=n_epochs, attempt=self.claim.n_claims)
        session.storage.transaction(lambda connection: connection.execute(self._heartbeat(0, {})))
        mixed_versions.record(session.storage, session.study, self.claim)
        try:
            while True:
                try:
                    report = partial(
                        self._report,
                        n_epochs=n_epochs,
                        judge=judge,
                        arrive=arrive,
                        rungs=rungs,
                        after_epoch=after_epoch,
                        image_set=image_set,
                    )
                    with Outbox[EpochResult](report) as outbox:
                        fitted = fit(
                            hp,
                            train,
                            val,
                            seed=seed,
                            device=session.device,
                            checkpoint=self.checkpoints.writer,
                            on_epoch=partial(self._on_epoch, outbox),
                            on_step=partial(self._on_step, outbox),
                            on_sampling=self._take_sampling,
                            score=session.study.definition.score,
                            at=session.study.definition.at,
                            stop_epoch=stop_epoch,
                            save_at=rungs,
                        )
                        self._await(outbox, math.inf)
                    return fitted
                except (RuntimeError, MemoryError) as error:
                    if not memory.is_out_of_memory(error):
                        raise
                # Behind the handler: until then the error's traceback keeps the failed run in memory.
                hp = self._with_less_memory(hp)
        except _Pruned as pruned:
            raise EndedEarly(self._ended_early(str(pruned), pruned.decision)) from None
        except Diverged as diverged:
            raise EndedEarly(self._ended_early(f"diverged: {diverged}", None)) from diverged

    def _with_less_memory(self, hp: Hyperparameters) -> Hyperparameters:
        session, device = self.session, self.session.device
        n_images = min(hp.micro_batch_size, hp.effective_batch_size)
        detail = {"device": str(device), "micro_batch_size": n_images}
        event_log.event(
            session.storage,
            session.study,
            kind="out of memory",
            stage=self.claim.stage,
            slot=self.claim.slot,
            detail=detail,
        )
        memory.free(device)
        if n_images > 1 and not memory.is_coupled(hp):
            session.emit("memory", **self._where(), micro_batch_size=n_images // 2)
            return dataclasses.replace(hp, micro_batch_size=n_images // 2)
        fitting = memory.fitting_micro_batch_size(hp, device, n_images // 2)
        raise MhistTuneError(
            f"trial {self.trial.number} of {session.study.name} does not fit into the memory of {device} with "
            f"{n_images} images at once; its slot is free again",
            hint="use a device with more free memory"
            if fitting is None
            else f"use a device with more free memory, or a study with micro_batch_size = {fitting}, which fits: "
            "with BatchNorm it is part of the method and is not changed",
        )

    def _ended_early(self, reason: str, decision: Decision | None) -> Outcome:
        rows = epochs_of(self.session.storage, self.session.study, self.claim.stage, self.claim.slot)
        if self.session.study.definition.at == "last":
            best = rows[-1] if rows else None
        else:
            best = max(rows, key=lambda row: (row.score, -row.epoch), default=None)
        return Outcome(
            # a search can do without the trial; every other stage needs all of its trainings
            state=EndState.PRUNED if self.claim.stage is Stage.SEARCH else EndState.FAIL,
            value=rows[-1].value if rows else None,
            best_score=best.score if best else None,
            best_epoch=best.epoch if best else None,
            stopped_epoch=len(rows),
            is_trivial=(is_trivial(best.metrics) or None) if best else None,
            reason=reason,
            decision=decision,
            params=self.params,
            sampling=self.sampling,
        )

    def _take_sampling(self, sampling: dict[str, Any]) -> None:
        self.sampling = sampling

    def _on_epoch(self, outbox: Outbox[EpochResult], result: EpochResult) -> None:
        self._epoch = result.epoch
        was_late = outbox.n_waiting > 0
        outbox.put(result)
        if not was_late and not self._await(outbox, _ANSWER_S):
            self.session.emit("waiting", **self._where(), reason="no answer from the database; training goes on")

    def _await(self, outbox: Outbox[EpochResult], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not outbox.wait(_LISTEN_S):
            self._check(outbox)
            if time.monotonic() > deadline:
                return False
        return True

    def _check(self, outbox: Outbox[EpochResult]) -> None:
        self.session.stop.check()
        if self._keeper.lost.is_set():
            raise StaleTokenError(self.claim)
        outbox.check()

    def _on_step(self, outbox: Outbox[EpochResult], n_done: int, n_images: int) -> None:
        self._check(outbox)
        now = time.monotonic()
        if now - self._last_step_event >= _STEP_EVENT_S:
            self._last_step_event = now
            self.session.emit("step", **self._where(), n_done=n_done, n_images=n_images)

    def _report(
        self,
        result: EpochResult,
        *,
        n_epochs: int,
        judge: Judge | None,
        arrive: Arrive | None,
        rungs: Container[int],
        after_epoch: Callable[[int], None] | None,
        image_set: str,
    ) -> None:
        session = self.session
        definition = session.study.definition
        score = result.metrics.get(f"val_{definition.score}", result.metrics["train_loss"])
        assert score is not None  # AUROC is defined, since the validation images have both classes
        value = result.best_score
        decision = None
        if judge is not None:
            # the epochs of a resumed run are reported from the first one on
            self._curve[result.epoch - 1 :] = [score]
            value = objective(self._curve, result.best_epoch, definition.smoothing)
            decision = judge(result.epoch, value)
        started = time.monotonic()
        recorded = record_epoch(
            session.storage,
            self.claim,
            epoch=result.epoch,
            score=score,
            value=value,
            metrics=result.metrics,
            decision=decision,
            predictions=result.probabilities,
            image_set=image_set,
            lease_s=definition.lease_s,
            alongside=self._heartbeat(result.epoch, result.metrics),
        )
        self._keeper.renewed(started)
        self.checkpoints.announce()
        session.storage.retrying(partial(self.trial.record, result.epoch, score))
        if recorded.is_new:
            fields = {**self._where(), "epoch": result.epoch, "epochs": n_epochs, "best_epoch": result.best_epoch}
            session.emit("epoch", **fields, score=definition.score, **result.metrics)
            if (result.epoch in rungs or result.epoch == n_epochs) and is_trivial(result.metrics):
                called = POSITIVE_CLASS if result.metrics["val_recall"] else NEGATIVE_CLASS
                reason = (
                    f"all validation images are called {called}: F1 {result.metrics['val_f1']:.3f} needs no learning"
                )
                session.emit("trivial", **self._where(), reason=reason)
        if recorded.decision is not None and recorded.decision.verdict is Verdict.PRUNE:
            raise _Pruned(recorded.decision)
        if arrive is not None and result.epoch in rungs:
            assert value is not None
            at_rung = arrive(result, value)
            if at_rung.verdict is Verdict.WAIT:
                raise Waits(at_rung)
            if at_rung.verdict is Verdict.PRUNE:
                raise _Pruned(at_rung)
        if after_epoch is not None:
            after_epoch(result.epoch)

    def _heartbeat(self, epoch: int, metrics: Mapping[str, float | None]) -> Executable:
        return heartbeat(
            self.session.storage,
            self.session.worker,
            study=self.session.study.uuid,
            device=str(self.session.device),
            stage=self.claim.stage,
            slot=self.claim.slot,
            trial_number=self.trial.number,
            epoch=epoch,
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
            "trial": self.trial.number,
            "epoch": self._epoch,
        }

    def conclude(self, outcome: Outcome) -> None:
        """Decide the outcome, give it to Optuna, remove checkpoints, and finish the slot.

        Raises:
            StaleTokenError: another worker holds the slot now.
        """
        storage, claim = self.session.storage, self.claim
        if not ledger.decide(storage, claim, outcome):
            raise StaleTokenError(claim)
        epochs = epochs_of(storage, self.session.study, claim.stage, claim.slot)
        storage.retrying(lambda: self.trial.finish(outcome, epochs))
        # Before the slot is done: after a kill here the next holder removes the checkpoints; later nobody would.
        self.checkpoints.tidy()
        if not ledger.finish(storage, claim):
            raise StaleTokenError(claim)
        record = outcome.to_json()
        fields = {name: record[name] for name in ("state", "value", "best_epoch", "reason") if name in record}
        self.session.emit("done", **self._where(), **fields)
