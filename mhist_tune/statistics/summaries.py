"""Metrics over the seeds with their 95% intervals, and how these depend on images that are alike.

Shapes: `n` images, `S` seeds (one model each). Labels are 0 (HP) or 1 (SSA), probabilities are those of SSA.

Without groups, intervals are percentiles of the crossed bootstrap. With groups they are t intervals of a jackknife over
groups (`groups.variance`), on the logit scale, or the log scale for the log loss. Few errors or few correct calls are
too few for both. Such a metric has Wilson's interval on an effective count (`proportions`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from mhist_tune.arrays import FloatArray
from mhist_tune.mhist import THRESHOLD
from mhist_tune.statistics import groups as grouped
from mhist_tune.statistics import proportions
from mhist_tune.statistics.binary_metrics import METRICS, checked, metrics_per_seed, weighted_metrics
from mhist_tune.statistics.groups import MIN_GROUPS, Units, Variance
from mhist_tune.statistics.resampling import crossed_bootstrap

SENSITIVITY = (1.5, 2.0, 3.0)
"""Design effects that a report supposes where no groups are known."""
_WITH_INTERVAL = tuple(name for name in METRICS if name != "ece")
_OF_ONE_CLASS = {"recall": "n_ssa", "specificity": "n_hp"}
"""Metrics that depend on one class, and the number of units that hold it."""
_OF_PAIRS = ("auroc", "auprc", "balanced_accuracy")
"""Metrics in 0..1 that are no proportion of images."""
_NORMAL = float(stats.norm.ppf(0.975))


@dataclass(frozen=True)
class MetricSummary:
    """One metric over the seeds. None means undefined, because JSON has no NaN.

    Attributes:
        std: with ddof = 1; None for a single seed.
        ci95: None for `ece`, which resampling biases, and where too few groups hold a class (`MIN_GROUPS`).
    """

    mean: float | None
    std: float | None
    ci95: tuple[float, float] | None
    per_seed: list[float | None]


@dataclass(frozen=True)
class DesignEffect:
    """How much groups widen the interval of a metric (Kish, 1965; Rao and Scott, 1992).

    Attributes:
        design_effect: the variance over groups divided by the variance over images drawn one by one.
        n_images: number of images that the metric depends on.
        n_effective: the number of independent images that would be as informative.
    """

    design_effect: float
    n_images: int
    n_effective: float


@dataclass(frozen=True)
class _Tested:
    """Models on the same images: which of these are SSA, bool [n], and the probabilities, [S, n]."""

    positive: npt.NDArray[np.bool_]
    probabilities: FloatArray
    threshold: float

    def variances(self, groups: Sequence[str] | None, names: Collection[str]) -> dict[str, Variance]:
        """Return the jackknife variance of each metric's mean over seeds."""
        units = grouped.units_of(self.positive, groups)
        if not names or units.n < 2:
            return {}
        per_seed = self._metrics(np.ones((1, self.positive.size)), names)
        per_unit = grouped.influences(lambda weights: self._metrics(weights, names), units)
        return {name: grouped.variance([(per_unit[name], per_seed[name][0])], units) for name in per_seed}

    def trials(self) -> dict[str, float]:
        """Return the number of images, mean over seeds, that each proportion is of; F1 is one as of `_share`.

        Metrics of both classes, such as AUROC, have the number of images of the rarer class.
        """
        called = self.probabilities > self.threshold
        n_called = float(called.sum(axis=1).mean())
        n_positive = float(self.positive.sum())
        n_found = float((called & self.positive).sum(axis=1).mean())
        return dict.fromkeys(_OF_PAIRS, min(n_positive, self.positive.size - n_positive)) | {
            "recall": n_positive,
            "specificity": self.positive.size - n_positive,
            "accuracy": float(self.positive.size),
            "precision": n_called,
            "f1": n_called + n_positive - n_found,
        }

    def _metrics(self, weights: FloatArray, names: Collection[str]) -> dict[str, FloatArray]:
        return weighted_metrics(self.positive, self.probabilities, weights, self.threshold, names)


