"""F1 averaged over the thresholds 0.1, 0.2 ... 0.9, with its standard error.

F1 at one threshold depends on the few images near it. The mean over nine thresholds depends on all images, so it varies
less between samples, and it also measures how probabilities are spread.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mhist_tune.arrays import FloatArray
from mhist_tune.statistics.binary_metrics import checked, weighted_f1

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class MeanF1:
    """A mean F1 and its standard error over independent images, which is NaN if the mean is 0 or 1."""

    value: float
    standard_error: float


def mean_f1(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> MeanF1:
    """Return the mean F1 of one model.

    It is the unweighted mean of F1 at each of `THRESHOLDS`. As in F1 at 0.5, an image is called SSA if its probability
    is above (not at) the threshold, F1 is 2 TP / (2 TP + FP + FN), and it is 0 where that is 0 / 0.

    The standard error is the delete-one jackknife's: the square root of (n - 1) / n times the sum of squared deviations
    of the n means that leave out one image, from their mean.

    Args:
        labels: [n], 0 or 1.
        probabilities: [n], in 0..1.

    Raises:
        ValueError: as `binary_metrics.metrics_of`.
    """
    positive, of_one_model = checked(labels, np.atleast_1d(np.asarray(probabilities, dtype=np.float64))[None])
    n = positive.size
    value = float(weighted_mean_f1(positive, of_one_model, np.ones((1, n)))[0, 0])
    if not 0 < value < 1:
        return MeanF1(value, math.nan)
    called = of_one_model > np.array(THRESHOLDS)[:, None]
    tp, n_called = (called & positive).sum(axis=1), called.sum(axis=1)
    # [thresholds, n]: the counts without each image
    true = tp[:, None] - (called & positive)
    counted = n_called[:, None] - called + positive.sum() - positive
    without_one = np.divide(2 * true, counted, out=np.zeros(called.shape), where=counted > 0).mean(axis=0)
    deviations = without_one - without_one.mean()
    return MeanF1(value, math.sqrt((n - 1) / n * float(np.square(deviations).sum())))


def weighted_mean_f1(positive: npt.NDArray[np.bool_], probabilities: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the mean F1 of each model for each row of image weights, [B, S].

    Arguments are those of `binary_metrics.weighted_auroc`.
    """
    at_thresholds = [weighted_f1(positive, probabilities, weights, threshold) for threshold in THRESHOLDS]
    mean: FloatArray = np.mean(at_thresholds, axis=0)
    return mean
