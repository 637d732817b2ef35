"""Misclassified images: error rates by the agreement of the pathologists, and the most confident mistakes.

Shapes: `n` images, `S` seeds. Labels are 0 (HP) or 1 (SSA); votes count the pathologists, of seven, who chose SSA.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from mhist_tune.arrays import FloatArray
from mhist_tune.mhist import N_ANNOTATORS, THRESHOLD
from mhist_tune.statistics import groups as grouped
from mhist_tune.statistics import proportions
from mhist_tune.statistics.binary_metrics import checked
from mhist_tune.statistics.groups import MIN_GROUPS, Variance


@dataclass(frozen=True)
class VoteRate:
    """Images with one number of SSA votes, and how often they are misclassified.

    Attributes:
        votes: for SSA, of seven.
        n_images: with that many votes.
        error_rate: the misclassified share of them, averaged over the seeds; None where there is no image.
        ci95: None also where the images come from fewer than `MIN_GROUPS` groups.
        human_error_rate: the share of the pathologists who disagree with the majority of the other six.
    """

    votes: int
    n_images: int
    error_rate: float | None
    ci95: tuple[float, float] | None
    human_error_rate: float


@dataclass(frozen=True)
class Overall:
    """Error rates over images with any number of votes: of the model, and of one pathologist against the other six."""

    n_images: int
    error_rate: float
    human_error_rate: float


@dataclass(frozen=True)
class Mistake:
    """A misclassified image.

    Attributes:
        index: its position in the set.
        probability: of SSA, mean over the seeds.
        share_of_seeds: share of the seeds that misclassify it.
    """

    image_name: str
    index: int
    label: int
    votes: int
    probability: float
    share_of_seeds: float


@dataclass(frozen=True)
class RateArrays:
    """Error rates as arrays to draw, for the k numbers of votes that have images; each [k].

    Attributes:
        spread: how far the interval reaches below and above the rate, [2, k]; 0 without an interval.
    """

    votes: npt.NDArray[np.int64]
    rates: FloatArray
    spread: FloatArray


def arrays(rates: Sequence[VoteRate]) -> RateArrays:
    """Return rates as arrays, numbers of votes without an image left out."""
    known = [
        (one.votes, one.error_rate, *(one.ci95 or (one.error_rate, one.error_rate)))
        for one in rates
        if one.error_rate is not None
    ]
    votes, heights, low, high = np.array(known, dtype=np.float64).reshape(-1, 4).T
    spread = np.clip(np.stack([heights - low, high - heights]), 0, None)
    return RateArrays(votes.astype(np.int64), heights, spread)


def error_rates(
    votes: npt.ArrayLike,
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    threshold: float = THRESHOLD,
    groups: Sequence[str] | None = None,
) -> list[VoteRate]:
    """Return the error rate for each number of SSA votes 0..7, with its 95% interval; None where there is no image.

    Rates are more useful than counts, since 7 of 7 votes is the largest group of SSA and has the most mistakes. Errors
    are few for some numbers of votes, so the intervals are Wilson's on an effective count (`proportions`). It has the
    variance over images or groups, and seeds. Where errors are few it is at most the number of images divided by the
    design effect of all errors.

    Args:
        votes: [n], in 0..7.
        labels: [n], 0 or 1.
        probabilities: [S, n], in 0..1.
        threshold: an image is called SSA above it.
        groups: [n], a patient or slide of each image; None where they are not known.
    """
    positive, table = checked(labels, probabilities)
    wrong = ((table > threshold) != positive).astype(np.float64)
    n_votes = np.asarray(votes)
    effect = 1.0
    if groups is not None and len(set(groups)) > 1:
        over_groups, over_images = (_variance(wrong, positive, known).of_units for known in (groups, None))
        effect = max(1.0, over_groups / over_images) if over_images else positive.size / len(set(groups))
    rates: list[VoteRate] = []
    for count in range(N_ANNOTATORS + 1):
        chosen = np.flatnonzero(n_votes == count)
        of_count = wrong[:, chosen]
        known = None if groups is None else [groups[int(index)] for index in chosen]
        rates.append(
            VoteRate(
                votes=count,
                n_images=len(chosen),
                error_rate=float(of_count.mean()) if len(chosen) else None,
                ci95=_interval(of_count, positive[chosen], known, effect) if len(chosen) else None,
                human_error_rate=human_error_rate(count),
            )
        )
    return rates


def _interval(
    wrong: FloatArray, positive: npt.NDArray[np.bool_], groups: Sequence[str] | None, effect: float
) -> tuple[float, float] | None:
    """Return the 95% interval of the mean of `wrong`, [S, n]; None of too few groups.

    Args:
        wrong: 1 where a seed misclassifies an image, else 0, [S, n].
        positive: bool [n], which images are SSA.
        groups: of the images, [n].
        effect: the design effect of all errors.
    """
    if groups is not None and len(set(groups)) < MIN_GROUPS:
        return None
    rate, n_images = float(wrong.mean()), wrong.shape[1]
    quantile = float(stats.norm.ppf(0.975))
    count = n_images / effect
    if n_images > 1:
        variance = _variance(wrong, positive, groups)
        count = proportions.effective_count(rate, variance.total, n_images, effect)
        quantile = quantile if groups is None else variance.t(0.975)
    return proportions.wilson(rate, count, quantile)


def _variance(wrong: FloatArray, positive: npt.NDArray[np.bool_], groups: Sequence[str] | None) -> Variance:
    """Return the variance of the mean of `wrong`, [S, n], over images or groups, and seeds."""
    units = grouped.units_of(positive, groups)
    per_unit = grouped.influences(
        lambda weights: {"wrong": weights @ wrong.T / weights.sum(axis=1, keepdims=True)}, units
    )
    return grouped.variance([(per_unit["wrong"], wrong.mean(axis=1))], units)


def human_error_rate(votes: int) -> float:
    """Return the share of the pathologists who disagree with the majority of the other six.

    The label is the majority of all seven. It holds a pathologist's own vote, so comparing the pathologist with it
    would flatter the pathologist. A tie of the other six counts half.

    Args:
        votes: for SSA, in 0..7.

    >>> [round(7 * human_error_rate(votes)) for votes in range(8)]
    [0, 1, 2, 5, 5, 2, 1, 0]
    """
    half = (N_ANNOTATORS - 1) / 2
    n_wrong = 0.0
    for own, n_same in ((1, votes), (0, N_ANNOTATORS - votes)):
        others = votes - own  # of the other six, for SSA
        majority = 0.5 if others == half else float(others > half)
        n_wrong += n_same * abs(own - majority)
    return n_wrong / N_ANNOTATORS


def overall(rates: Sequence[VoteRate]) -> Overall:
    """Return the error rates over all images, from those for each number of votes."""
    shown = [(one.n_images, one.error_rate, one.human_error_rate) for one in rates if one.error_rate is not None]
    n_images = sum(n for n, _, _ in shown)
    return Overall(
        n_images=n_images,
        error_rate=sum(n * rate for n, rate, _ in shown) / n_images,
        human_error_rate=sum(n * human for n, _, human in shown) / n_images,
    )


def mistakes(
    names: Sequence[str],
    votes: npt.ArrayLike,
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    threshold: float = THRESHOLD,
) -> list[Mistake]:
    """Return the images that the seeds' mean probability misclassifies, the most confident mistake first.

    Args:
        names: of the images, [n].
        votes: [n], in 0..7.
        labels: [n], 0 or 1.
        probabilities: [S, n], in 0..1.
        threshold: as in `error_rates`.
    """
    positive, table = checked(labels, probabilities)
    n_votes = np.asarray(votes)
    mean = table.mean(axis=0)
    wrong = ((table > threshold) != positive).mean(axis=0)
    of_truth = np.where(positive, mean, 1 - mean)
    found = [index for index in np.argsort(of_truth, kind="stable") if (mean[index] > threshold) != positive[index]]
    return [
        Mistake(
            image_name=names[index],
            index=int(index),
            label=int(positive[index]),
            votes=int(n_votes[index]),
            probability=float(mean[index]),
            share_of_seeds=float(wrong[index]),
        )
        for index in found
    ]
