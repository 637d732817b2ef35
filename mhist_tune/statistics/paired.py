"""Comparison of models on the same test images: the primary test, and descriptive tests in addition.

Shapes: `n` images, `S` seeds of a model (their number may differ between models). Labels are 0 (HP) or 1 (SSA).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy import stats

from mhist_tune.arrays import FloatArray
from mhist_tune.statistics.binary_metrics import checked, image_draws, seed_draws, weighted_auroc, weighted_f1

POWER = 0.8
"""Power of the test at the smallest detectable difference."""


@dataclass(frozen=True)
class Difference:
    """The difference between two models, first minus second, in AUROC or F1 averaged over seeds.

    Attributes:
        first, second: positions of the models in the arguments.
        estimate: the difference.
        se: its standard error, from resampled images and seeds.
        ci95: estimate minus and plus 1.96 standard errors.
        p_value: two-sided, of the hypothesis that the models are equal; below 0.05 exactly if `ci95` excludes 0.
        detectable: the true difference that the test would detect at the 5% level with a probability of 80%.
    """

    first: int
    second: int
    estimate: float
    se: float
    ci95: tuple[float, float]
    p_value: float
    detectable: float


@dataclass(frozen=True)
class DeLong:
    """The difference of two AUROCs on the same images, first minus second, its standard error and two-sided p-value."""

    difference: float
    se: float
    p_value: float


def auroc_differences(
    labels: npt.ArrayLike,
    models: Sequence[npt.ArrayLike],
    *,
    groups: Sequence[str] | None = None,
    n_boot: int = 2000,
    seed: int = 0,
) -> list[Difference]:
    """Return the difference of seed-mean AUROC for each pair of models, in the order of `itertools.combinations`.

    Each resample draws the images once for all models and seeds, so images are paired. It draws the seeds of each model
    independently, because equal seed numbers of two models have nothing in common. The p-value assumes a normal
    distribution with the standard error of `_standard_error`. A model with one seed adds no uncertainty from seeds.

    Args:
        labels: [n], 0 or 1, both present.
        models: probabilities of each model, [S, n], in 0..1.
        groups: the patient or slide of each image, [n], to draw whole groups; None to draw images.
        n_boot: number of resamples.
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
    metric: Callable[[npt.NDArray[np.bool_], FloatArray, FloatArray], FloatArray],
    labels: npt.ArrayLike,
    models: Sequence[npt.ArrayLike],
    groups: Sequence[str] | None,
    n_boot: int,
    seed: int,
) -> list[Difference]:
    """Return the difference of the seed-mean metric for each pair of models.

    `metric` takes labels [n], probabilities [S, n] and weights of the images [B, n], and returns [B, S].
    """
    positive = checked(labels, np.asarray(models[0]))[0]
    probabilities = [checked(labels, model)[1] for model in models]
    rng = np.random.default_rng(seed)
    blocks, blocks_of_images = [], []
    for images in image_draws(rng, n_boot, positive.size, groups):
        per_seed = [metric(positive, of_model, images) for of_model in probabilities]
        seeds = [seed_draws(rng, len(images), len(of_model)) for of_model in probabilities]
        blocks.append(
            np.stack([(values * weights).sum(axis=1) for values, weights in zip(per_seed, seeds, strict=True)])
        )
        blocks_of_images.append(np.stack([values.mean(axis=1) for values in per_seed]))
    both, of_images = np.concatenate(blocks, axis=1), np.concatenate(blocks_of_images, axis=1)
    observed = [metric(positive, of_model, np.ones((1, positive.size)))[0] for of_model in probabilities]
    return [
        _difference(
            first,
            second,
            float(observed[first].mean() - observed[second].mean()),
            _standard_error(
                both[first] - both[second], of_images[first] - of_images[second], observed[first], observed[second]
            ),
        )
        for first, second in combinations(range(len(models)), 2)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for multiple tests (Holm, 1979), in the same order."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(list(p_values), method="holm")[1]]


def delong(labels: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike) -> DeLong:
    """Compare two AUROCs on the same images (DeLong et al., 1988, by the midranks of Sun and Xu, 2014).

    The standard error includes the uncertainty from the images only. The result holds for these two trained models, not
    for their methods.

    Args:
        labels: [n], 0 or 1, at least two of each.
        first, second: probabilities of each model, [n], in 0..1.

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
    variance = np.var(of_positive[0] - of_positive[1], ddof=1) / n_positive
    variance += np.var(of_negative[0] - of_negative[1], ddof=1) / n_negative
    return DeLong(difference, float(np.sqrt(variance)), _two_sided(difference, float(np.sqrt(variance))))


def wilcoxon(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test over seeds; 1 if all values are equal.

    Descriptive: the test treats the test images as fixed. With ten seeds it rejects equal methods far too often.

    Args:
        first, second: the metric of each seed, as many seeds of one model as of the other.
    """
    if list(first) == list(second):
        return 1.0
    return float(stats.wilcoxon(first, second).pvalue)


def mcnemar(labels: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[int, int, float]:
    """Compare two classifiers on the same images by McNemar's exact test.

    Args:
        labels: [n], 0 or 1.
        first, second: bool [n], whether each calls an image SSA.

    Returns:
        The number of images that only the first calls correctly, the number that only the second calls correctly, and
        the two-sided p-value.
    """
    from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar

    truth = np.asarray(labels).astype(np.bool_)
    correct = [np.asarray(called).astype(np.bool_) == truth for called in (first, second)]
    only_first, only_second = int((correct[0] & ~correct[1]).sum()), int((correct[1] & ~correct[0]).sum())
    both, neither = int((correct[0] & correct[1]).sum()), int((~correct[0] & ~correct[1]).sum())
    p_value = float(exact_mcnemar([[both, only_first], [only_second, neither]], exact=True).pvalue)
    return only_first, only_second, p_value


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


def _difference(first: int, second: int, estimate: float, se: float) -> Difference:
    z = float(stats.norm.ppf(0.975))
    return Difference(
        first=first,
        second=second,
        estimate=estimate,
        se=se,
        ci95=(estimate - z * se, estimate + z * se),
        p_value=_two_sided(estimate, se),
        detectable=(z + float(stats.norm.ppf(POWER))) * se,
    )


def _two_sided(difference: float, se: float) -> float:
    if se == 0:  # two models that order every pair of images alike
        return 1.0 if difference == 0 else 0.0
    return float(2 * stats.norm.sf(abs(difference) / se))
