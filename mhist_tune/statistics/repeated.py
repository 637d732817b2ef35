"""The mean of a difference over repeated cross-validations of the same images, with an interval."""

import math
from dataclasses import dataclass

import numpy as np

from mhist_tune.arrays import FloatArray


@dataclass(frozen=True)
class RepeatedMean:
    """A mean over repetitions, its standard error and 95% interval."""

    estimate: float
    se: float
    ci95: tuple[float, float]


def corrected(differences: FloatArray, correction: float = 0.0) -> RepeatedMean:
    """Return the mean difference of two models over repetitions of cross-validation, with the corrected t interval.

    The repetitions use the same images, and models of different folds share training images, so the differences are
    not independent. Nadeau and Bengio (Machine Learning 52, 2003) add the ratio of test to training images to 1 / n in
    the variance of the mean; Bouckaert and Frank (2004) do it for r repetitions of k folds: the variance of the
    differences times 1 / (r k) + 1 / (k - 1), with r k - 1 degrees of freedom.

    Args:
        differences: in each fold of each repetition, [r, k]; at least two folds.
        correction: added to the estimate and to both ends, such as for a bias.
    """
    from scipy import stats

    n, n_folds = differences.size, differences.shape[1]
    se = math.sqrt(float(np.var(differences, ddof=1)) * (1 / n + 1 / (n_folds - 1)))
    centre, half = float(differences.mean()) + correction, float(stats.t.ppf(0.975, n - 1)) * se
    return RepeatedMean(centre, se, (centre - half, centre + half))
