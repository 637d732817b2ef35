"""Calibration of models on test images: slope and intercept with intervals, and the floor of the calibration error.

Shapes: `n` images, `S` seeds (one model each), `G` units. Labels are 0 (HP) or 1 (SSA), probabilities are those of SSA.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from mhist_tune.arrays import FloatArray
from mhist_tune.statistics import groups as grouped
from mhist_tune.statistics.binary_metrics import N_ECE_BINS, checked
from mhist_tune.statistics.calibration import logit
from mhist_tune.statistics.groups import MIN_GROUPS, Units
from mhist_tune.statistics.summaries import MetricSummary

_N_DRAWS = 200
_N_STEPS = 50
_TOLERANCE = 1e-10
_STEEPEST = 50.0
"""A slope above it means that a threshold separates the classes, so that no slope fits best."""


@dataclass(frozen=True)
class CalibrationOnTest:
    """Calibration of a model's probabilities (Van Calster et al., 2019).

    Attributes:
        slope: of the logistic regression of labels on logits; 1 is perfect, below 1 is overconfident.
        intercept: of this regression with the slope 1 (calibration in the large); 0 is perfect, below 0 means that
            probabilities are too high on average.
        ece_floor: the calibration error that a perfectly calibrated model with these probabilities has on average with
            so many images. It is above 0, and for images that are independent.
    """

    slope: MetricSummary
    intercept: MetricSummary
    ece_floor: float


def calibration_on_test(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, groups: Sequence[str] | None = None, seed: int = 0
) -> CalibrationOnTest:
    """Return the calibration of a model over its seeds.

    The intervals are t intervals of the regressions' influence functions, summed over each image or group, and of the
    variation of the seeds (`groups.variance`; sandwich variance of White, 1980, and Liang and Zeger, 1986). They are
    None where fewer than `MIN_GROUPS` groups hold a class. A slope is None where a threshold separates the classes.

    Args:
        labels: [n], 0 or 1, both present.
        probabilities: [S, n], in 0..1.
        groups: the patient or slide of each image, [n]; None where they are not known.
        seed: of the draws for the floor.
    """
    positive, table = checked(labels, probabilities)
    units = grouped.units_of(positive, groups)
    target = positive.astype(np.float64)
    slopes = [_regression(target, row, units) for row in logit(table)]
    intercepts = [_intercept(target, row, units) for row in logit(table)]
    return CalibrationOnTest(_summary(slopes, units), _summary(intercepts, units), ece_floor(table, seed=seed))


def ece_floor(probabilities: npt.ArrayLike, *, seed: int = 0) -> float:
    """Return the mean calibration error of labels drawn from the probabilities themselves, [S, n]."""
    rng = np.random.default_rng(seed)
    errors = []
    for row in np.asarray(probabilities, dtype=np.float64):
        bins = np.minimum((row * N_ECE_BINS).astype(np.int64), N_ECE_BINS - 1)
        gaps = (row - (rng.random((_N_DRAWS, row.size)) < row)) @ np.eye(N_ECE_BINS)[bins]
        errors.append(float(np.abs(gaps).sum(axis=1).mean()) / row.size)
    return float(np.mean(errors))


def _regression(target: FloatArray, logits: FloatArray, units: Units) -> tuple[float, FloatArray] | None:
    """Return the slope and each unit's influence on it, [G]; None where no slope fits best."""
    design = np.stack([np.ones_like(logits), logits], axis=1)
    coefficients = np.zeros(2)
    for _ in range(_N_STEPS):
        fitted = special.expit(design @ coefficients)
        weights = fitted * (1 - fitted)
        information = design.T @ (design * weights[:, None])
        if np.linalg.cond(information) > 1e12:
            return None
        step = np.linalg.solve(information, design.T @ (target - fitted))
        # A whole step may lead farther from the maximum, and then from side to side of it.
        reached = _log_likelihood(target, design @ coefficients)
        while _log_likelihood(target, design @ (coefficients + step)) < reached and np.abs(step).max() > _TOLERANCE:
            step = step / 2
        coefficients = coefficients + step
        if abs(coefficients[1]) > _STEEPEST:
            return None
        if np.abs(step).max() < _TOLERANCE:
            break
    scores = design * (target - special.expit(design @ coefficients))[:, None]
    of_images = np.linalg.solve(information, scores.T)[1]
    return float(coefficients[1]), _sums(of_images, units)


def _log_likelihood(target: FloatArray, logits: FloatArray) -> float:
    return float((target * logits - np.logaddexp(0.0, logits)).sum())


def _intercept(target: FloatArray, logits: FloatArray, units: Units) -> tuple[float, FloatArray]:
    """Return the intercept of a logistic regression with the slope 1, and each unit's influence on it, [G]."""
    farthest = float(np.abs(logits).max()) + 50
    intercept = float(
        optimize.brentq(
            lambda level: (target - special.expit(level + logits)).sum(), -farthest, farthest, xtol=_TOLERANCE
        )
    )
    fitted = special.expit(intercept + logits)
    return intercept, _sums((target - fitted) / (fitted * (1 - fitted)).sum(), units)


def _sums(of_images: FloatArray, units: Units) -> FloatArray:
    """Return the influences of units, scaled as if each had been left out, [G]."""
    sums: FloatArray = np.bincount(units.of_image, weights=of_images, minlength=units.n) * units.n / max(units.n - 1, 1)
    return sums


def _summary(fits: Sequence[tuple[float, FloatArray] | None], units: Units) -> MetricSummary:
    known = [fit for fit in fits if fit is not None]
    if len(known) < len(fits):
        return MetricSummary(None, None, None, [None if fit is None else fit[0] for fit in fits])
    values = np.array([value for value, _ in known])
    mean, ci95 = float(values.mean()), None
    if units.n > 1 and not (units.are_groups and units.n_rarer < MIN_GROUPS):
        variance = grouped.variance([(np.stack([per_unit for _, per_unit in known], axis=1), values)], units)
        half = variance.t(0.975) * variance.se
        ci95 = (mean - half, mean + half)
    return MetricSummary(
        mean=mean,
        std=float(values.std(ddof=1)) if values.size > 1 else None,
        ci95=ci95,
        per_seed=[float(value) for value in values],
    )
