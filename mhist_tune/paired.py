"""Models compared on the same test images: the primary test, and descriptive ones beside it.

Shapes: `n` images, `S` seeds of a model (their number may differ between models). Labels are 0 (HP) or 1 (SSA).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy import stats

from mhist_tune.arrays import FloatArray
from mhist_tune.statistics import checked, image_draws, seed_draws, weighted_auroc, weighted_f1

POWER = 0.8
"""With which the smallest detectable difference would have been found."""


@dataclass(frozen=True)
class Difference:
    """First minus second of two models' seed-mean AUROC, or F1.

    Attributes:
        se: standard error, from resampled images and seeds.
        ci95: estimate plus and minus 1.96 standard errors.
        p_value: two-sided, of equal models; below 0.05 exactly where `ci95` leaves out 0.
        detectable: the true difference that this test would have found at 5% with a probability of 80%.
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
    """First minus second of two AUROCs on the same images, with its standard error and two-sided p-value."""

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

    Each resample draws the images once for all models and seeds, which pairs the images, and the seeds of each model
    independently, since seed 3 of one model has nothing in common with seed 3 of another. The p-value is that of
    a normal with the standard error of `_standard_error`. A model with one seed brings no uncertainty from its seeds.

    Args:
        labels: [n], 0 or 1, both present.
        models: for each its probabilities [S, n], in 0..1.
        groups: [n], a patient or slide of each image; whole groups are drawn then.
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
    """Return the same for the difference of seed-mean F1 at 0.5, which is descriptive: the test is that of AUROC."""
    return _differences(weighted_f1, labels, models, groups, n_boot, seed)


def _differences(
    metric: Callable[[npt.NDArray[np.bool_], FloatArray, FloatArray], FloatArray],
    labels: npt.ArrayLike,
    models: Sequence[npt.ArrayLike],
    groups: Sequence[str] | None,
    n_boot: int,
    seed: int,
) -> list[Difference]:
    """Return the difference of the seed-mean metric for each pair; `metric` takes image weights [B, n] to [B, S]."""
    positive = checked(labels, np.asarray(models[0]))[0]
    tables = [checked(labels, model)[1] for model in models]
    rng = np.random.default_rng(seed)
    blocks, blocks_of_images = [], []
    for images in image_draws(rng, n_boot, positive.size, groups):
        per_seed = [metric(positive, table, images) for table in tables]
        draws = [seed_draws(rng, len(images), len(table)) for table in tables]
        blocks.append(np.stack([(one * drawn).sum(axis=1) for one, drawn in zip(per_seed, draws, strict=True)]))
        blocks_of_images.append(np.stack([one.mean(axis=1) for one in per_seed]))
    both, of_images = np.concatenate(blocks, axis=1), np.concatenate(blocks_of_images, axis=1)
    observed = [metric(positive, table, np.ones((1, positive.size)))[0] for table in tables]
    return [
        _difference(
            first,
            second,
            float(observed[first].mean() - observed[second].mean()),
            _standard_error(
                both[first] - both[second], of_images[first] - of_images[second], observed[first], observed[second]
            ),
        )
        for first, second in combinations(range(len(tables)), 2)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for their number (Holm, 1979), in the same order."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(list(p_values), method="holm")[1]]


def delong(labels: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike) -> DeLong:
    """Compare two AUROCs on the same images (DeLong et al., 1988, by the midranks of Sun and Xu, 2014).

    It knows the uncertainty from the images only: it speaks about these two trained models, not about their methods.

    Args:
        labels: [n], 0 or 1, at least two of each.
        first: [n], in 0..1.
        second: [n], in 0..1.

    Raises:
        ValueError: as `statistics.metrics_of`.
    """
    positive, pair = checked(labels, np.stack([np.asarray(first), np.asarray(second)]))
    n_positive = int(positive.sum())
    n_negative = positive.size - n_positive
    ranks = stats.rankdata(pair, axis=1)
    # How many of the other class each image is ordered rightly against, as a share; a tie is half.
    of_positive = (ranks[:, positive] - stats.rankdata(pair[:, positive], axis=1)) / n_negative
    of_negative = 1 - (ranks[:, ~positive] - stats.rankdata(pair[:, ~positive], axis=1)) / n_positive
    difference = float(of_positive[0].mean() - of_positive[1].mean())
    variance = np.var(of_positive[0] - of_positive[1], ddof=1) / n_positive
    variance += np.var(of_negative[0] - of_negative[1], ddof=1) / n_negative
    return DeLong(difference, float(np.sqrt(variance)), _two_sided(difference, float(np.sqrt(variance))))


def wilcoxon(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p-value of the signed-rank test over seeds, 1 where all values are equal.

    It takes the test images as given: over ten seeds it rejects equal methods far too often, so it is descriptive.
    """
    if list(first) == list(second):
        return 1.0
    return float(stats.wilcoxon(first, second).pvalue)


def mcnemar(labels: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[int, int, float]:
    """Return how many images only the first and only the second calls rightly, and the exact two-sided p-value.

    Args:
        labels: [n], 0 or 1.
        first: [n], whether it calls an image SSA.
        second: [n], likewise.
    """
    from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar

    truth = np.asarray(labels).astype(np.bool_)
    right = [np.asarray(called).astype(np.bool_) == truth for called in (first, second)]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    table = [[int((right[0] & right[1]).sum()), only_first], [only_second, int((~right[0] & ~right[1]).sum())]]
    return only_first, only_second, float(exact_mcnemar(table, exact=True).pvalue)


def _standard_error(both: FloatArray, of_images: FloatArray, *seeds: FloatArray) -> float:
    """Return the standard error of a difference of means over images and seeds, which are crossed.

    Its variance is V_image + V_seed + V_both, the last from what a seed does to single images. Resampled images alone
    vary by V_image + V_both, resampled seeds alone by V_seed + V_both, but both together by V_image + V_seed + 3 V_both
    (Owen, "The pigeonhole bootstrap", 2007), which alone would make a conservative test.

    Args:
        both: the difference in resamples of images and seeds, [B].
        of_images: in the same resamples of images, with every seed once, [B].
        seeds: the metric of each seed, for each of the two models.
    """
    alone = float(np.nanvar(of_images, ddof=1))
    resampled_seeds = sum(float(np.var(one)) / one.size for one in seeds)
    v_both = float(np.clip(np.nanvar(both, ddof=1) - alone - resampled_seeds, 0, min(alone, resampled_seeds)))
    unbiased_seeds = sum(float(np.var(one, ddof=1)) / one.size for one in seeds if one.size > 1)
    return float(np.sqrt(alone + unbiased_seeds - v_both))


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
