"""Descriptive tests of two models on the same test images. They take the models, or the images, as given.

Shapes: `n` images. Labels are 0 (HP) or 1 (SSA). With groups, such as patients or slides, DeLong's and McNemar's tests
have versions for clustered data, with a t distribution, and no p-value where fewer than `MIN_GROUPS` groups hold a
class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from mhist_tune.arrays import FloatArray
from mhist_tune.statistics import groups as grouped
from mhist_tune.statistics.binary_metrics import checked
from mhist_tune.statistics.paired import MIN_GROUPS


@dataclass(frozen=True)
class DeLong:
    """The difference of two AUROCs on the same images, first minus second.

    Attributes:
        difference: first minus second.
        se: its standard error; None with too few groups, as is the p-value.
        p_value: two-sided.
    """

    difference: float
    se: float | None
    p_value: float | None


@dataclass(frozen=True)
class McNemar:
    """Images that only one of two classifiers calls correctly, and the two-sided p-value; None with too few groups."""

    only_first_right: int
    only_second_right: int
    p_value: float | None


def delong(
    labels: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike, *, groups: Sequence[str] | None = None
) -> DeLong:
    """Compare two AUROCs on the same images (DeLong et al., 1988, by the midranks of Sun and Xu, 2014).

    With groups the components are summed over each group first (Obuchowski, 1997). The standard error includes the
    uncertainty from the images only. The result holds for these two trained models, not for their methods.

    Args:
        labels: [n], 0 or 1, at least two of each.
        first, second: probabilities of each model, [n], in 0..1.
        groups: the patient or slide of each image, [n]; None where they are not known.

    Raises:
        ValueError: as `statistics.metrics_of`.
    """
    positive, pair = checked(labels, np.stack([np.asarray(first), np.asarray(second)]))
    n_positive = int(positive.sum())
    n_negative = positive.size - n_positive
    ranks = stats.rankdata(pair, axis=1)
    # For each image, the share of images of the other class that it is ordered correctly against; a tie counts half.
    of_positive = (ranks[:, positive] - stats.rankdata(pair[:, positive], axis=1)) / n_negative
    of_negative = 1 - (ranks[:, ~positive] - stats.rankdata(pair[:, ~positive], axis=1)) / n_positive
    difference = float(of_positive[0].mean() - of_positive[1].mean())
    components = np.empty(positive.size)
    components[positive] = (of_positive[0] - of_positive[1] - difference) / n_positive
    components[~positive] = (of_negative[0] - of_negative[1] - difference) / n_negative
    units = grouped.units_of(positive, groups)
    if groups is not None and units.n_rarer < MIN_GROUPS:
        return DeLong(difference, None, None)
    ssa, hp = (_sums(np.where(chosen, components, 0.0), units) for chosen in (positive, ~positive))
    variance = float(units.n_ssa / (units.n_ssa - 1) * ssa @ ssa + units.n_hp / (units.n_hp - 1) * hp @ hp)
    variance += float(2 * units.n / (units.n - 1) * ssa @ hp)
    se = max(0.0, variance) ** 0.5
    return DeLong(difference, se, _two_sided(difference, se, np.inf if groups is None else units.n_rarer - 1))


def wilcoxon(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test over seeds; 1 if all values are equal.

    The test treats the test images as fixed, so groups of images do not enter, and with ten seeds it rejects equal
    methods far too often.

    Args:
        first, second: the metric of each seed, as many seeds of one model as of the other.
    """
    if list(first) == list(second):
        return 1.0
    return float(stats.wilcoxon(first, second).pvalue)


def mcnemar(
    labels: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike, *, groups: Sequence[str] | None = None
) -> McNemar:
    """Compare two classifiers on the same images by McNemar's exact test.

    With groups it is a t test of the difference in accuracy, whose variance is that of sums over groups (Obuchowski,
    1998): images of one group are not wrong independently.

    Args:
        labels: [n], 0 or 1.
        first, second: bool [n], whether each calls an image SSA.
        groups: the patient or slide of each image, [n]; None where they are not known.
    """
    from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar

    truth = np.asarray(labels).astype(np.bool_)
    correct = [np.asarray(called).astype(np.bool_) == truth for called in (first, second)]
    only_first, only_second = int((correct[0] & ~correct[1]).sum()), int((correct[1] & ~correct[0]).sum())
    if groups is None:
        both, neither = int((correct[0] & correct[1]).sum()), int((~correct[0] & ~correct[1]).sum())
        p_value = float(exact_mcnemar([[both, only_first], [only_second, neither]], exact=True).pvalue)
        return McNemar(only_first, only_second, p_value)
    units = grouped.units_of(truth, groups)
    if units.n_rarer < MIN_GROUPS:
        return McNemar(only_first, only_second, None)
    gains = correct[0].astype(np.float64) - correct[1]
    sums = _sums(gains - gains.mean(), units)
    se = float(np.sqrt(units.n / (units.n - 1) * sums @ sums))
    return McNemar(only_first, only_second, _two_sided(only_first - only_second, se, units.n - 1))


def _sums(values: FloatArray, units: grouped.Units) -> FloatArray:
    """Return the sum of the values of each unit's images, [G]."""
    sums: FloatArray = np.bincount(units.of_image, weights=values, minlength=units.n).astype(np.float64)
    return sums


def _two_sided(difference: float, se: float, df: float) -> float:
    if se == 0:  # two models that are right and wrong alike
        return 1.0 if difference == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference) / se, df))
