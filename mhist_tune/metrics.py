"""Metrics of one set of predictions, through torchmetrics, on probabilities of the positive class only.

Two traps are closed here. Hard 0/1 predictions make AUROC the mean of recall and specificity. Logits make torchmetrics
apply a sigmoid to some batches and not to others, depending on whether a batch happens to lie inside 0..1.
"""

import math

import torch
from torch import Tensor

THRESHOLD = 0.5


def binary_metrics(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Return f1 with f1_standard_error, precision, recall, specificity, accuracy and auroc, each 0..1.

    All but auroc count a probability above 0.5 as positive; a ratio without a denominator is 0. auroc is exact (no
    binning) and NaN where only one class is present; so is the standard error where F1 is 0 or 1.

    Args:
        probabilities: float [n] in 0..1, of label 1.
        labels: [n], 0 or 1.

    Raises:
        ValueError: if the first argument holds classes or logits instead of probabilities, or the sizes differ.
    """
    from torchmetrics.functional import classification as functional  # two seconds that a first step need not wait for

    if probabilities.shape != labels.shape or probabilities.ndim != 1 or len(labels) == 0:
        raise ValueError(f"expected two vectors of one size, got {list(probabilities.shape)} and {list(labels.shape)}")
    if not probabilities.is_floating_point():
        raise ValueError(f"expected probabilities, got {probabilities.dtype}: classes have no ranking")
    if not bool(((probabilities >= 0) & (probabilities <= 1)).all()):
        raise ValueError("expected probabilities in 0..1, got logits or NaN: apply a sigmoid first")
    if bool(((probabilities == 0) | (probabilities == 1)).all()):
        raise ValueError("expected probabilities, got only 0.0 and 1.0: these are classes, they have no ranking")
    targets = labels.long()
    counted = {
        "f1": functional.binary_f1_score,
        "precision": functional.binary_precision,
        "recall": functional.binary_recall,
        "specificity": functional.binary_specificity,
        "accuracy": functional.binary_accuracy,
    }
    metrics = {name: float(metric(probabilities, targets, threshold=THRESHOLD)) for name, metric in counted.items()}
    n_counted = int(targets.sum()) + int((probabilities > THRESHOLD).sum())
    metrics["f1_standard_error"] = f1_standard_error(metrics["f1"], n_counted)
    if torch.unique(targets).numel() == 2:
        metrics["auroc"] = float(functional.binary_auroc(probabilities, targets, thresholds=None))
    else:
        metrics["auroc"] = math.nan
    return metrics


def f1_standard_error(f1: float, n_counted: int) -> float:
    """Return the standard error of an F1 over independent images, by the delta method; NaN where F1 is 0 or 1.

    F1 = 2 TP / n_counted, with TP, FP and FN a part of a multinomial sample, gives the variance
    F1 (1 - F1) (2 - F1) / n_counted (as Takahashi et al. 2022 for binary F1, rewritten).

    Args:
        f1: 0..1.
        n_counted: 2 TP + FP + FN, the positive images and those that were called positive.
    """
    return math.sqrt(f1 * (1 - f1) * (2 - f1) / n_counted) if 0 < f1 < 1 else math.nan
