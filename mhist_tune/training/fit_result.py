"""The result of an epoch and of a run, and the exception of a run that diverged."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mhist_tune.arrays import FloatArray


class Diverged(Exception):
    """A loss, a logit or a weight is not finite at the end of `epoch`."""

    def __init__(self, epoch: int, message: str) -> None:
        super().__init__(f"{message} in epoch {epoch}")
        self.epoch = epoch


@dataclass(frozen=True, eq=False)
class EpochResult:
    """One finished epoch.

    Attributes:
        epoch: 1-based.
        metrics: train_loss (mean per image), learning_rate, effective_weight_decay, elapsed_s (with validation),
            images_per_s (of training), peak_memory_bytes (of the device; of the process on a CPU), power_w (only of a
            GPU whose energy is counted) and, with validation, val_loss, val_mean_f1, val_f1, val_auroc (None with one
            class only), the standard error of each of the three (such as val_auroc_standard_error; None where the
            score is 0 or 1), val_precision, val_recall, val_specificity, val_accuracy.
        probabilities: float64 [n_val] of this epoch if it is `best_epoch`, else None.
        best_score: the score of `best_epoch`, also if `hp.monitor` is another metric; None without validation.
        best_epoch: the epoch that the run would be judged by if it ended here. With `at` = "best" it is the one with
            the best `hp.monitor`, of equal ones the first; with "last" and without validation it is this epoch.
    """

    epoch: int
    metrics: dict[str, float | None]
    probabilities: FloatArray | None
    best_score: float | None
    best_epoch: int


@dataclass(eq=False)
class FitResult:
    """A finished run.

    Attributes:
        history: the result of every epoch.
        best_epoch, best_score: as in the last `EpochResult`.
        state_dict: the weights of `best_epoch`, on the device.
        stopped: why the run ended.
    """

    history: list[EpochResult]
    best_epoch: int
    best_score: float | None
    state_dict: dict[str, Tensor]
    stopped: Literal["epochs", "patience"]


def result_to(result: EpochResult) -> dict[str, Any]:
    """Return a result as plain values and tensors, for a checkpoint; `result_from` reverses it."""
    plain = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    has_any = result.probabilities is not None
    plain["best_value"] = plain.pop("best_score")  # its name in checkpoints since the first release
    return {**plain, "probabilities": torch.from_numpy(result.probabilities) if has_any else None}


def result_from(plain: Mapping[str, Any]) -> EpochResult:
    """Return the result that `result_to` wrote. Further fields, from an older version, are ignored."""
    fields = {**plain, "best_score": plain["best_value"]}
    known = {field.name: fields[field.name] for field in dataclasses.fields(EpochResult)}
    probabilities = plain["probabilities"]
    return EpochResult(**{**known, "probabilities": None if probabilities is None else probabilities.numpy()})
