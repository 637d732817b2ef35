"""The primary test of a comparison: the difference of models on the same test images.

Shapes: `n` images, `S` seeds of a model (their number may differ between models). Labels are 0 (HP) or 1 (SSA).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from mhist_tune.arrays import FloatArray
from mhist_tune.statistics import groups as grouped
from mhist_tune.statistics.binary_metrics import checked, weighted_auroc, weighted_f1
from mhist_tune.statistics.resampling import image_draws, seed_draws

POWER = 0.8
"""Power of the test at the smallest detectable difference."""
MIN_GROUPS = 5
"""Fewest groups that hold a class for a test: with so many it keeps its size."""
_ALPHA = 0.05
_Metric = Callable[[npt.NDArray[np.bool_], FloatArray, FloatArray], FloatArray]
"""Takes labels [n], probabilities [S, n] and weights of the images [B, n], and returns [B, S]."""
_Errors = dict[tuple[int, int], tuple[float | None, float]]
"""The standard error of each pair of models and its degrees of freedom."""


@dataclass(frozen=True)
class Difference:
    """The difference between two models, first minus second, in AUROC or F1 averaged over seeds.

    Attributes:
        first, second: positions of the models in the arguments.
        estimate: the difference.
        se: its standard error, over images or groups, and seeds; None, as all that follows from it, where fewer than
            `MIN_GROUPS` groups hold a class.
        df: degrees of freedom of the standard error; infinite without groups.
    """

    first: int
    second: int
    estimate: float
    se: float | None
    df: float

    @property
    def ci95(self) -> tuple[float, float] | None:
        """The 95% interval."""
        return self.interval(_ALPHA)

    @property
    def p_value(self) -> float | None:
        """Two-sided, of the hypothesis that the models are equal; below 0.05 exactly if `ci95` excludes 0."""
        if self.se is None:
            return None
        if self.se == 0:  # two models that order every pair of images alike
            return 1.0 if self.estimate == 0 else 0.0
        return float(2 * self._distribution.sf(abs(self.estimate) / self.se))

    @property
    def detectable(self) -> float | None:
        """The true difference that the test would detect at the 5% level with a probability of 80%."""
        if self.se is None:
            return None
        return float(self._distribution.isf(_ALPHA / 2) + self._distribution.ppf(POWER)) * self.se

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """Return the interval with the confidence 1 - alpha."""
        if self.se is None:
            return None
        half = float(self._distribution.isf(alpha / 2)) * self.se
        return self.estimate - half, self.estimate + half

    @property
    def _distribution(self) -> Any:
        """Return the distribution of the difference over its standard error, if the models are equal."""
        return stats.norm if np.isinf(self.df) else stats.t(self.df)


@dataclass(frozen=True)
class Adjusted:
    """A difference adjusted for the number of pairs in a comparison.

    Attributes:
        p_value: Holm's.
        interval: at the level at which Holm's procedure tests this pair, so that it excludes 0 exactly if `p_value` is
            below 0.05. With one pair it is the 95% interval.
    """

    p_value: float | None
    interval: tuple[float, float] | None


def auroc_differences(
    labels: npt.ArrayLike,
    models: Sequence[npt.ArrayLike],
    *,
    groups: Sequence[str] | None = None,
    n_boot: int = 2000,
    seed: int = 0,
) -> list[Difference]:
    """Return the difference of seed-mean AUROC for each pair of models, in the order of `itertools.combinations`.

    Without groups the standard error is that of `_standard_error`, with a normal distribution. Each resample draws the
    images once for all models and seeds, so images are paired. It draws the seeds of each model independently, because
    equal seed numbers of two models have nothing in common. With groups it is that of a jackknife over groups, with a t
    distribution (`groups.variance`): with few groups a normal one rejects equal models too often. A model with one seed
    adds no uncertainty from seeds.

    Args:
        labels: [n], 0 or 1, both present.
        models: probabilities of each model, [S, n], in 0..1.
        groups: the patient or slide of each image, [n]; None where they are not known.
        n_boot: number of resamples, without groups.
        seed: of the resampling.

    Raises:
        ValueError: as `statistics.metrics_of`.
    """
    return _differences(weighted_auroc, labels, models, groups, n_boot, seed)


def f1_differences(
    labels: npt.ArrayLike,
    models: Sequence[npt.ArrayLike],
    *,
    groups: Sequence[str] | None = None,
    n_boot: int = 2000,
    seed: int = 0,
) -> list[Difference]:
    """As `auroc_differences`, for F1 at the threshold 0.5. Descriptive: the primary test is that of AUROC."""
    return _differences(weighted_f1, labels, models, groups, n_boot, seed)


def _differences(
    metric: _Metric,
    labels: npt.ArrayLike,
    models: Sequence[npt.ArrayLike],
    groups: Sequence[str] | None,
    n_boot: int,
    seed: int,
) -> list[Difference]:
    """Return the difference of the seed-mean metric for each pair of models."""
    positive = checked(labels, np.asarray(models[0]))[0]
    probabilities = [checked(labels, model)[1] for model in models]
    observed = [metric(positive, of_model, np.ones((1, positive.size)))[0] for of_model in probabilities]
    if groups is None:
        errors = _bootstrap_errors(metric, positive, probabilities, observed, n_boot, seed)
    else:
        errors = _jackknife_errors(metric, positive, probabilities, observed, groups)
    return [
        Difference(first, second, float(observed[first].mean() - observed[second].mean()), *errors[first, second])
        for first, second in combinations(range(len(models)), 2)
    ]


def _bootstrap_errors(
    metric: _Metric,
    positive: npt.NDArray[np.bool_],
    probabilities: Sequence[FloatArray],
    observed: Sequence[FloatArray],
    n_boot: int,
    seed: int,
) -> _Errors:
    """Return the standard error of each pair's difference, and infinite degrees of freedom."""
    rng = np.random.default_rng(seed)
    blocks, blocks_of_images = [], []
    for images in image_draws(rng, n_boot, positive.size, None):
        per_seed = [metric(positive, of_model, images) for of_model in probabilities]
        seeds = [seed_draws(rng, len(images), len(of_model)) for of_model in probabilities]
        blocks.append(
            np.stack([(values * weights).sum(axis=1) for values, weights in zip(per_seed, seeds, strict=True)])
        )
        blocks_of_images.append(np.stack([values.mean(axis=1) for values in per_seed]))
    both, of_images = np.concatenate(blocks, axis=1), np.concatenate(blocks_of_images, axis=1)
    return {
        (first, second): (
            _standard_error(
                both[first] - both[second], of_images[first] - of_images[second], observed[first], observed[second]
            ),
            np.inf,
        )
        for first, second in combinations(range(len(observed)), 2)
    }