def summary(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    n_boot: int = 2000,
    seed: int = 0,
    threshold: float = THRESHOLD,
    names: Collection[str] = METRICS,
) -> dict[str, MetricSummary]:
    """Return each metric's mean, standard deviation (ddof = 1) and values over the seeds, with its 95% interval.

    Args:
        labels: [n], 0 or 1.
        probabilities: [S, n], in 0..1.
        groups: the patient or slide of each image, [n]; None where they are not known.
        n_boot: number of bootstrap resamples, without groups.
        seed: of the resampling; the same seed gives the same intervals.
        threshold: an image is called SSA above it.
        names: the metrics to compute.

    Raises:
        ValueError: as `binary_metrics.metrics_of`.
    """
    tested = _Tested(*checked(labels, probabilities), threshold)
    per_seed = metrics_per_seed(tested.positive, tested.probabilities, threshold)
    means = {
        name: float(np.mean(per_seed[name]))
        for name in _WITH_INTERVAL
        if name in names and not np.isnan(per_seed[name]).any()
    }
    if groups is None:
        intervals = crossed_bootstrap(
            labels, probabilities, n_boot=n_boot, seed=seed, threshold=threshold, names=means
        ) | _near_ends(tested, means)
    else:
        intervals = _of_groups(tested, means, groups)
    return {name: _summarize(per_seed[name], intervals.get(name)) for name in METRICS if name in names}


def withheld(labels: npt.ArrayLike, groups: Sequence[str] | None) -> list[str]:
    """Return the metrics that have no interval because fewer than `MIN_GROUPS` groups hold a class they depend on."""
    units = grouped.units_of(np.asarray(labels).astype(np.bool_), groups)
    return [name for name in _WITH_INTERVAL if units.are_groups and _n_units(name, units) < MIN_GROUPS]


def design_effects(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, groups: Sequence[str], *, threshold: float = THRESHOLD
) -> dict[str, DesignEffect]:
    """Return the design effect of the groups for each metric that has an interval; arguments as of `summary`."""
    tested = _Tested(*checked(labels, probabilities), threshold)
    without = withheld(labels, groups)
    names = [name for name in _WITH_INTERVAL if name not in without]
    of_groups, of_images = tested.variances(groups, names), tested.variances(None, names)
    n_positive = int(tested.positive.sum())
    n_of_class = {"recall": n_positive, "specificity": tested.positive.size - n_positive}
    found = {}
    for name in names:
        if of_images[name].of_units > 0:
            effect = of_groups[name].of_units / of_images[name].of_units
            n_images = n_of_class.get(name, tested.positive.size)
            found[name] = DesignEffect(effect, n_images, n_images / effect)
    return found


