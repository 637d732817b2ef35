"""Groups of the test images, their design effects, and the intervals that unknown groups would need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mhist_tune.arrays import FloatArray
from mhist_tune.mhist import NEGATIVE_CLASS, POSITIVE_CLASS
from mhist_tune.statistics import groups as grouped
from mhist_tune.statistics import summaries
from mhist_tune.statistics.groups import MIN_GROUPS
from mhist_tune.statistics.summaries import DesignEffect, MetricSummary
from mhist_tune.words import Rows, counted, interval, number

_SHOWN = "auroc"
"""The metric whose design effect is given in a sentence."""


@dataclass(frozen=True)
class Groups:
    """Number of groups (patients or slides) of the test images, in all and with an image of each class."""

    n: int
    n_ssa: int
    n_hp: int


@dataclass(frozen=True)
class Sampling:
    """How the intervals of a report depend on images that are alike.

    Attributes:
        groups: None where no patient or slide is known, as are the design effects.
        min_groups: fewest groups that hold a class for an interval of a metric that depends on it.
        withheld: the metrics without an interval for that reason.
        design_effects: by metric.
        sensitivity: intervals by metric and supposed design effect; None where groups are known.
    """

    groups: Groups | None
    min_groups: int
    withheld: list[str]
    design_effects: dict[str, DesignEffect] | None
    sensitivity: dict[str, dict[str, tuple[float, float]]] | None


def groups_of(labels: npt.NDArray[np.int64], groups: Sequence[str] | None) -> Groups | None:
    """Return the number of groups of images with these labels; None where no groups are known."""
    if groups is None:
        return None
    units = grouped.units_of(labels.astype(np.bool_), groups)
    return Groups(units.n, units.n_ssa, units.n_hp)


def document(
    labels: npt.NDArray[np.int64],
    probabilities: FloatArray,
    groups: Sequence[str] | None,
    metrics: Mapping[str, MetricSummary],
) -> Sampling:
    """Return how the intervals of `metrics` depend on images that are alike.

    Args:
        labels: of the test images, [n].
        probabilities: of SSA, [S, n].
        groups: of the test images, [n]; None where they are not known.
        metrics: the summaries of these images.
    """
    return Sampling(
        groups=groups_of(labels, groups),
        min_groups=MIN_GROUPS,
        withheld=summaries.withheld(labels, groups),
        design_effects=None if groups is None else summaries.design_effects(labels, probabilities, groups),
        sensitivity=summaries.sensitivity(labels, probabilities, metrics) if groups is None else None,
    )


def counts(groups: Groups) -> str:
    """Return the number of groups in words."""
    return (
        f"{counted(groups.n, 'group')} (patients or slides), {groups.n_ssa} with {POSITIVE_CLASS} and "
        f"{groups.n_hp} with {NEGATIVE_CLASS}"
    )


def sentences(sampling: Sampling) -> list[str]:
    """Return the groups, their design effect and what is withheld, in a sentence each; none without groups."""
    if sampling.groups is None:
        return []
    found = [f"The test images come from {counts(sampling.groups)}."]
    shown = (sampling.design_effects or {}).get(_SHOWN)
    if shown:
        found.append(
            f"The design effect of AUROC is {shown.design_effect:.2f}: the {shown.n_images} images are as informative "
            f"as about {shown.n_effective:.0f} independent ones."
        )
    if sampling.withheld:
        found.append(
            f"No interval is given for {', '.join(name.replace('_', ' ') for name in sampling.withheld)}: fewer than "
            f"{sampling.min_groups} groups hold a class that it depends on, too few to measure how groups differ."
        )
    return found


def rows(sampling: Sampling, metrics: Mapping[str, MetricSummary]) -> tuple[str, Rows] | None:
    """Return a table with its title: design effects where groups are known, else supposed ones; None if it is empty."""
    if sampling.design_effects:
        head = ["metric", "design effect", "images", "effective sample size"]
        cells = [
            [name.replace("_", " "), number(one.design_effect, 2), str(one.n_images), number(one.n_effective, 0)]
            for name, one in sampling.design_effects.items()
        ]
        return "Design effect of the groups", [head, *cells]
    if sampling.sensitivity:
        effects = list(next(iter(sampling.sensitivity.values())))
        head = ["95% interval", "independent images", *(f"design effect {effect}" for effect in effects)]
        cells = [
            [name.replace("_", " "), interval(metrics[name].ci95), *map(interval, ends.values())]
            for name, ends in sampling.sensitivity.items()
        ]
        return "If images of a slide are alike", [head, *cells]
    return None
