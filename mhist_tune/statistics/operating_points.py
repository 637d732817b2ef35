"""Sensitivity at a fixed specificity and the reverse, and predictive values at any prevalence.

Shapes: `n` images, `S` seeds (one model each), `B` rows of weights. Labels are 0 (HP) or 1 (SSA), probabilities are
those of SSA. An image is called SSA if its probability is above the threshold.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mhist_tune.arrays import FloatArray
from mhist_tune.statistics import proportions
from mhist_tune.statistics.binary_metrics import checked, weighted_metrics
from mhist_tune.statistics.estimates import Sample
from mhist_tune.statistics.summaries import MetricSummary

TARGETS = (0.9, 0.95)
FIXED = ("specificity", "sensitivity")
"""What is held at a target; the other one is reported."""
_ROUNDING = 1e-9


def at_targets(
    positive: npt.NDArray[np.bool_], probabilities: FloatArray, weights: FloatArray
) -> dict[tuple[str, float], FloatArray]:
    """Return the highest other rate of a threshold at which a fixed rate is at least a target, each [B, S].

    Args:
        positive: which images are SSA, bool [n].
        probabilities: [S, n].
        weights: [B, n], at least 0.

    Returns:
        By the fixed rate and its target; NaN where a class has no weight.
    """
    found: dict[tuple[str, float], list[FloatArray]] = {(fixed, target): [] for fixed in FIXED for target in TARGETS}
    for row in probabilities:
        order = np.argsort(-row, kind="stable")
        ends = np.append(np.diff(row[order]) != 0, True)
        ordered = weights[:, order]
        start = np.zeros((len(weights), 1))
        of_ssa = np.concatenate([start, np.cumsum(ordered * positive[order], axis=1)[:, ends]], axis=1)
        of_hp = np.concatenate([start, np.cumsum(ordered * ~positive[order], axis=1)[:, ends]], axis=1)
        n_ssa, n_hp = of_ssa[:, -1:], of_hp[:, -1:]
        with np.errstate(invalid="ignore", divide="ignore"):
            for target in TARGETS:
                last = (of_hp <= (1 - target + _ROUNDING) * n_hp).sum(axis=1, keepdims=True) - 1
                sensitivity = np.take_along_axis(of_ssa, last, axis=1) / n_ssa
                found["specificity", target].append(np.where(n_hp > 0, sensitivity, np.nan)[:, 0])
                first = (of_ssa < (target - _ROUNDING) * n_ssa).sum(axis=1, keepdims=True)
                specificity = 1 - np.take_along_axis(of_hp, first, axis=1) / n_hp
                found["sensitivity", target].append(np.where(n_ssa > 0, specificity, np.nan)[:, 0])
    return {key: np.stack(values, axis=1) for key, values in found.items()}


def threshold_for(labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, fixed: str, target: float) -> float | None:
    """Return the threshold at which the fixed rate is at least the target and the other rate is highest.

    It lies halfway between two neighbouring probabilities, or between one and 0 or 1.

    Args:
        labels: [n], 0 or 1.
        probabilities: of one model, [n], in 0..1.
        fixed: specificity or sensitivity.
        target: in 0..1.

    Returns:
        None if a class is absent.
    """
    positive, of_one_model = checked(labels, np.asarray(probabilities, dtype=np.float64)[None])
    if not 0 < positive.sum() < positive.size:
        return None
    values = np.unique(of_one_model[0])
    thresholds = np.concatenate([[values[0] / 2], (values[1:] + values[:-1]) / 2, [(values[-1] + 1) / 2]])
    called = of_one_model[0] > thresholds[:, None]
    sensitivity = called[:, positive].mean(axis=1)
    specificity = 1 - called[:, ~positive].mean(axis=1)
    if fixed == "specificity":
        return float(thresholds[np.flatnonzero(specificity >= target - _ROUNDING)[0]])
    return float(thresholds[np.flatnonzero(sensitivity >= target - _ROUNDING)[-1]])


def on_these_images(sample: Sample, probabilities: FloatArray) -> dict[tuple[str, float], MetricSummary]:
    """Return what each seed reaches at the targets, its threshold chosen on these very images; as `at_targets`."""
    n_ssa = float(sample.positive.sum())
    n_images = {"specificity": n_ssa, "sensitivity": sample.positive.size - n_ssa}
    keys = {f"{fixed} {target:g}": (fixed, target) for fixed in FIXED for target in TARGETS}

    def statistics(weights: FloatArray) -> Mapping[str, FloatArray]:
        found = at_targets(sample.positive, probabilities, weights)
        return {name: found[key] for name, key in keys.items()}

    drawn = sample.resample(statistics)
    return {key: drawn.summary(name, n_trials=n_images[key[0]]) for name, key in keys.items()}


def predictive_values(
    sample: Sample, probabilities: FloatArray, *, threshold: float, prevalences: Sequence[float]
) -> dict[float, tuple[MetricSummary, MetricSummary]]:
    """Return positive and negative predictive value by prevalence, from sensitivity and specificity (Bayes' rule).

    A seed that calls no image SSA has no positive predictive value, and likewise for HP. Where few HP images are
    called SSA, the interval of the positive predictive value is that of the specificity (Wilson's), put into Bayes'
    rule; likewise for few missed SSA images and the negative one.
    """
    n_ssa = float(sample.positive.sum())
    n_hp = sample.positive.size - n_ssa

    def statistics(weights: FloatArray) -> Mapping[str, FloatArray]:
        rates = weighted_metrics(sample.positive, probabilities, weights, threshold, ("recall", "specificity"))
        found = dict(rates)
        for share in prevalences:
            found[f"ppv {share}"] = _predictive_value(rates["recall"], rates["specificity"], share)
            found[f"npv {share}"] = _predictive_value(rates["specificity"], rates["recall"], 1 - share)
        return found

    drawn = sample.resample(statistics)
    recall, specificity = drawn.summary("recall", n_trials=n_ssa), drawn.summary("specificity", n_trials=n_hp)
    return {
        share: (
            _mapped(drawn.summary(f"ppv {share}"), recall, specificity, share, n_hp),
            _mapped(drawn.summary(f"npv {share}"), specificity, recall, 1 - share, n_ssa),
        )
        for share in prevalences
    }


def _predictive_value(own: FloatArray, other: FloatArray, share: float) -> FloatArray:
    """Return the share of a class among the images called it.

    Args:
        own: share of the images of this class that are called it.
        other: share of the images of the other class that are called the other.
        share: prevalence of this class.
    """
    called, wrong = own * share, (1 - other) * (1 - share)
    with np.errstate(invalid="ignore", divide="ignore"):
        value: FloatArray = called / (called + wrong)
    return value


def _mapped(
    value: MetricSummary, own: MetricSummary, other: MetricSummary, share: float, n_other: float
) -> MetricSummary:
    """Return a predictive value; the other rate gives its interval where few images of the other class are wrong."""
    known = own.mean is not None and other.mean is not None and other.ci95 is not None and value.ci95 is not None
    if not known or not proportions.is_few(other.mean or 0.0, n_other):
        return value
    ends = _predictive_value(np.array(own.mean), np.asarray(other.ci95), share)
    return dataclasses.replace(value, ci95=(float(ends[0]), float(ends[1])))
