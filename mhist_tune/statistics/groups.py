"""Groups of images, such as patients or slides: variances and intervals for images that are alike within a group.

Shapes: `n` images, `S` seeds (one model each), `G` units. A unit is a group, or a single image where no groups are
known. Labels are 0 (HP) or 1 (SSA).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mhist_tune.arrays import FloatArray, Int64Array

MIN_GROUPS = 10
"""Fewest groups that hold a class for an interval of a metric that depends on this class."""
# Units left out at a time. It bounds the memory to a few [block, n] arrays.
_BLOCK = 250


@dataclass(frozen=True)
class Units:
    """What is left out together by the jackknife.

    Attributes:
        of_image: the unit of each image, [n].
        n: number of units.
        n_ssa: number of units that hold an SSA image.
        n_hp: number of units that hold an HP image.
        holds_rarer: whether a unit holds an image of the class that fewer units hold, [G].
        are_groups: whether units are groups.
    """

    of_image: Int64Array
    n: int
    n_ssa: int
    n_hp: int
    holds_rarer: npt.NDArray[np.bool_]
    are_groups: bool

    @property
    def n_rarer(self) -> int:
        """The number of units that hold the class that fewer units hold."""
        return min(self.n_ssa, self.n_hp)


@dataclass(frozen=True)
class Variance:
    """The variance of a mean over seeds, or of a difference of such means.

    Attributes:
        of_units: from the draw of images or groups, the interaction with seeds included.
        of_seeds: from the draw of seeds, the interaction with units included.
        of_both: from the interaction alone.
        df: degrees of freedom of the sum.
    """

    of_units: float
    of_seeds: float
    of_both: float
    df: float

    @property
    def total(self) -> float:
        """The variance: the interaction is part of both other terms and counts once."""
        return self.of_units + self.of_seeds - self.of_both

    @property
    def se(self) -> float:
        """The standard error."""
        return float(np.sqrt(self.total))

    def t(self, quantile: float) -> float:
        """Return that quantile of Student's t distribution with `df` degrees of freedom."""
        from scipy import stats  # where it is needed: workers load this module and never call it

        return float(stats.t.ppf(quantile, self.df))


def units_of(positive: npt.NDArray[np.bool_], groups: Sequence[str] | None) -> Units:
    """Return the units of images.

    Args:
        positive: bool [n], which images are SSA.
        groups: the patient or slide of each image, [n]; None to make each image a unit.
    """
    n_images = positive.size
    of_image = np.arange(n_images) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    n = int(of_image.max()) + 1
    ssa, hp = (np.bincount(of_image[chosen], minlength=n) > 0 for chosen in (positive, ~positive))
    n_ssa, n_hp = int(ssa.sum()), int(hp.sum())
    return Units(of_image.astype(np.int64), n, n_ssa, n_hp, ssa if n_ssa <= n_hp else hp, groups is not None)


def influences(statistics: Callable[[FloatArray], Mapping[str, FloatArray]], units: Units) -> dict[str, FloatArray]:
    """Return how far each statistic of each seed moves when one unit is left out, from the mean of these, [G, S].

    Args:
        statistics: takes weights of the images, [B, n], and returns statistics, each [B, S].
        units: of the images; at least two.
    """
    blocks = []
    for start in range(0, units.n, _BLOCK):
        left_out = np.arange(start, min(start + _BLOCK, units.n))
        blocks.append(statistics((units.of_image[None, :] != left_out[:, None]).astype(np.float64)))
    without = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    return {name: values.mean(axis=0) - values for name, values in without.items()}


def variance(models: Sequence[tuple[FloatArray, FloatArray]], units: Units) -> Variance:
    """Return the variance of a model's mean over seeds or, of two models, of the first mean minus the second.

    The part from units is the delete-one-group jackknife (Efron, 1982; Obuchowski, 1997, derives the same for clustered
    ROC curves). Units that hold the rarer class and the others are two strata of it. Units and seeds are crossed: every
    model is tested on the same images. Two models share the units, and their seeds are independent.

    Degrees of freedom are those of Welch (1947) and Satterthwaite (1946) for independent parts of a variance: the two
    strata and the seeds of each model. So they are few if the variance comes from few groups, be they of one class.

    Args:
        models: influences [G, S] and values [S] of each seed, of one or two models.
        units: that the influences are of; at least two.
    """
    n_rarer = int(units.holds_rarer.sum())
    n_others = units.n - n_rarer
    weights = np.where(units.holds_rarer, 1 - 1 / max(n_rarer, 2), 1 - 1 / max(n_others, 2))
    means = [per_unit.mean(axis=1) for per_unit, _ in models]
    squares = weights * (means[0] - means[1] if len(means) == 2 else means[0]) ** 2
    of_units = float(squares.sum())
    of_seeds, of_both, parts = 0.0, 0.0, []
    for per_unit, values in models:
        n_seeds = values.size
        if n_seeds > 1:
            part = float(np.var(values, ddof=1)) / n_seeds
            parts.append((part, n_seeds - 1))
            of_seeds += part
            interaction = ((per_unit - per_unit.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
            of_both += float(weights @ interaction) / (n_seeds * (n_seeds - 1))
    parts += [
        (float(squares[units.holds_rarer].sum()), n_rarer - 1),
        (float(squares[~units.holds_rarer].sum()), n_others - 1),
    ]
    expected = sum(part**2 / (max(df, 1) + 2) for part, df in parts)
    return Variance(
        of_units=of_units,
        of_seeds=of_seeds,
        of_both=min(of_both, of_units, of_seeds),
        df=(of_units + of_seeds) ** 2 / expected - 2 if expected else float(units.n - 1),
    )


def logit_interval(estimate: float, found: Variance) -> tuple[float, float]:
    """Return the 95% t interval of a number above 0 and below 1, computed on the logit scale (delta method)."""
    from scipy import special

    centre = special.logit(estimate)
    half = found.t(0.975) * found.se / (estimate * (1 - estimate))
    return float(special.expit(centre - half)), float(special.expit(centre + half))


def log_interval(estimate: float, found: Variance) -> tuple[float, float]:
    """Return the 95% t interval of a positive number, computed on the log scale (delta method)."""
    factor = float(np.exp(found.t(0.975) * found.se / estimate))
    return estimate / factor, estimate * factor
