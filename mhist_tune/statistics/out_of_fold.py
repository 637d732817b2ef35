"""Scores of configurations from out-of-fold predictions, and the stability of the choice among them.

Shapes: `n` images, `F` configurations. Labels are 0 (HP) or 1 (SSA), probabilities are those of SSA.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mhist_tune.arrays import FloatArray
from mhist_tune.statistics import groups as grouped
from mhist_tune.statistics import proportions
from mhist_tune.statistics.binary_metrics import checked, weighted_auroc, weighted_f1
from mhist_tune.statistics.groups import MIN_GROUPS
from mhist_tune.statistics.mean_f1 import weighted_mean_f1
from mhist_tune.statistics.resampling import image_draws, percentiles


@dataclass(frozen=True)
class OutOfFold:
    """Scores of one configuration: mean F1 and F1 at 0.5 pooled over the folds, AUROC averaged over them."""

    mean_f1: float
    f1: float
    auroc: float

    def of(self, score: str) -> float:
        """Return the score of that name."""
        value: float = getattr(self, score)
        return value


@dataclass(frozen=True)
class Selection:
    """The choice of the configuration with the highest score, repeated in resamples of the images.

    Attributes:
        shares: share of the resamples in which each configuration is chosen, [F]; equal ones share a resample. It
            measures how the choice depends on the images; it is not the probability that a configuration is the best.
        intervals: 95% interval of the score of each configuration; None where fewer than `MIN_GROUPS` groups hold a
            class.
    """

    shares: list[float]
    intervals: list[tuple[float, float] | None]


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
    return OutOfFold(
        **{name: float(_weighted(name, positive, folds, table, ones)[0, 0]) for name in ("auroc", *_POOLED)}
    )


def score(name: str, labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Return one score (mean_f1, f1 or auroc) of a model on one fold; shapes as in `scores`."""
    return scores(labels, np.zeros(np.asarray(labels).size, dtype=np.int64), probabilities).of(name)


def selection(
    name: str,
    labels: npt.ArrayLike,
    folds: npt.NDArray[np.int64],
    probabilities: npt.ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    n_boot: int = 2000,
    seed: int = 0,
) -> Selection:
    """Repeat the choice in `n_boot` resamples of the images, which are the same for all configurations.

    Args:
        name: the score that configurations are chosen by: mean_f1, f1 or auroc.
        labels: [n], 0 or 1.
        folds: the fold of each image, [n].
        probabilities: [F, n], in 0..1, out of fold.
        groups: [n], a patient or slide of each image; whole groups are drawn then.
        n_boot: number of resamples.
        seed: of the resampling.
    """
    positive, table = checked(labels, probabilities)
    rng = np.random.default_rng(seed)
    draws = image_draws(rng, n_boot, positive.size, groups)
    resampled = np.concatenate([_weighted(name, positive, folds, table, drawn) for drawn in draws])
    # an AUROC is not a number in a resample in which a fold has one class only
    known = np.nan_to_num(resampled, nan=-1.0)
    is_best = np.isclose(known, known.max(axis=1, keepdims=True), rtol=0, atol=1e-12)
    shares = (is_best / is_best.sum(axis=1, keepdims=True)).mean(axis=0)
    return Selection([float(share) for share in shares], _intervals(name, positive, folds, table, groups, resampled))


def _intervals(
    name: str,
    positive: npt.NDArray[np.bool_],
    folds: npt.NDArray[np.int64],
    table: FloatArray,
    groups: Sequence[str] | None,
    resampled: FloatArray,
) -> list[tuple[float, float] | None]:
    """Return the interval of each configuration's score: percentiles or, with groups, a t interval of a jackknife.

    A score of 0 or 1 does not vary in resamples. It has Wilson's interval of the images of the rarer class.
    """
    observed = _weighted(name, positive, folds, table, np.ones((1, positive.size)))[0]
    units = grouped.units_of(positive, groups)
    n_rarer = min(int(positive.sum()), int((~positive).sum()))
    if units.are_groups and units.n_rarer < MIN_GROUPS:
        return [None for _ in observed]
    if units.are_groups:
        per_unit = grouped.influences(lambda rows: {name: _weighted(name, positive, folds, table, rows)}, units)[name]
    found: list[tuple[float, float] | None] = []
    for place, value in enumerate(observed.tolist()):
        if value in (0.0, 1.0):
            found.append(proportions.wilson(value, units.n_rarer if units.are_groups else n_rarer, 1.96))
        elif units.are_groups:
            variance = grouped.variance([(per_unit[:, [place]], np.array([value]))], units)
            found.append(grouped.logit_interval(value, variance) if np.isfinite(variance.total) else None)
        else:
            found.append(percentiles(resampled[:, place]))
    return found


def _weighted(
    name: str,
    positive: npt.NDArray[np.bool_],
    folds: npt.NDArray[np.int64],
    table: FloatArray,
    weights: FloatArray,
) -> FloatArray:
    """Return a score of each configuration for each row of image weights, [B, F]; see `scores`."""
    if name != "auroc":
        return _POOLED[name](positive, table, weights)
    parts = [folds == fold for fold in np.unique(folds)]
    aurocs = [weighted_auroc(positive[inside], table[:, inside], weights[:, inside]) for inside in parts]
    mean: FloatArray = np.mean(aurocs, axis=0)
    return mean


_POOLED = {"mean_f1": weighted_mean_f1, "f1": weighted_f1}
