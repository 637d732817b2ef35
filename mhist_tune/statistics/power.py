"""Power of the primary test before anything is trained, under assumptions that are stated.

The test images are taken as independent. Scores of the two classes are normal with equal variances.
"""

import numpy as np
from scipy import stats

from mhist_tune.statistics.paired import POWER

CORRELATION = 0.76
"""Supposed correlation of two models' AUROCs over draws of test images. Models that share 60% of the variance of an
image's score have about this: simulated, they are told apart as often as computed here."""
SEED_DEVIATION = 0.004
"""Supposed standard deviation of AUROC over seeds: .0041 of ViT-B/16 in the method report, .004 of ResNet-18 in the
MHIST paper."""
_ALPHA = 0.05


def power(first: float, second: float, *, n_ssa: int, n_hp: int, n_seeds: int) -> float:
    """Return the probability that the primary test finds a difference of two true AUROCs at the 5% level.

    Args:
        first, second: the AUROCs, above 0.5 and below 1.
        n_ssa: number of SSA test images.
        n_hp: number of HP test images.
        n_seeds: of each model.

    >>> round(power(0.94, 0.93, n_ssa=360, n_hp=617, n_seeds=10), 2)
    0.42
    """
    ratio = abs(first - second) / _standard_error(first, second, n_ssa, n_hp, n_seeds)
    limit = stats.norm.isf(_ALPHA / 2)
    return float(stats.norm.sf(limit - ratio) + stats.norm.cdf(-limit - ratio))


def detectable(auroc: float, *, n_ssa: int, n_hp: int, n_seeds: int) -> float:
    """Return the difference from a true AUROC that the primary test finds with a probability of 80%."""
    limit = float(stats.norm.isf(_ALPHA / 2) + stats.norm.ppf(POWER))
    return limit * _standard_error(auroc, auroc, n_ssa, n_hp, n_seeds)


def sentence(n_ssa: int, n_hp: int, n_seeds: int) -> str:
    """Return what a comparison on such a test partition can show, in one sentence."""
    smallest = detectable(0.93, n_ssa=n_ssa, n_hp=n_hp, n_seeds=n_seeds)
    chance = power(0.94, 0.93, n_ssa=n_ssa, n_hp=n_hp, n_seeds=n_seeds)
    return (
        f"with {n_ssa} SSA and {n_hp} HP test images and {n_seeds} seeds the primary test finds AUROC .94 against .93 "
        f"with a probability of {chance:.0%}, and from a difference of about {smallest:.3f} on with 80%"
    )


def _standard_error(first: float, second: float, n_ssa: int, n_hp: int, n_seeds: int) -> float:
    """Return the standard error of the difference of two seed-mean AUROCs on the same images."""
    variances = [_variance(auroc, n_ssa, n_hp) for auroc in (first, second)]
    of_images = sum(variances) - 2 * CORRELATION * float(np.sqrt(np.prod(variances)))
    return float(np.sqrt(of_images + 2 * SEED_DEVIATION**2 / n_seeds))


def _variance(auroc: float, n_ssa: int, n_hp: int) -> float:
    """Return the variance of an AUROC over draws of images (Hanley and McNeil, 1982, with exact binormal terms)."""
    distance = float(stats.norm.ppf(auroc))
    # The probability that two images of one class are both ordered correctly against one of the other.
    both = float(stats.multivariate_normal.cdf([distance, distance], mean=[0, 0], cov=[[1, 0.5], [0.5, 1]]))
    return (auroc * (1 - auroc) + (n_ssa + n_hp - 2) * (both - auroc**2)) / (n_ssa * n_hp)
