"""Scores of configurations from out-of-fold predictions, and what the choice among them is worth.

Shapes: `n` images, `F` configurations, `B` resamples. Labels are 0 (HP) or 1 (SSA), probabilities are those of SSA.
"""

import math
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

Mask = npt.NDArray[np.bool_]
_EQUAL = 1e-12
"""Two scores that are nearer than this are equal."""


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
class Corrected:
    """The score, or difference of scores, that the chosen configuration has on images that did not choose it.

    Attributes:
        estimate: in the mean over the resamples.
        ci95: its 95% interval; None where fewer than `MIN_GROUPS` groups hold a class.
    """

    estimate: float
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class Selection:
    """The choice of the configuration with the highest score, repeated in resamples of the images.

    Of configurations with the same score that with the highest second score is chosen, see `second_score`. If they are
    equal by that too, they share the resample.

    Attributes:
        shares: share of the resamples in which each configuration is chosen, [F]. It measures how the choice depends
            on the images; it is not the probability that a configuration is the best.
        intervals: 95% interval of the score of each configuration; None where fewer than `MIN_GROUPS` groups hold a
            class.
        se: standard error of the score of each configuration.
        auroc_se: standard error of the AUROC of each configuration.
        corrected: the score of the choice, without the part that comes from choosing the highest.
        gain: the same of the difference from the default; None without a default.
    """

    shares: list[float]
    intervals: list[tuple[float, float] | None]
    se: list[float]
    auroc_se: list[float]
    corrected: Corrected | None
    gain: Corrected | None


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
        **{name: float(weighted(name, positive, folds, table, ones)[0, 0]) for name in ("auroc", *_POOLED)}
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
    default: int | None = None,
    groups: Sequence[str] | None = None,
    n_boot: int = 2000,
    seed: int = 0,
) -> Selection:
    """Repeat the choice in `n_boot` resamples of the images, which are the same for all configurations.

    The highest of several scores is too high in the mean. The correction is BBC-CV (Tsamardinos, Greasidou and
    Borboudakis, Machine Learning 107, 2018): each resample chooses a configuration, and the images that it left out
    score it. About 37% of the images are left out, so these scores spread by sqrt(0.63 / 0.37) times as much as a score
    of all images. The interval of the score holds their percentiles, drawn nearer to their mean by that much. That of
    the gain holds the percentiles as they are: a gain spreads mostly because another configuration is chosen.

    Args:
        name: the score that configurations are chosen by: mean_f1, f1 or auroc.
        labels: [n], 0 or 1.
        folds: the fold of each image, [n].
        probabilities: [F, n], in 0..1, out of fold.
        default: the position of the study's default among the configurations; None without one.
        groups: [n], a patient or slide of each image; whole groups are drawn then.
        n_boot: number of resamples.
        seed: of the resampling.
    """
    positive, table = checked(labels, probabilities)
    rng = np.random.default_rng(seed)
    shares, inside, outside, aurocs, n_left_out = [], [], [], [], []
    for drawn in image_draws(rng, n_boot, positive.size, groups):
        auroc = weighted("auroc", positive, folds, table, drawn)
        score_of = auroc if name == "auroc" else weighted(name, positive, folds, table, drawn)
        second = auroc if second_score(name) == "auroc" else weighted("mean_f1", positive, folds, table, drawn)
        left_out = (drawn == 0).astype(np.float64)
        is_scored = ((left_out @ positive > 0) & (left_out @ ~positive > 0))[:, None]
        # Nothing is weighted where nothing was left out, so those resamples are scored on all images and not counted.
        scored = weighted(name, positive, folds, table, np.where(is_scored, left_out, 1.0))
        shares.append(_choice(score_of, second))
        inside.append(score_of)
        outside.append(np.where(is_scored, scored, np.nan))
        aurocs.append(auroc)
        n_left_out.append(left_out.sum(axis=1))
    chosen, resampled, scored = np.concatenate(shares), np.concatenate(inside), np.concatenate(outside)
    share_left_out = float(np.concatenate(n_left_out).mean()) / positive.size
    of_choice = (chosen * scored).sum(axis=1)
    units = grouped.units_of(positive, groups)
    has_interval = not units.are_groups or units.n_rarer >= MIN_GROUPS
    nearer = math.sqrt(share_left_out / (1 - share_left_out))
    return Selection(
        shares=[float(share) for share in chosen.mean(axis=0)],
        intervals=_intervals(name, positive, folds, table, groups, resampled),
        se=[_deviation(values) for values in resampled.T],
        auroc_se=[_deviation(values) for values in np.concatenate(aurocs).T],
        corrected=_corrected(of_choice, nearer if has_interval else None),
        gain=None if default is None else _corrected(of_choice - scored[:, default], 1.0 if has_interval else None),
    )


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
    observed = weighted(name, positive, folds, table, np.ones((1, positive.size)))[0]
    units = grouped.units_of(positive, groups)
    n_rarer = min(int(positive.sum()), int((~positive).sum()))
    if units.are_groups and units.n_rarer < MIN_GROUPS:
        return [None for _ in observed]
    if units.are_groups:
        per_unit = grouped.influences(lambda rows: {name: weighted(name, positive, folds, table, rows)}, units)[name]
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


def second_score(name: str) -> str:
    """Return the score that decides between configurations with the same score `name`."""
    return "mean_f1" if name == "auroc" else "auroc"


def _choice(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return 1 for the chosen configuration of each resample, and equal shares for those that are equal, [B, F]."""
    is_best = np.ones(first.shape, dtype=np.bool_)
    for score_of in (first, second):
        # An AUROC is not a number in a resample with one class only.
        compared = np.where(is_best, np.nan_to_num(score_of), -1.0)
        is_best &= compared >= compared.max(axis=1, keepdims=True) - _EQUAL
    shares: FloatArray = is_best / is_best.sum(axis=1, keepdims=True)
    return shares


def _corrected(scored: FloatArray, nearer: float | None) -> Corrected | None:
    """Return the mean of scores on left-out images, [B], with its interval; None where no resample has a score.

    Args:
        scored: NaN where the left-out images are of one class.
        nearer: the factor by which the percentiles are drawn nearer to the mean; None for no interval.
    """
    known = scored[~np.isnan(scored)]
    if not known.size:
        return None
    estimate = float(known.mean())
    if nearer is None:
        return Corrected(estimate, None)
    low, high = percentiles(known)
    return Corrected(estimate, (estimate - nearer * (estimate - low), estimate + nearer * (high - estimate)))


def _deviation(values: FloatArray) -> float:
    """Return the standard deviation of the values that are not NaN; 0 if there is none."""
    known = values[~np.isnan(values)]
    return float(known.std()) if known.size else 0.0


def weighted(
    name: str,
    positive: Mask,
    folds: npt.NDArray[np.int64],
    table: FloatArray,
    weights: FloatArray,
) -> FloatArray:
    """Return a score of each configuration for each row of image weights, [B, F]; see `scores`.

    An AUROC is averaged over the folds in which both classes have a weight; NaN if there is none.
    """
    if name != "auroc":
        return _POOLED[name](positive, table, weights)
    parts = [folds == fold for fold in np.unique(folds)]
    aurocs = np.stack([weighted_auroc(positive[inside], table[:, inside], weights[:, inside]) for inside in parts])
    n_known = (~np.isnan(aurocs)).sum(axis=0)
    total: FloatArray = np.nansum(aurocs, axis=0)
    mean: FloatArray = np.divide(total, n_known, out=np.full_like(total, np.nan), where=n_known > 0)
    return mean


_POOLED = {"mean_f1": weighted_mean_f1, "f1": weighted_f1}
