"""Which images are misclassified: rates by the pathologists' agreement, and the most confident mistakes.

Shapes: `n` images, `S` seeds. Labels are 0 (HP) or 1 (SSA), votes are those for SSA, of seven pathologists.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from mhist_tune.mhist import N_ANNOTATORS, THRESHOLD
from mhist_tune.statistics import checked, image_draws, percentiles, seed_draws


class VoteRate(TypedDict):
    """Images with one number of SSA votes, and the share of them that is misclassified, averaged over the seeds.

    `human_error_rate` is the share of the pathologists who disagree with the majority, which is the label.
    """

    votes: int
    n_images: int
    error_rate: float | None
    ci95: list[float] | None
    human_error_rate: float


class Mistake(TypedDict):
    """A misclassified image: its place in the set, and the seeds' mean probability of SSA."""

    index: int
    label: int
    votes: int
    probability: float
    share_of_seeds: float


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
    """Return the error rate for each number of SSA votes 0..7, with its 95% interval; None where no image is.

    Rates, not counts: 7 of 7 votes is the largest group of SSA and so leads every list of counts. The intervals are
    those of the crossed bootstrap (`statistics.crossed_bootstrap`). Where every image is right in every seed, or
    every one wrong, it has nothing to resample, and the exact binomial interval for as many images stands in.

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
        interval: list[float] | None
        match rate:
            case None:
                interval = None
            case 0.0:
                interval = [0.0, exact]
            case 1.0:
                interval = [1 - exact, 1.0]
            case _:
                interval = list(percentiles(np.concatenate(resampled[count])))
        rates.append(
            {
                "votes": count,
                "n_images": n_images,
                "error_rate": rate,
                "ci95": interval,
                "human_error_rate": min(count, N_ANNOTATORS - count) / N_ANNOTATORS,
            }
        )
    return rates


def mistakes(
    votes: npt.ArrayLike, labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, threshold: float = THRESHOLD
) -> list[Mistake]:
    """Return the images that the seeds' mean probability misclassifies, the most confident mistake first.

    Args:
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
        {
            "index": int(index),
            "label": int(positive[index]),
            "votes": int(n_votes[index]),
            "probability": float(mean[index]),
            "share_of_seeds": float(wrong[index]),
        }
        for index in found
    ]