def sensitivity(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    summaries: Mapping[str, MetricSummary],
    *,
    threshold: float = THRESHOLD,
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the interval that each metric would have at the design effects of `SENSITIVITY`, without known groups.

    The variance over images is multiplied by the design effect, that over seeds is not. The interval of `summaries` is
    widened by the square root of the ratio of the variances, on the logit or log scale.

    Args:
        labels: [n], 0 or 1.
        probabilities: [S, n], in 0..1.
        summaries: of the same images, as from `summary`.
        threshold: as there.

    Returns:
        Intervals by metric and design effect.
    """
    tested = _Tested(*checked(labels, probabilities), threshold)
    known = {name: (one.mean, one.ci95) for name, one in summaries.items()}
    trials = tested.trials()
    found: dict[str, dict[str, tuple[float, float]]] = {}
    variances = tested.variances(None, [name for name, (_, ci95) in known.items() if ci95])
    for name, (mean, ci95) in known.items():
        if mean is None or ci95 is None or name not in variances:
            continue
        variance = variances[name]
        if _is_near_end(name, mean, trials):
            widened = [
                _wilson(name, mean, _total(variance, effect), trials[name], effect, _NORMAL) for effect in SENSITIVITY
            ]
        else:
            widened = [_widened(name, mean, ci95, variance, effect) for effect in SENSITIVITY]
        found[name] = {f"{effect:g}": interval for effect, interval in zip(SENSITIVITY, widened, strict=True)}
    return found


def _n_units(name: str, units: Units) -> int:
    """Return the number of units that hold the class a metric depends on; of two classes, the smaller number."""
    return int(getattr(units, _OF_ONE_CLASS[name])) if name in _OF_ONE_CLASS else units.n_rarer


def _of_groups(tested: _Tested, means: Mapping[str, float], groups: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the intervals by metric, without those that too few groups hold a class for."""
    without = withheld(tested.positive, groups)
    names = [name for name in means if name not in without]
    if not names:
        return {}
    variances, trials = tested.variances(groups, {*names, "accuracy"}), tested.trials()
    effect = _effect_of_errors(tested, groups, variances["accuracy"])
    found = {}
    for name in names:
        mean, variance = means[name], variances[name]
        if _is_near_end(name, mean, trials):
            found[name] = _wilson(name, mean, variance.total, trials[name], effect, variance.t(0.975))
        elif name == "log_loss":
            found[name] = grouped.log_interval(mean, variance)
        elif 0 < mean < 1:
            found[name] = grouped.logit_interval(mean, variance)
    return found


def _near_ends(tested: _Tested, means: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Return the intervals of the proportions near 0 or 1, where single images are drawn."""
    trials = tested.trials()
    near = [name for name, mean in means.items() if _is_near_end(name, mean, trials)]
    return {
        name: _wilson(name, means[name], variance.total, trials[name], 1.0, _NORMAL)
        for name, variance in tested.variances(None, near).items()
    }


def _is_near_end(name: str, mean: float, trials: Mapping[str, float]) -> bool:
    """Return whether too few errors or too few correct calls are counted for an interval from resampling."""
    if name in _OF_PAIRS:
        return mean in (0.0, 1.0)
    return name in trials and proportions.is_few(_share(name, mean), trials[name])


def _share(name: str, mean: float) -> float:
    """Return a metric as a proportion: F1 as TP / (TP + FP + FN), which is F1 / (2 - F1)."""
    return mean / (2 - mean) if name == "f1" else mean


def _wilson(
    name: str, mean: float, variance: float, n_trials: float, effect: float, quantile: float
) -> tuple[float, float]:
    """Return Wilson's interval on an effective count of at most `n_trials` divided by the design effect."""
    share = _share(name, mean)
    slope = 2 / (2 - mean) ** 2 if name == "f1" else 1.0
    count = proportions.effective_count(share, variance * slope**2, n_trials, effect)
    ends = proportions.wilson(share, count, quantile)
    return (2 * ends[0] / (1 + ends[0]), 2 * ends[1] / (1 + ends[1])) if name == "f1" else ends


def _effect_of_errors(tested: _Tested, groups: Sequence[str], of_groups: Variance) -> float:
    """Return the design effect of all errors, at least 1: those near an end are too few to have one of their own."""
    of_images = tested.variances(None, ["accuracy"])["accuracy"].of_units
    if of_images == 0:
        return tested.positive.size / len(set(groups))
    return max(1.0, of_groups.of_units / of_images)


def _total(variance: Variance, effect: float) -> float:
    """Return a variance with its part from images multiplied by the design effect."""
    return variance.total + (effect - 1) * variance.of_units


def _widened(
    name: str, mean: float, interval: tuple[float, float], variance: Variance, effect: float
) -> tuple[float, float]:
    """Return an interval with the variance over images multiplied by the design effect."""
    if variance.total == 0 or mean in (0.0, 1.0):
        return interval
    factor = np.sqrt(_total(variance, effect) / variance.total)
    there, back = (np.log, np.exp) if name == "log_loss" else (special.logit, special.expit)
    low, high = (float(back(there(mean) + factor * (there(end) - there(mean)))) for end in interval)
    return low, high


def _summarize(per_seed: Sequence[float], interval: tuple[float, float] | None) -> MetricSummary:
    values = np.asarray(per_seed)
    is_defined = not np.isnan(values).any()
    return MetricSummary(
        mean=float(values.mean()) if is_defined else None,
        std=float(values.std(ddof=1)) if is_defined and values.size > 1 else None,
        ci95=interval if is_defined else None,
        per_seed=[None if np.isnan(value) else float(value) for value in values],
    )
