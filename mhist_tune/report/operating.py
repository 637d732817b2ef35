"""Numbers that a pathologist uses: confusion matrix, operating points, predictive values, net benefit, deferral.

A threshold that is chosen on the test images makes a description of them. A threshold that is fixed on held-out images
of the train partition has an honest test result, which is given beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mhist_tune.arrays import FloatArray
from mhist_tune.mhist import THRESHOLD
from mhist_tune.report.evidence import Evidence
from mhist_tune.report.sampling import Sampling
from mhist_tune.report.threshold import FixedThreshold, Predicted
from mhist_tune.statistics import net_benefit, operating_points, selective, summaries
from mhist_tune.statistics.calibration import Recalibration
from mhist_tune.statistics.estimates import Sample
from mhist_tune.statistics.net_benefit import DecisionCurve
from mhist_tune.statistics.selective import RiskCoverage
from mhist_tune.statistics.summaries import MetricSummary


@dataclass(frozen=True)
class Confusion:
    """Numbers of test images at a threshold, mean over seeds, by class of the majority and of the model."""

    threshold: float
    tp: MetricSummary
    fn: MetricSummary
    fp: MetricSummary
    tn: MetricSummary


@dataclass(frozen=True)
class OperatingPoint:
    """What is reached where a rate is held at a target.

    Attributes:
        fixed: the rate that is held: specificity or sensitivity.
        target: at least which.
        reached: the other rate, the threshold chosen for each seed on the test images; descriptive.
        threshold: fixed on held-out images; None without these, as is the rest.
        sensitivity: of the test images at this threshold.
        specificity: likewise.
    """

    fixed: str
    target: float
    reached: MetricSummary
    threshold: float | None
    sensitivity: MetricSummary | None
    specificity: MetricSummary | None


@dataclass(frozen=True)
class PredictiveValues:
    """Predictive values at a prevalence of SSA, from the test images' sensitivity and specificity at a threshold."""

    prevalence: float
    threshold: float
    ppv: MetricSummary
    npv: MetricSummary


@dataclass(frozen=True)
class Deferral:
    """Which share of the images to defer so that the rest errs in at most a rate.

    Attributes:
        risk: this rate.
        deferred: the smallest share, chosen for each seed on the test images; descriptive.
        certainty: the distance from 0.5 that is fixed on held-out images; None where none will do, as is the rest.
        deferred_there: share of the test images that is not above this certainty.
        risk_there: the error rate of the others.
    """

    risk: float
    deferred: MetricSummary
    certainty: float | None
    deferred_there: MetricSummary | None
    risk_there: MetricSummary | None


@dataclass(frozen=True)
class Operating:
    """The numbers of a model in use.

    Attributes:
        source: description of the held-out images; None without any.
        confusion: at 0.5 and, where there is one, at the threshold with the best F1 on held-out images.
        net_benefit: of the raw probabilities, and of recalibrated ones.
    """

    source: str | None
    confusion: list[Confusion]
    points: list[OperatingPoint]
    predictive_values: list[PredictiveValues]
    net_benefit: DecisionCurve
    risk_coverage: RiskCoverage
    deferral: list[Deferral]


def document(
    evidence: Evidence,
    metrics: dict[str, MetricSummary],
    sampling: Sampling,
    held_out: FixedThreshold | None,
    predicted: Predicted | None,
    prevalences: Sequence[float] = (),
) -> Operating | None:
    """Return the numbers of a model in use; None where the test images are of one class.

    Args:
        evidence: the test probabilities.
        metrics: on the test images at 0.5, by name.
        sampling: of these images.
        held_out: the threshold and recalibration from held-out images.
        predicted: the held-out images.
        prevalences: of SSA, above 0 and below 1; the test partition's if there is none.
    """
    images, table = evidence.images, evidence.probabilities
    positive = images.labels.astype(np.bool_)
    if not 0 < positive.sum() < positive.size:
        return None
    effect = (sampling.design_effects or {}).get("accuracy")
    sample = Sample(positive, images.groups, effect=max(1.0, effect.design_effect) if effect else 1.0)
    threshold = held_out.threshold if held_out else THRESHOLD
    shares = list(prevalences) or [float(positive.mean())]
    values = operating_points.predictive_values(sample, table, threshold=threshold, prevalences=shares)
    curve, to_defer = selective.risk_coverage(sample, table)
    confusion = [_confusion(THRESHOLD, metrics, sample)]
    if held_out:
        confusion.append(_confusion(held_out.threshold, held_out.metrics, sample))
    return Operating(
        source=predicted.source if predicted else None,
        confusion=confusion,
        points=_points(sample, table, predicted),
        predictive_values=[PredictiveValues(share, threshold, *values[share]) for share in shares],
        net_benefit=net_benefit.decision_curve(sample, table, _recalibrated(table, held_out)),
        risk_coverage=curve,
        deferral=[_deferral(sample, table, predicted, risk, found) for risk, found in to_defer.items()],
    )


def _confusion(threshold: float, metrics: dict[str, MetricSummary], sample: Sample) -> Confusion:
    n_ssa = int(sample.positive.sum())
    n_hp = sample.positive.size - n_ssa
    recall, specificity = metrics["recall"], metrics["specificity"]
    return Confusion(
        threshold,
        tp=_counts(recall, n_ssa),
        fn=_counts(recall, n_ssa, others=True),
        fp=_counts(specificity, n_hp, others=True),
        tn=_counts(specificity, n_hp),
    )


def _counts(rate: MetricSummary, n: int, *, others: bool = False) -> MetricSummary:
    """Return the number of the n images of a class that a rate is of, or of the others of this class."""

    def count(value: float | None) -> float | None:
        return None if value is None else n * (1 - value if others else value)

    ends = None if rate.ci95 is None else sorted(count(end) or 0.0 for end in rate.ci95)
    return MetricSummary(
        mean=count(rate.mean),
        std=None if rate.std is None else n * rate.std,
        ci95=None if ends is None else (ends[0], ends[1]),
        per_seed=[None if value is None else float(round(count(value) or 0.0)) for value in rate.per_seed],
    )


def _points(sample: Sample, table: FloatArray, predicted: Predicted | None) -> list[OperatingPoint]:
    found = []
    for (fixed, target), reached in operating_points.on_these_images(sample, table).items():
        threshold, there = None, dict[str, MetricSummary]()
        if predicted:
            threshold = operating_points.threshold_for(
                predicted.labels, predicted.probabilities, fixed=fixed, target=target
            )
        if threshold is not None:
            there = summaries.summary(
                sample.positive, table, groups=sample.groups, threshold=threshold, names=("recall", "specificity")
            )
        found.append(OperatingPoint(fixed, target, reached, threshold, there.get("recall"), there.get("specificity")))
    return found


def _deferral(
    sample: Sample, table: FloatArray, predicted: Predicted | None, risk: float, found: MetricSummary
) -> Deferral:
    certainty = None
    if predicted:
        certainty = selective.certainty_for(predicted.labels, predicted.probabilities, risk)
    if certainty is None:
        return Deferral(risk, found, None, None, None)
    return Deferral(risk, found, certainty, *selective.kept_and_wrong(sample, table, certainty))


def _recalibrated(table: FloatArray, held_out: FixedThreshold | None) -> FloatArray | None:
    if held_out is None or "recalibrated" not in held_out.calibration:
        return None
    return Recalibration(held_out.slope, held_out.intercept).apply(table)
