"""The validation metrics of an epoch. Only probabilities of the positive class are accepted.

Two mistakes are refused because torchmetrics would accept them. With predicted classes (0 or 1), AUROC is the mean of
recall and specificity. With logits, torchmetrics applies a sigmoid only to batches that leave the range 0..1.
"""

import math

import torch
from torch import Tensor

from mhist_tune.mhist import THRESHOLD
from mhist_tune.statistics import auroc
from mhist_tune.statistics.mean_f1 import mean_f1


def binary_metrics(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Return mean_f1, f1 and auroc with their standard errors, precision, recall, specificity and accuracy, each 0..1.

    A probability above `THRESHOLD` (0.5) is called positive, except in auroc, which has no threshold, and in mean_f1
    (see `statistics.mean_f1`), which has nine. A ratio with a denominator of 0 is 0. auroc is exact (no binning), and
    NaN if only one class is present. A standard error is NaN if its score is 0 or 1.

    Args:
        probabilities: float [n] in 0..1, of label 1.
        labels: [n], 0 or 1.

    Raises:
        ValueError: `probabilities` holds classes or logits, or the sizes differ or are 0.
    """
    from torchmetrics.functional import classification as functional  # takes two seconds: not before the first step

    if probabilities.shape != labels.shape or probabilities.ndim != 1 or len(labels) == 0:
        raise ValueError(
            f"expected two vectors of the same size, got {list(probabilities.shape)} and {list(labels.shape)}"
        )
    if not probabilities.is_floating_point():
        raise ValueError(f"expected probabilities, got {probabilities.dtype}: classes have no ranking")
    if not bool(((probabilities >= 0) & (probabilities <= 1)).all()):
        raise ValueError("expected probabilities in 0..1, got logits or NaN: apply a sigmoid first")
    if bool(((probabilities == 0) | (probabilities == 1)).all()):
        raise ValueError("expected probabilities, got only 0.0 and 1.0: these are classes, they have no ranking")
    targets = labels.long()
    metric_of = {
        "f1": functional.binary_f1_score,
        "precision": functional.binary_precision,
        "recall": functional.binary_recall,
        "specificity": functional.binary_specificity,
        "accuracy": functional.binary_accuracy,
    }
    metrics = {name: float(metric(probabilities, targets, threshold=THRESHOLD)) for name, metric in metric_of.items()}
    n_positive, n_called_positive = int(targets.sum()), int((probabilities > THRESHOLD).sum())
    metrics["f1_standard_error"] = f1_standard_error(metrics["f1"], n_positive + n_called_positive)
    mean = mean_f1(targets.cpu().numpy(), probabilities.cpu().numpy())
    metrics["mean_f1"], metrics["mean_f1_standard_error"] = mean.value, mean.standard_error
    if torch.unique(targets).numel() == 2:
        metrics["auroc"] = float(functional.binary_auroc(probabilities, targets, thresholds=None))
    else:
        metrics["auroc"] = math.nan
    metrics["auroc_standard_error"] = auroc.standard_error(targets.cpu().numpy(), probabilities.cpu().numpy())
    return metrics


def f1_standard_error(f1: float, n_counted: int) -> float:
    """Return the standard error of an F1 over independent images, by the delta method; NaN if F1 is 0 or 1.

    F1 is 2 TP / n_counted, and TP, FP and FN are counts of a multinomial sample. The delta method then gives the
    variance F1 (1 - F1) (2 - F1) / n_counted, which is the formula of Takahashi et al. (2022) for binary F1, rewritten.

    Args:
        f1: 0..1.
        n_counted: 2 TP + FP + FN, the number of positive images plus the number of images called positive.
    """
    return math.sqrt(f1 * (1 - f1) * (2 - f1) / n_counted) if 0 < f1 < 1 else math.nan
