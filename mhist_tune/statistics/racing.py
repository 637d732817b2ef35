"""The race of the finalists: which of them are clearly behind before all folds are trained.

The finalists are trained on folds in turn, the same folds for all. After two folds, and after each later one but the
last, those still in the race are compared on the images of the folds so far (a look). A finalist is clearly behind if
the leader's score exceeds its own by more than a one-sided t test allows.

Shapes: `n` images of the folds so far, `F` finalists in the race, `G` units (images, or groups where they are known),
`k` folds so far.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mhist_tune.arrays import FloatArray
from mhist_tune.statistics import groups as grouped
from mhist_tune.statistics.binary_metrics import checked
from mhist_tune.statistics.groups import MIN_GROUPS, Units, Variance
from mhist_tune.statistics.out_of_fold import weighted

FIRST_LOOK = 2
"""The number of folds before the first look. The difference between folds needs two."""


@dataclass(frozen=True)
class Against:
    """The comparison of one finalist with the leader on the folds so far.

    Attributes:
        place: the position of the finalist in the arguments.
        difference: the leader's score minus its own.
        standard_error: of the difference, over images and trainings; None where fewer than `MIN_GROUPS` groups hold a
            class.
        allowed: the difference up to which it stays in the race; None without a standard error.
    """

    place: int
    difference: float
    standard_error: float | None
    allowed: float | None

    @property
    def is_behind(self) -> bool:
        """Whether the finalist is clearly behind."""
        return self.allowed is not None and self.difference > self.allowed


@dataclass(frozen=True)
class Look:
    """The comparison of all finalists in the race after some folds.

    Attributes:
        leader: the position of the finalist with the highest score; of equal ones the first.
        scores: of all finalists, on the folds so far.
        against: the comparison of each other finalist with the leader, in the order of the positions.
    """

    leader: int
    scores: list[float]
    against: list[Against]


def n_looks(n_folds: int) -> int:
    """Return the number of looks in a race over `n_folds` folds; after the last fold nothing is left to be saved.

    >>> [n_looks(n_folds) for n_folds in (2, 3, 5)]
    [0, 1, 3]
    """
    return max(0, n_folds - FIRST_LOOK)


def look(
    name: str,
    labels: npt.ArrayLike,
    folds: npt.NDArray[np.int64],
    probabilities: npt.ArrayLike,
    *,
    n_folds: int,
    n_finalists: int,
    level: float,
    groups: Sequence[str] | None = None,
) -> Look:
    """Compare the finalists in the race with the leader, each by a one-sided test of the paired difference.

    The variance of a difference has two parts. The first is that of the images: the delete-one jackknife, over whole
    groups where they are known (`groups.variance`). It takes the trained models as given. The second is that of the
    trainings. The delete-one-fold jackknife counts both images and trainings; what it has more than the first part is
    due to trainings. This is estimated over all pairs of finalists together, with (F - 1)(k - 1) degrees of freedom.
    Models of different folds share training images, so their errors are correlated, and no estimate from these folds
    contains that (Bengio and Grandvalet, JMLR 5, 2004). As Nadeau and Bengio (Machine Learning 52, 2003) do, the second
    part is therefore multiplied by 1 + k / (n_folds - 1): the factor 1/k of independent folds becomes 1/k + n_test /
    n_train. Two or three folds estimate it so badly that it is often 0 by chance. So it is never taken to be smaller
    than the part of the images, in the mean over the pairs. Degrees of freedom are those of Welch and Satterthwaite.

    `level` bounds the probability that the truly best finalist is dropped in the whole race, unless trainings add much
    more to the variance than images do (docs/method/statistics.md has a simulation). It is split evenly over the other
    `n_finalists` - 1 finalists, each of which may lead, and over the looks (Bonferroni). So it does not matter that the
    leader is chosen by the same images.

    Args:
        name: the score that finalists are compared by: mean_f1, f1 or auroc.
        labels: [n], 0 or 1.
        folds: the fold of each image, [n].
        probabilities: [F, n], in 0..1, each by a model that was trained without that image's fold.
        n_folds: number of folds in all.
        n_finalists: number of finalists that began the race.
        level: above 0 and below 1.
        groups: [n], a patient or slide of each image. Every group is in one fold.
    """
    positive, table = checked(labels, probabilities)
    observed = weighted(name, positive, folds, table, np.ones((1, positive.size)))[0]
    leader = int(np.argmax(observed))
    others = [place for place in range(len(table)) if place != leader]
    scores = [float(score) for score in observed]
    differences = {place: scores[leader] - scores[place] for place in others}
    units = grouped.units_of(positive, groups)
    if not others or (units.are_groups and units.n_rarer < MIN_GROUPS):
        return Look(leader, scores, [Against(place, differences[place], None, None) for place in others])

    def left_out(of: Units) -> FloatArray:
        return grouped.influences(lambda rows: {name: weighted(name, positive, folds, table, rows)}, of)[name]

    per_unit = left_out(units)
    per_fold = left_out(grouped.units_of(positive, [str(fold) for fold in folds]))
    of_trainings, df_trainings = _training_variance(per_unit, per_fold, n_folds)
    quantile = 1 - level / ((n_finalists - 1) * n_looks(n_folds))
    against = []
    for place in others:
        pair = [(per_unit[:, [one]], observed[[one]]) for one in (leader, place)]
        found = _sum(grouped.variance(pair, units), of_trainings, df_trainings)
        against.append(Against(place, differences[place], found.se, found.t(quantile) * found.se))
    return Look(leader, scores, against)


def race(
    name: str,
    labels: npt.ArrayLike,
    folds: npt.NDArray[np.int64],
    probabilities: npt.ArrayLike,
    *,
    level: float,
    kept: Collection[int] = (),
    groups: Sequence[str] | None = None,
) -> dict[int, int]:
    """Return the number of folds after which each dropped finalist stops, by its position, from all folds of all.

    It is the whole race at once: what workers decide fold by fold.

    Args:
        name: as in `look`.
        labels: as in `look`.
        folds: the fold of each image, [n], numbered from 0.
        probabilities: [F, n] on all folds.
        level: as in `look`.
        kept: finalists that are never dropped. They may lead.
        groups: as in `look`.
    """
    of_image, table = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    n_folds, racing = int(folds.max()) + 1, list(range(len(table)))
    stopped: dict[int, int] = {}
    for n_trained in range(FIRST_LOOK, n_folds):
        inside = folds < n_trained
        found = look(
            name,
            of_image[inside],
            folds[inside],
            table[racing][:, inside],
            n_folds=n_folds,
            n_finalists=len(table),
            level=level,
            groups=None
            if groups is None
            else [group for group, is_inside in zip(groups, inside, strict=True) if is_inside],
        )
        behind = {racing[one.place] for one in found.against if one.is_behind}.difference(kept)
        stopped |= dict.fromkeys(sorted(behind), n_trained)
        racing = [place for place in racing if place not in behind]
    return stopped


def _training_variance(per_unit: FloatArray, per_fold: FloatArray, n_folds: int) -> tuple[float, float]:
    """Return the variance of a difference that is due to trainings, and its degrees of freedom; see `look`.

    The degrees of freedom are infinite where the variance is the least that is assumed.

    Args:
        per_unit: how far the score of each finalist moves when one unit is left out, [G, F].
        per_fold: the same of one fold, [k, F].
        n_folds: number of folds in all.
    """
    (k, n_finalists), of_pairs = per_fold.shape, []
    for rows in (per_fold, per_unit):
        # the mean over all pairs of finalists of the jackknife variance of their difference
        squares = float(np.square(rows - rows.mean(axis=1, keepdims=True)).sum())
        of_pairs.append(2 / (n_finalists - 1) * (1 - 1 / len(rows)) * squares)
    between_folds, least = of_pairs
    estimated = (between_folds - least) * (1 + k / (n_folds - 1))
    return (estimated, (n_finalists - 1) * (k - 1)) if estimated > least else (least, np.inf)


def _sum(of_images: Variance, of_trainings: float, df_trainings: float) -> Variance:
    """Return the variance with that of the trainings added; degrees of freedom as in `groups.variance`."""
    of_units = of_images.total
    expected = of_units**2 / (of_images.df + 2) + of_trainings**2 / (df_trainings + 2)
    df = (of_units + of_trainings) ** 2 / expected - 2 if expected else of_images.df
    return Variance(of_units=of_units, of_seeds=of_trainings, of_both=0.0, df=df)
