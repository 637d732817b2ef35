"""Training of one model. It depends on no study, no database and no command line.

Every random choice of epoch e (which images, their order, augmentation and dropout) depends on (seed, e) only. A run
can therefore resume from the end of any epoch. The micro-batch size affects only dropout and BatchNorm.
"""

import math
import resource
import time
from collections.abc import Callable, Container, Mapping
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import get_total_norm

from mhist_tune.data.images import ImageSet
from mhist_tune.definition.hyperparameters import FIELDS, PROBED, Hyperparameters
from mhist_tune.definition.scores import At, Score
from mhist_tune.mhist import N_ANNOTATORS
from mhist_tune.training import power, weight_files
from mhist_tune.training.augmentation import draw, normalize_
from mhist_tune.training.checkpoints.writer import CheckpointWriter
from mhist_tune.training.features import image_features
from mhist_tune.training.fit_result import Diverged, EpochResult, FitResult, result_from, result_to
from mhist_tune.training.forward import evaluate, probabilities_of, ready, reproducible, statistics_on
from mhist_tune.training.freeze import set_training
from mhist_tune.training.metrics import binary_metrics
from mhist_tune.training.models import create_model
from mhist_tune.training.optimizer import build_scheduler, current_learning_rate, effective_weight_decay
from mhist_tune.training.sampling import prepare
from mhist_tune.training.step import Stepper
from mhist_tune.training.subsets import training_indices

_INIT, _AUGMENTATION, _DROPOUT = range(3)


def fit(
    hp: Hyperparameters,
    train: ImageSet,
    val: ImageSet | None,
    *,
    seed: int,
    device: torch.device,
    checkpoint: CheckpointWriter | None,
    on_epoch: Callable[[EpochResult], None],
    on_step: Callable[[int, int], None],
    on_sampling: Callable[[dict[str, Any]], None] | None = None,
    score: Score = "f1",
    at: At = "best",
    stop_epoch: int | None = None,
    save_at: Container[int] = (),
) -> FitResult:
    """Train one model. Resume after the last saved epoch if the checkpoint holds one.

    Args:
        hp: resolved, see `probe.resolve`.
        train: images to train on. Those with `hp.exclude_votes`, and those beyond `hp.n_per_class`, are excluded here.
            Images that are already on `device` are not copied; for a CPU that includes a memory-mapped file.
        val: images that are scored after each epoch; None to train to the last epoch without a score.
        seed: of this run; decides initial weights, sampling, augmentation and dropout.
        device: holds the model and all images.
        checkpoint: where the run's state is saved; None to save nothing. When `fit` returns or raises, a save may still
            be in progress: then `wait` for it, or `finish` or `discard` it.
        on_epoch: called after each epoch; on resuming, first with every epoch of the checkpoint. May raise to end the
            run.
        on_step: called after each micro-batch with (images trained so far, images in this epoch). May raise to end the
            run.
        on_sampling: called once before the first epoch with a JSON-safe record: `n_train` images, `n_cleaned` of them
            removed as Tomek links, `features_sha256` of the features that neighbours were found by, and `fallback`, the
            reason why adasyn draws uniformly. The last two may be None.
        score: the validation metric that the run is judged by.
        at: the epoch that weights, score and probabilities are taken from: the last one, after all epochs, or the one
            with the best `hp.monitor`, which also stops the run early.
        stop_epoch: end after this epoch, without shortening the schedule of `hp.epochs`.
        save_at: epochs whose state is in the checkpoint store before `on_epoch` is called. Of the others, the last one
            is saved, and those at which `CheckpointWriter.is_due`; a copy of the others may stay in memory, for
            `CheckpointWriter.save_kept`.

    Raises:
        Diverged: a loss, a logit or a weight is not finite at the end of an epoch.
        ValueError: hp is not resolved, or the checkpoint is of another run.
        UsageError: the model cannot be built, no image is left, or a class has fewer than `hp.n_per_class`.
        StorageError: the checkpoint cannot be written.
    """
    with reproducible(hp, device):
        n_epochs = stop_epoch or hp.epochs
        run = _Run(hp, train, val, seed=seed, device=device, score=score, at=at, n_epochs=n_epochs)
        if on_sampling:
            on_sampling(run.sampling_record())
        run.start(checkpoint.load() if checkpoint else None)
        for result in run.history:
            on_epoch(result)
        while run.stopped is None:
            result = run.next_epoch(on_step)
            if checkpoint:
                if checkpoint.is_due() or run.stopped or result.epoch in save_at:
                    checkpoint.save(run.state(), epoch=result.epoch, is_last=run.stopped is not None)
                else:
                    checkpoint.keep(run.state(), epoch=result.epoch)
                if result.epoch in save_at:
                    checkpoint.wait()
            on_epoch(result)
        return run.result()


