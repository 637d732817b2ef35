"""Decision threshold and recalibration of probabilities. Both are fitted on images outside training and test.

Shapes: `n` images. Labels are 0 (HP) or 1 (SSA), probabilities are those of SSA. Functions that only map probabilities
accept any shape.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from mhist_tune.arrays import FloatArray
from mhist_tune.mhist import THRESHOLD
from mhist_tune.statistics.binary_metrics import checked

_CERTAIN = 1e-7
"""Probabilities are clipped to this distance from 0 and 1, so that their logits are finite."""


@dataclass(frozen=True)
class Recalibration:
    """The map logit(p) -> slope * logit(p) + intercept.

    A slope below 1 corrects overconfidence. A slope that is not positive would turn the order of the images round,
    which is no recalibration.
    """

    slope: float
    intercept: float

    @property
    def keeps_order(self) -> bool:
        """Whether images keep their order."""
        return self.slope > 0

    def apply(self, probabilities: npt.ArrayLike) -> FloatArray:
        """Return the recalibrated probabilities, of the same shape and, for a positive slope, in the same order."""
        return _sigmoid(self.slope * logit(probabilities) + self.intercept)


@dataclass(frozen=True)
class ReliabilityBin:
    """Images of similar probability.

    Attributes:
        n_images: number of images.
        probability: their mean probability of SSA, 0..1.
        share: share of them that is SSA, 0..1.
    """

    n_images: int
    probability: float
    share: float


def f1_threshold(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Return the threshold with the highest F1; of several, the nearest to 0.5.

    It lies halfway between two neighbouring probabilities, so that rounding of a probability does not change a class.

    Args:
        labels: [n], 0 or 1, with at least one 1.
        probabilities: [n], in 0..1.

    Raises:
        ValueError: as `statistics.metrics_of`, or no image is SSA.
    """
    positive, of_one_model = checked(labels, np.asarray(probabilities, dtype=np.float64)[None])
    if not positive.any():
        raise ValueError("F1 has no best threshold without an SSA image")
    values = np.unique(of_one_model[0])
    thresholds = np.concatenate([[values[0] / 2], (values[1:] + values[:-1]) / 2])
    called = of_one_model[0] > thresholds[:, None]
    tp = (called & positive).sum(axis=1)
    f1 = 2 * tp / (called.sum(axis=1) + positive.sum())
    best = thresholds[np.isclose(f1, f1.max(), rtol=0, atol=1e-12)]
    return float(best[np.argmin(np.abs(best - THRESHOLD))])


def platt(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Recalibration:
    """Fit a recalibration by logistic regression of the labels on the logits, without penalty (Platt, 1999).

    The targets are Platt's, (n1 + 1) / (n1 + 2) and 1 / (n0 + 2) instead of 1 and 0, for n1 SSA and n0 HP images. With
    them the fit is finite even if a threshold separates the classes.

    Args:
        labels: [n], 0 or 1, both present.
        probabilities: [n], in 0..1.

    Raises:
        ValueError: as `statistics.metrics_of`, or one class is absent.
    """
    positive, of_one_model = checked(labels, np.asarray(probabilities, dtype=np.float64)[None])
    n_positive = int(positive.sum())
    n_negative = positive.size - n_positive
    if not n_positive or not n_negative:
        raise ValueError("recalibration needs images of both classes")
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    logits = logit(of_one_model[0])[:, None]
    # scikit-learn takes no soft targets: each image is given twice, with both labels, and its target as the weights.
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
    model.fit(
        np.concatenate([logits, logits]),
        np.repeat([1, 0], positive.size),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    return Recalibration(slope=float(model.coef_[0, 0]), intercept=float(model.intercept_[0]))


def correct_prior(probabilities: npt.ArrayLike, *, fitted_on: float, applied_to: float) -> FloatArray:
    """Adapt probabilities to another share of SSA by Bayes' rule, which adds a constant to their logits.

    It assumes that the images of each class are alike in both sets (label shift; Saerens et al., 2002).

    Args:
        probabilities: in 0..1, of any shape, calibrated for images of which `fitted_on` are SSA.
        fitted_on: share of SSA, above 0 and below 1.
        applied_to: share of SSA among the images that the result is for, above 0 and below 1.

    Returns:
        Probabilities of the same shape.

    Raises:
        ValueError: a share is not between 0 and 1.
    """
    if not (0 < fitted_on < 1 and 0 < applied_to < 1):
        raise ValueError(f"shares of SSA lie between 0 and 1, got {fitted_on} and {applied_to}")
    step = np.log(applied_to / (1 - applied_to)) - np.log(fitted_on / (1 - fitted_on))
    return _sigmoid(logit(probabilities) + step)


def reliability(labels: npt.ArrayLike, probabilities: npt.ArrayLike, n_bins: int = 10) -> list[ReliabilityBin]:
    """Return bins with nearly equal numbers of images, ordered by probability. No bin is empty.

    Args:
        labels: [n], 0 or 1.
        probabilities: [n], in 0..1.
        n_bins: number of bins, at least 1; with fewer images there are fewer bins.

    Raises:
        ValueError: as `statistics.metrics_of`.
    """
    positive, of_one_model = checked(labels, np.asarray(probabilities, dtype=np.float64)[None])
    order = np.argsort(of_one_model[0], kind="stable")
    return [
        ReliabilityBin(len(indices), float(of_one_model[0, indices].mean()), float(positive[indices].mean()))
        for indices in np.array_split(order, min(n_bins, positive.size))
    ]


def logit(probabilities: npt.ArrayLike) -> FloatArray:
    """Return the logits of probabilities of any shape; those of 0 and 1 are finite."""
    p = np.clip(np.asarray(probabilities, dtype=np.float64), _CERTAIN, 1 - _CERTAIN)
    logits: FloatArray = np.log(p) - np.log1p(-p)
    return logits


def _sigmoid(logits: FloatArray) -> FloatArray:
    probabilities: FloatArray = 1 / (1 + np.exp(-logits))
    return probabilities
