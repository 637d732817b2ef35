"""Any statistic of weighted images with its 95% interval over images or groups, and seeds.

Shapes: `n` images, `S` seeds (one model each; 1 for a statistic of the images alone), `B` rows of weights. A statistic
takes weights of the images, [B, n], and returns values [B, S, ...]. NaN means undefined.

Without groups, an interval has the percentiles of the crossed bootstrap (`resampling`). With groups, the variance comes
from a bootstrap of whole groups and of seeds, and the quantile from Student's t with the number of groups of the rarer
class less one. The jackknife of `groups` would be wrong here: a sensitivity at a fixed specificity is not smooth.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from mhist_tune.arrays import FloatArray
from mhist_tune.statistics import groups as grouped
from mhist_tune.statistics import proportions
from mhist_tune.statistics.groups import MIN_GROUPS, Units, Variance
from mhist_tune.statistics.resampling import image_draws, percentiles, seed_draws
from mhist_tune.statistics.summaries import MetricSummary

N_BOOT = 1000
Statistics = Callable[[FloatArray], Mapping[str, FloatArray]]


@dataclass(frozen=True)
class Band:
    """Numbers with their 95% interval at each of several points; None where a number or an interval is undefined."""

    mean: list[float | None]
    low: list[float | None]
    high: list[float | None]


@dataclass(frozen=True)
class Sample:
    """The images and seeds that are drawn.

    Attributes:
        positive: which images are SSA, bool [n].
        groups: the patient or slide of each image, [n]; None where they are not known.
        effect: the design effect of the groups for errors, used where few errors are counted.
    """

    positive: npt.NDArray[np.bool_]
    groups: Sequence[str] | None = None
    effect: float = 1.0
    n_boot: int = N_BOOT
    seed: int = 0

    def resample(self, statistics: Statistics) -> "Resampled":
        """Return statistics of the images as they are, and of each resample."""
        points = {name: values[0] for name, values in statistics(np.ones((1, self.positive.size))).items()}
        rng = np.random.default_rng(self.seed)
        n_seeds = max(len(values) for values in points.values())
        blocks: list[dict[str, FloatArray]] = []
        for images in image_draws(rng, self.n_boot, self.positive.size, self.groups):
            seeds = seed_draws(rng, len(images), n_seeds)
            blocks.append({name: _mean(values, seeds) for name, values in statistics(images).items()})
        draws = {name: np.concatenate([block[name] for block in blocks]) for name in points}
        return Resampled(points, draws, grouped.units_of(self.positive, self.groups), self.effect)


@dataclass(frozen=True)
class Resampled:
    """Statistics by name: of the images as they are, [S, ...], and their means over seeds in resamples, [n_boot, ...].

    Attributes:
        units: what was drawn together.
        effect: as of the sample.
    """

    points: Mapping[str, FloatArray]
    draws: Mapping[str, FloatArray]
    units: Units
    effect: float

    def summary(self, name: str, *, n_trials: float | None = None, is_share: bool = True) -> MetricSummary:
        """Return a statistic, [S], over the seeds with its interval.

        Args:
            name: of the statistic.
            n_trials: the number of images that a proportion is of; near 0 and 1 it then has Wilson's interval.
            is_share: whether it is a number from 0 to 1.
        """
        per_seed = self.points[name]
        mean = _known(per_seed.mean())
        return MetricSummary(
            mean=mean,
            std=float(per_seed.std(ddof=1)) if mean is not None and per_seed.size > 1 else None,
            ci95=None if mean is None else self._interval(self.draws[name], mean, is_share, n_trials),
            per_seed=[_known(value) for value in per_seed],
        )

    def band(self, name: str) -> Band:
        """Return a statistic, [S, T], over the seeds with its interval at each of the T points."""
        means = [_known(mean) for mean in self.points[name].mean(axis=0)]
        ends = [
            None if mean is None else self._interval(self.draws[name][:, index], mean, False, None)
            for index, mean in enumerate(means)
        ]
        return Band(means, [one and one[0] for one in ends], [one and one[1] for one in ends])

    def _interval(
        self, draws: FloatArray, mean: float, is_share: bool, n_trials: float | None
    ) -> tuple[float, float] | None:
        defined, n_groups = draws[np.isfinite(draws)], self.units.n_rarer
        if defined.size < 2 or (self.units.are_groups and n_groups < MIN_GROUPS):
            return None
        variance, df = float(defined.var(ddof=1)), np.inf
        if self.units.are_groups:
            df = n_groups - 1
            variance *= n_groups / df  # a bootstrap of G groups has (G - 1) / G of the variance
        if n_trials is not None and proportions.is_few(mean, n_trials):
            count = proportions.effective_count(mean, variance, n_trials, self.effect)
            return proportions.wilson(mean, count, float(stats.t.ppf(0.975, df)))
        if not self.units.are_groups:
            return percentiles(defined)
        found = Variance(of_units=variance, of_seeds=0.0, of_both=0.0, df=float(df))
        if is_share and 0 < mean < 1:
            return grouped.logit_interval(mean, found)
        half = found.t(0.975) * found.se
        return mean - half, mean + half


def _mean(values: FloatArray, seeds: FloatArray) -> FloatArray:
    """Return the mean over seeds, [B, ...], of values [B, S, ...] with the weights of the seeds [B, S]."""
    if values.shape[1] == 1:
        return values[:, 0]
    mean: FloatArray = np.einsum("bs...,bs->b...", values, seeds)
    return mean


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
