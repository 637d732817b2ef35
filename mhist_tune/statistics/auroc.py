"""The standard error of one AUROC."""

import math

import numpy as np
import numpy.typing as npt

from mhist_tune.statistics.binary_metrics import checked


def standard_error(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Return the standard error of the AUROC of one model over independent images (DeLong et al., 1988).

    Each image has a component: the share of the images of the other class that it is ordered correctly against, where a
    tie counts half. The AUROC is the mean of the components of either class. Its variance is the sum over both classes
    of the variance of their components divided by their number.

    Args:
        labels: [n], 0 or 1.
        probabilities: [n], in 0..1.

    Returns:
        The standard error; NaN where the AUROC is 0 or 1, or where a class has fewer than two images.

    Raises:
        ValueError: as `binary_metrics.metrics_of`.
    """
    positive, of_one_model = checked(labels, np.atleast_1d(np.asarray(probabilities, dtype=np.float64))[None])
    ssa, hp = of_one_model[0, positive], of_one_model[0, ~positive]
    if min(ssa.size, hp.size) < 2:
        return math.nan
    of_ssa = _share_below(ssa, hp)
    if of_ssa.mean() in (0.0, 1.0):
        return math.nan
    of_hp = 1 - _share_below(hp, ssa)
    return math.sqrt(of_ssa.var(ddof=1) / ssa.size + of_hp.var(ddof=1) / hp.size)


def _share_below(probabilities: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return for each probability the share of `others` below it; an equal one counts half."""
    ordered = np.sort(others)
    n_below = np.searchsorted(ordered, probabilities, side="left") + np.searchsorted(
        ordered, probabilities, side="right"
    )
    share: npt.NDArray[np.float64] = n_below / (2 * others.size)
    return share
