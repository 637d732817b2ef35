"""Test whether two ways to train end with the same validation AUROC, within a margin, by pairs of the same seed.

A few pilot pairs show how much the difference of a pair varies. From that follows the number of further pairs: if the
ways are equal, these pairs show it with a chance of 90%. The pilot pairs are not used again. The ways are equivalent
at 5% if the 90% interval of the mean difference lies within the margin (two one-sided t tests, Schuirmann 1987).
"""

import math
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

from scipy.stats import chi2, t

LEVEL, POWER, PILOT_LEVEL = 0.05, 0.9, 0.8
MIN_PAIRS = 4


def n_pairs(pilot: Sequence[float], margin: float) -> int:
    """Return the number of pairs that shows equivalence with the given power, from the differences of pilot pairs.

    That of two one-sided t tests when the true difference is zero: the least n with
    n >= (s (t(1 - level) + t((1 + power) / 2)) / margin)^2, both quantiles with n - 1 degrees of freedom. A few pairs
    estimate the standard deviation badly, so s is the upper end of its one-sided 80% interval (Browne 1995).

    >>> n_pairs([0.0, 0.01, 0.01, 0.02], 0.01)
    24
    """
    freedom = len(pilot) - 1
    deviation = statistics.stdev(pilot) * math.sqrt(freedom / chi2.ppf(1 - PILOT_LEVEL, freedom))
    n = MIN_PAIRS
    while n < (deviation * (t.ppf(1 - LEVEL, n - 1) + t.ppf((1 + POWER) / 2, n - 1)) / margin) ** 2:
        n += 1
    return n


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean difference and the bounds of its 90% interval, by Student's t."""
    n = len(differences)
    mean = statistics.mean(differences)
    half = float(t.ppf(1 - LEVEL, n - 1)) * statistics.stdev(differences) / math.sqrt(n)
    return mean, mean - half, mean + half


def compare(
    train: Callable[[range], list[tuple[float, float]]], names: tuple[str, str], *, n_pilot: int, margin: float
) -> dict[str, Any]:
    """Train the pilot pairs and the pairs that they ask for, and return the entries of a row.

    `train` returns the AUROCs of both ways for each seed of a range, in the order of `names`, reference first. `ratio`
    is the bound of the interval that is farther from zero: at or below `goal`, the margin, the ways are equivalent.
    """
    pilot = [other - reference for reference, other in train(range(n_pilot))]
    n_seeds = n_pairs(pilot, margin)
    sys.stderr.write(f"{n_seeds} pairs after {n_pilot} pilot pairs\n")
    pairs = train(range(n_pilot, n_pilot + n_seeds))
    mean, low, high = interval([other - reference for reference, other in pairs])
    return {
        names[0]: statistics.mean(reference for reference, _ in pairs),
        names[1]: statistics.mean(other for _, other in pairs),
        "unit": "AUROC",
        "ratio": max(abs(low), abs(high)),
        "goal": margin,
        "difference": mean,
        "low": low,
        "high": high,
        "n_seeds": n_seeds,
        "pilot_deviation": statistics.stdev(pilot),
    }
