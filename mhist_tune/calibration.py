"""Decision threshold and recalibration, both fixed on images that the model was not trained on and that are not test.

Shapes: `n` images, labels 0 (HP) or 1 (SSA), probabilities of SSA of any shape where they are only mapped.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from mhist_tune.arrays import FloatArray
from mhist_tune.mhist import THRESHOLD
from mhist_tune.statistics import checked

_CERTAIN = 1e-7
"""Probabilities nearer than this to 0 or 1 are taken for that far away: a logit is finite."""


@dataclass(frozen=True)
class Recalibration:
    """The map logit(p) -> slope * logit(p) + intercept; a slope below 1 takes back overconfidence."""

    slope: float
    intercept: float

    def apply(self, probabilities: npt.ArrayLike) -> FloatArray:
        """Return the recalibrated probabilities, of the same shape and, for a positive slope, in the same order."""
        return _sigmoid(self.slope * _logit(probabilities) + self.intercept)


@dataclass(frozen=True)
class ReliabilityBin:
    """Images of similar probability: how many, their mean probability, and the share of them that is SSA."""

    n_images: int
    probability: float
    share: float


def f1_threshold(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Return the threshold with the highest F1; of equally good ones the nearest to 0.5.

    It lies halfway between two neighbouring probabilities, so that it does not hang on one image's last digit.

    Args:
        labels: [n], 0 or 1, with at least one 1.
        probabilities: [n], in 0..1.

    Raises:
        ValueError: as `statistics.metrics_of`, or without an SSA image F1 has no best threshold.
    """
    positive, table = checked(labels, np.asarray(probabilities, dtype=np.float64)[None])
    if not positive.any():
        raise ValueError("F1 has no best threshold without an SSA image")
    values = np.unique(table[0])
    thresholds = np.concatenate([[values[0] / 2], (values[1:] + values[:-1]) / 2])
    called = table[0] > thresholds[:, None]
    tp = (called & positive).sum(axis=1)
    f1 = 2 * tp / (called.sum(axis=1) + positive.sum())
    best = thresholds[np.isclose(f1, f1.max(), rtol=0, atol=1e-12)]
    return float(best[np.argmin(np.abs(best - THRESHOLD))])


def platt(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Recalibration:
    """Fit a recalibration: logistic regression of the labels on the logits, unpenalized (Platt, 1999).

    Platt's targets, (n1 + 1) / (n1 + 2) and 1 / (n0 + 2) instead of 1 and 0, keep it finite where a threshold
    separates the classes.

    Args:
        labels: [n], 0 or 1, both present.
        probabilities: [n], in 0..1.

    Raises:
        ValueError: as `statistics.metrics_of`, or one class is absent.
    """
    positive, table = checked(labels, np.asarray(probabilities, dtype=np.float64)[None])
    n_positive = int(positive.sum())
    n_negative = positive.size - n_positive
    if not n_positive or not n_negative:
        raise ValueError("recalibration needs images of both classes")
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    logits = _logit(table[0])[:, None]
    # A soft target is two images of opposite labels that share one weight.
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
    model.fit(
        np.concatenate([logits, logits]),
        np.repeat([1, 0], positive.size),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    return Recalibration(slope=float(model.coef_[0, 0]), intercept=float(model.intercept_[0]))


def correct_prior(probabilities: npt.ArrayLike, *, fitted_on: float, applied_to: float) -> FloatArray:
    """Move probabilities from one share of SSA to another by Bayes' rule, a constant step of the logits.

    It holds where the images of each class are alike in both sets (label shift; Saerens et al., 2002).

    Args:
        probabilities: in 0..1, calibrated where the share is `fitted_on`.
        fitted_on: a share of SSA, between 0 and 1.
        applied_to: another.

    Raises:
        ValueError: a share is not between 0 and 1.
    """
    if not (0 < fitted_on < 1 and 0 < applied_to < 1):
        raise ValueError(f"shares of SSA lie between 0 and 1, got {fitted_on} and {applied_to}")
    step = np.log(applied_to / (1 - applied_to)) - np.log(fitted_on / (1 - fitted_on))
    return _sigmoid(_logit(probabilities) + step)


def reliability(labels: npt.ArrayLike, probabilities: npt.ArrayLike, n_bins: int = 10) -> list[ReliabilityBin]:
    """Return up to `n_bins` bins of (nearly) as many images each, from the lowest probability to the highest.

    Args:
        labels: [n], 0 or 1.
        probabilities: [n], in 0..1.
        n_bins: at least 1; no bin is empty.
    """
    positive, table = checked(labels, np.asarray(probabilities, dtype=np.float64)[None])
    order = np.argsort(table[0], kind="stable")
    return [
        ReliabilityBin(len(one), float(table[0, one].mean()), float(positive[one].mean()))
        for one in np.array_split(order, min(n_bins, positive.size))
    ]


def _logit(probabilities: npt.ArrayLike) -> FloatArray:
    p = np.clip(np.asarray(probabilities, dtype=np.float64), _CERTAIN, 1 - _CERTAIN)
    logits: FloatArray = np.log(p) - np.log1p(-p)
    return logits


def _sigmoid(logits: FloatArray) -> FloatArray:
    probabilities: FloatArray = 1 / (1 + np.exp(-logits))
    return probabilities