def _jackknife_errors(
    metric: _Metric,
    positive: npt.NDArray[np.bool_],
    probabilities: Sequence[FloatArray],
    observed: Sequence[FloatArray],
    groups: Sequence[str],
) -> _Errors:
    """Return the standard error of each pair's difference and its degrees of freedom; None with too few groups."""
    units = grouped.units_of(positive, groups)
    pairs = list(combinations(range(len(observed)), 2))
    if units.n_rarer < MIN_GROUPS:
        return dict.fromkeys(pairs, (None, np.nan))
    per_unit = grouped.influences(
        lambda weights: {str(place): metric(positive, one, weights) for place, one in enumerate(probabilities)}, units
    )
    models = [(per_unit[str(place)], values) for place, values in enumerate(observed)]
    found = {pair: grouped.variance([models[pair[0]], models[pair[1]]], units) for pair in pairs}
    return {pair: (variance.se, variance.df) for pair, variance in found.items()}


def holm(differences: Sequence[Difference]) -> list[Adjusted]:
    """Return the differences adjusted for multiple tests (Holm, 1979), in the same order.

    Holm compares the smallest of k p-values with 5% / k, the next with 5% / (k - 1), and so on. Each interval has the
    confidence of its own comparison, so an interval and the verdict beside it cannot disagree.
    """
    from statsmodels.stats.multitest import multipletests

    p_values = [one.p_value for one in differences]
    known = [p_value for p_value in p_values if p_value is not None]
    if len(known) < len(p_values):
        return [Adjusted(None, None) for _ in differences]
    adjusted = [float(p) for p in multipletests(known, method="holm")[1]]
    return [
        Adjusted(holm_p, one.interval(_ALPHA * p / holm_p if holm_p > 0 else _ALPHA / len(known)))
        for one, p, holm_p in zip(differences, known, adjusted, strict=True)
    ]


def _standard_error(both: FloatArray, of_images: FloatArray, *seeds: FloatArray) -> float:
    """Return the standard error of a difference of means over images and seeds, which are crossed.

    Its variance is V_image + V_seed + V_both; V_both is the interaction of seeds and images. The variance over
    resampled images is V_image + V_both, and over resampled seeds V_seed + V_both. Over resamples of both it is
    V_image + V_seed + 3 V_both (Owen, "The pigeonhole bootstrap", 2007), with which the test would be conservative.

    Args:
        both: the difference in resamples of images and seeds, [B].
        of_images: the difference in the same resamples of images, with every seed once, [B].
        seeds: the metric of each seed, [S], for each of the two models.
    """
    var_images = float(np.nanvar(of_images, ddof=1))
    var_seeds = sum(float(np.var(values)) / values.size for values in seeds)
    v_both = float(np.clip(np.nanvar(both, ddof=1) - var_images - var_seeds, 0, min(var_images, var_seeds)))
    var_seeds_unbiased = sum(float(np.var(values, ddof=1)) / values.size for values in seeds if values.size > 1)
    return float(np.sqrt(var_images + var_seeds_unbiased - v_both))