class _Run:
    """The state of a run that changes from epoch to epoch, and its images."""

    def __init__(
        self,
        hp: Hyperparameters,
        train: ImageSet,
        val: ImageSet | None,
        *,
        seed: int,
        device: torch.device,
        score: Score,
        at: At,
        n_epochs: int,
    ) -> None:
        if unresolved := [name for name in PROBED if getattr(hp, name) == "auto"]:
            raise ValueError(f"{', '.join(unresolved)}: not resolved")
        self.hp, self.seed, self.device, self.n_epochs = hp, seed, device, n_epochs
        labels, votes = train.labels.cpu().numpy(), train.votes.cpu().numpy()
        self.kept = training_indices(hp, votes=votes, labels=labels, names=train.names)
        self.score, self.at = score, at
        self.monitor = f"val_{score if hp.monitor == 'score' else hp.monitor}"
        self.train = train.to(device)
        targets = train.labels if hp.labels == "majority" else train.votes.float() / N_ANNOTATORS
        self.targets = targets.to(device, non_blocking=True)
        self.sampling = prepare(
            hp.sampling, labels[self.kept], votes[self.kept], lambda: image_features(self.train.images)[self.kept]
        )
        self.val = None if val is None else val.to(device)
        self.val_labels = None if val is None else val.labels.cpu().double()
        self.statistics = statistics_on(device, hp)
        self.history: list[EpochResult] = []
        self.best_weights: dict[str, Tensor] = {}

    def start(self, saved: Mapping[str, Any] | None) -> None:
        """Build the model: new, or as it was after the last saved epoch."""
        torch.manual_seed(_derive(self.seed, 0, _INIT))
        # A saved model needs neither a download nor the weight file.
        hp = weight_files.without(self.hp) if saved else self.hp
        self.model = ready(create_model(hp), hp, self.device)
        self.stepper = Stepper(self.model, self.hp)
        self.scheduler = build_scheduler(self.stepper.optimizer, self.hp)
        if not saved:
            return
        # A checkpoint may be older than a hyperparameter. The default of a new one keeps the behaviour from before.
        known = {name: field.default for name, field in FIELDS.items() if name in self._identity()["hyperparameters"]}
        identity = {**saved["identity"], "hyperparameters": _plain({**known, **saved["identity"]["hyperparameters"]})}
        if identity != self._identity():
            raise ValueError(f"the checkpoint is of another run: {saved['identity']} instead of {self._identity()}")
        self.model.load_state_dict(saved["model"])
        moments = {int(index): moment for index, moment in saved["optimizer"]["state"].items()}
        self.stepper.optimizer.load_state_dict({**saved["optimizer"], "state": moments})
        if scaler := saved.get("scaler"):  # empty except in fp16; missing in checkpoints from before fp16
            self.stepper.scaler.load_state_dict(scaler)
        self.scheduler.load_state_dict(saved["scheduler"])
        self.history = [result_from(item) for item in saved["history"]]
        if self.at == "best":
            weights = saved["best_model"] or saved["model"]
            self.best_weights = {name: tensor.to(self.device) for name, tensor in weights.items()}

    def state(self) -> dict[str, Any]:
        """Return what `start` needs to resume after the last epoch, as dicts, lists, plain values and tensors."""
        last = self.history[-1]
        optimizer = self.stepper.optimizer.state_dict()
        return {
            "identity": self._identity(),
            "model": self.model.state_dict(),
            "best_model": None if last.best_epoch == last.epoch else self.best_weights,
            "optimizer": {**optimizer, "state": {str(index): item for index, item in optimizer["state"].items()}},
            "scaler": self.stepper.scaler.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "history": [result_to(result) for result in self.history],
        }

    @property
    def stopped(self) -> Literal["epochs", "patience"] | None:
        """Why the run has ended; None while it has not."""
        if not self.history:
            return None
        last = self.history[-1]
        if last.epoch >= self.n_epochs:
            return "epochs"
        return "patience" if last.epoch - last.best_epoch >= self.hp.patience else None

    def result(self) -> FitResult:
        last = self.history[-1]
        assert self.stopped is not None
        is_last = self.val is None or self.at == "last"
        weights = self.model.state_dict() if is_last else self.best_weights
        return FitResult(self.history, last.best_epoch, last.best_score, weights, self.stopped)

    def next_epoch(self, on_step: Callable[[int, int], None]) -> EpochResult:
        """Train one epoch, validate it, and append it to the history."""
        started = time.perf_counter()
        epoch = len(self.history) + 1
        best_score = self.history[-1].best_score if self.history else None
        best_epoch = self.history[-1].best_epoch if self.history else 0
        learning_rate = current_learning_rate(self.stepper.optimizer)
        spent_j = power.energy_j(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        n_images, train_loss = self._train_epoch(epoch, on_step)
        self.scheduler.step()
        trained_s = time.perf_counter() - started
        metrics: dict[str, float | None] = {"train_loss": train_loss}
        probabilities = None
        if self.val is None or self.val_labels is None:
            best_epoch = epoch
        else:
            logits = evaluate(self.model, self.val, self.hp).cpu()
            if not bool(logits.isfinite().all()):
                raise Diverged(epoch, "a validation logit is not finite")
            val_probabilities = probabilities_of(logits)
            metrics["val_loss"] = float(F.binary_cross_entropy_with_logits(logits, self.val_labels))
            for name, value in binary_metrics(val_probabilities, self.val_labels).items():
                metrics[f"val_{name}"] = None if math.isnan(value) else value
            if self._is_best(metrics, best_epoch):
                best_score, best_epoch = metrics[f"val_{self.score}"], epoch
                probabilities = val_probabilities.numpy()
                if self.at == "best":
                    self.best_weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        metrics["learning_rate"] = learning_rate
        metrics["effective_weight_decay"] = effective_weight_decay(self.hp, learning_rate)
        metrics["elapsed_s"] = elapsed_s = time.perf_counter() - started
        metrics["images_per_s"] = n_images / trained_s
        metrics["peak_memory_bytes"] = _peak_memory_bytes(self.device)
        if spent_j is not None:
            metrics["power_w"] = power.mean_w(self.device, since_j=spent_j, elapsed_s=elapsed_s)
        result = EpochResult(epoch, metrics, probabilities, best_score, best_epoch)
        self.history.append(result)
        return result

    def _is_best(self, metrics: Mapping[str, float | None], best_epoch: int) -> bool:
        """Return whether an epoch with these metrics replaces the best one so far, which is 0 before the first."""
        if self.at == "last" or best_epoch == 0:
            return True
        return self._monitored(metrics) > self._monitored(self.history[best_epoch - 1].metrics)

    def _monitored(self, metrics: Mapping[str, float | None]) -> float:
        """Return the number that is highest in the best epoch; an undefined AUROC is below every other."""
        value = metrics[self.monitor]
        if value is None:
            return -math.inf
        return -value if self.hp.monitor == "loss" else value

    def _train_epoch(self, epoch: int, on_step: Callable[[int, int], None]) -> tuple[int, float]:
        """Train one epoch; return its number of images and their mean loss. Waits for the device once, at the end."""
        hp, device = self.hp, self.device
        epoch_draw = self.sampling.draw(seed=self.seed, epoch=epoch)
        order = self.kept[epoch_draw.indices]
        n_images = len(order)
        generator = torch.Generator().manual_seed(_derive(self.seed, epoch, _AUGMENTATION))
        height, width = self.train.pixels.shape[-2:]
        is_new = torch.from_numpy(epoch_draw.is_new)
        augmentation = draw(hp, is_new, generator, height=height, width=width).to(device)
        places = torch.from_numpy(order).to(self.train.pixels.device, non_blocking=True)
        targets = self.targets[places.to(device, non_blocking=True)]
        torch.manual_seed(_derive(self.seed, epoch, _DROPOUT))
        loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        set_training(self.model)
        for update in self.stepper.updates(n_images):
            n_in_update = update[-1].stop - update[0].start
            for part in update:
                images = augmentation.apply(self.train.at(places[part]).to(device, non_blocking=True), part)
                loss_sum += self.stepper.add(normalize_(images, *self.statistics), targets[part], n_in_update)
                on_step(part.stop, n_images)
            self.stepper.update()
        # A gradient that is not finite makes weights not finite, so checking the weights checks both.
        weights_norm = get_total_norm(list(self.model.parameters()))
        mean_loss, norm = torch.stack([loss_sum / n_images, weights_norm.double()]).tolist()
        if not math.isfinite(mean_loss):
            raise Diverged(epoch, f"the training loss became {mean_loss}")
        if not math.isfinite(norm):
            raise Diverged(epoch, "a weight is not finite")
        return n_images, mean_loss

    def sampling_record(self) -> dict[str, Any]:
        """Return the record for `on_sampling`; see `fit`."""
        return {
            "n_train": len(self.kept),
            "n_cleaned": len(self.kept) - len(self.sampling.kept),
            "features_sha256": self.sampling.features_sha256,
            "fallback": self.sampling.fallback,
        }

    def _identity(self) -> dict[str, Any]:
        """Return what a checkpoint must agree with to be of this run.

        Weight files and `compile` are left out: a checkpoint resumes without the weight file, compiled or not.
        """
        hp = weight_files.without(self.hp).to_dict()
        del hp["weights"], hp["compile"]
        if not self.stepper.is_coupled:
            del hp["micro_batch_size"]
        n_val = 0 if self.val_labels is None else len(self.val_labels)
        return {"hyperparameters": hp, "seed": self.seed, "n_train": len(self.kept), "n_val": n_val}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _derive(seed: int, epoch: int, purpose: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, purpose]).generate_state(1, np.uint64)[0] >> 1)


def _peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
