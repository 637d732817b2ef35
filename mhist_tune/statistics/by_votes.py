"""Misclassified images: error rates by the agreement of the pathologists, and the most confident mistakes.

Shapes: `n` images, `S` seeds. Labels are 0 (HP) or 1 (SSA); votes count the pathologists, of seven, who chose SSA.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mhist_tune.arrays import FloatArray
from mhist_tune.mhist import N_ANNOTATORS, THRESHOLD
from mhist_tune.statistics.binary_metrics import checked, image_draws, percentiles, seed_draws


@dataclass(frozen=True)
class VoteRate:
    """Images with one number of SSA votes, and how often they are misclassified.

    Attributes:
        votes: for SSA, of seven.
        n_images: with that many votes.
        error_rate: the misclassified share of them, averaged over the seeds; None where there is no image.
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
        spread: how far the interval reaches below and above the rate, [2, k].
    """

    votes: npt.NDArray[np.int64]
    rates: FloatArray
    spread: FloatArray


def arrays(rates: Sequence[VoteRate]) -> RateArrays:
    """Return rates as arrays, numbers of votes without an image left out."""
    known = [(one.votes, one.error_rate, *one.ci95) for one in rates if one.ci95 is not None]
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
    n_boot: int = 2000,
    seed: int = 0,
) -> list[VoteRate]:
    """Return the error rate for each number of SSA votes 0..7, with its 95% interval; None where there is no image.

    Rates are more useful than counts, since 7 of 7 votes is the largest group of SSA and has the most mistakes. The
    intervals are those of the crossed bootstrap (`statistics.crossed_bootstrap`). If all seeds classify all images
    correctly, or all wrongly, resampling cannot vary the rate; the exact binomial interval is used then.

    Args:
        votes: [n], in 0..7.
        labels: [n], 0 or 1.
        probabilities: [S, n], in 0..1.
        threshold: an image is called SSA above it.
        groups: [n], a patient or slide of each image; whole groups are drawn then.
        n_boot: number of resamples.
        seed: of the resampling.
    """
    positive, table = checked(labels, probabilities)
    wrong = ((table > threshold) != positive).astype(np.float64)
    n_votes = np.asarray(votes)
    chosen = [np.flatnonzero(n_votes == count) for count in range(N_ANNOTATORS + 1)]
    resampled: list[list[npt.NDArray[np.float64]]] = [[] for _ in chosen]
    rng = np.random.default_rng(seed)
    for images in image_draws(rng, n_boot, positive.size, groups):
        seeds = seed_draws(rng, len(images), len(table))
        for count, of_count in enumerate(chosen):
            drawn = images[:, of_count]
            n_drawn = drawn.sum(axis=1)
            n_wrong = (drawn @ wrong[:, of_count].T * seeds).sum(axis=1)
            is_drawn = n_drawn > 0
            resampled[count].append(n_wrong[is_drawn] / n_drawn[is_drawn])
    rates: list[VoteRate] = []
    for count, of_count in enumerate(chosen):
        n_images = len(of_count)
        rate = float(wrong[:, of_count].mean()) if n_images else None
        exact = 1 - 0.025 ** (1 / n_images) if n_images else 1.0
        interval: tuple[float, float] | None
        match rate:
            case None:
                interval = None
            case 0.0:
                interval = (0.0, exact)
            case 1.0:
                interval = (1 - exact, 1.0)
            case _:
                interval = percentiles(np.concatenate(resampled[count]))
        rates.append(
            VoteRate(
                votes=count,
                n_images=n_images,
                error_rate=rate,
                ci95=interval,
                human_error_rate=human_error_rate(count),
            )
        )
    return rates


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
