"""Scores of configurations from out-of-fold predictions, and the stability of the choice among them.

Shapes: `n` images, `F` configurations. Labels are 0 (HP) or 1 (SSA), probabilities are those of SSA.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mhist_tune.statistics.binary_metrics import checked, image_draws, percentiles, weighted_auroc, weighted_f1


@dataclass(frozen=True)
class OutOfFold:
    """Scores of one configuration: F1 at 0.5 pooled over the folds, AUROC averaged over them."""

    f1: float
    auroc: float


@dataclass(frozen=True)
class Selection:
    """The choice of the configuration with the highest pooled F1, repeated in resamples of the images.

    Attributes:
        shares: share of the resamples in which each configuration is chosen, [F]. It measures how the choice depends
            on the images; it is not the probability that a configuration is the best.
        intervals: 95% interval of the pooled F1 of each configuration.
    """

    shares: list[float]
    intervals: list[tuple[float, float]]


def scores(labels: npt.ArrayLike, folds: npt.NDArray[np.int64], probabilities: npt.ArrayLike) -> OutOfFold:
    """Return the scores of one configuration.

    Counts of correct and wrong predictions may be pooled over folds. Probabilities of different models may not be
    ranked together, since their scales differ, so AUROC is averaged over folds (Forman and Scholz, 2010).

    Args:
        labels: [n], 0 or 1, both in each fold.
        folds: the fold of each image, [n].
        probabilities: [n], in 0..1, each by a model that was trained without that image's fold.
    """
    positive, table = checked(labels, np.asarray(probabilities, dtype=np.float64)[None])
    ones = np.ones((1, positive.size))
    aurocs = []
    for fold in np.unique(folds):
        inside = folds == fold
        aurocs.append(weighted_auroc(positive[inside], table[:, inside], ones[:, inside])[0, 0])
    return OutOfFold(f1=float(weighted_f1(positive, table, ones)[0, 0]), auroc=float(np.mean(aurocs)))


def selection(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    n_boot: int = 2000,
    seed: int = 0,
) -> Selection:
    """Repeat the choice in `n_boot` resamples of the images, which are the same for all configurations.

    Args:
        labels: [n], 0 or 1.
        probabilities: [F, n], in 0..1, out of fold.
        groups: [n], a patient or slide of each image; whole groups are drawn then.
        n_boot: number of resamples.
        seed: of the resampling.
    """
    positive, table = checked(labels, probabilities)
    rng = np.random.default_rng(seed)
    f1 = np.concatenate(
        [weighted_f1(positive, table, drawn) for drawn in image_draws(rng, n_boot, positive.size, groups)]
    )
    chosen = np.bincount(f1.argmax(axis=1), minlength=len(table))
    return Selection([float(share) for share in chosen / n_boot], [percentiles(values) for values in f1.T])
