"""Risk against coverage: which share of the images to defer to a pathologist so that the rest errs below a rate.

The images with a probability nearest to 0.5 are deferred first (Geifman and El-Yaniv, 2017). Coverage is the share that
is kept, risk the error rate among these.

Shapes: `n` images, `S` seeds (one model each), `B` rows of weights. Labels are 0 (HP) or 1 (SSA).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mhist_tune.arrays import FloatArray
from mhist_tune.mhist import THRESHOLD
from mhist_tune.statistics.binary_metrics import checked
from mhist_tune.statistics.estimates import Band, Sample
from mhist_tune.statistics.summaries import MetricSummary

RISKS = (0.02, 0.05, 0.1)
COVERAGES = np.round(np.arange(0.05, 1.001, 0.05), 2)
_ROUNDING = 1e-9


@dataclass(frozen=True)
class RiskCoverage:
    """The error rate among the images that are kept.

    Attributes:
        coverage: share of the images that is kept, ascending.
        risk: mean over seeds, at each.
        area: under the curve, over all coverages; lower is better.
    """

    coverage: list[float]
    risk: Band
    area: MetricSummary


def risk_coverage(sample: Sample, probabilities: FloatArray) -> tuple[RiskCoverage, dict[float, MetricSummary]]:
    """Return the curve of models on the sample's images, and what to defer so that the rest errs in at most a rate.

    Args:
        sample: the images.
        probabilities: [S, n].

    Returns:
        The curve, and by each of `RISKS` the smallest share to defer, chosen for each seed on these very images.
    """
    drawn = sample.resample(lambda weights: risks(sample.positive, probabilities, weights))
    n_images = float(sample.positive.size)
    curve = RiskCoverage(COVERAGES.tolist(), drawn.band("risk"), drawn.summary("area", is_share=False))
    return curve, {risk: drawn.summary(f"deferred {risk}", n_trials=n_images) for risk in RISKS}


def risks(positive: npt.NDArray[np.bool_], probabilities: FloatArray, weights: FloatArray) -> dict[str, FloatArray]:
    """Return `risk` at each of `COVERAGES`, [B, S, T], its `area`, and `deferred R` for each of `RISKS`, [B, S].

    Risk is the error rate among the most certain images. One that is only partly within a coverage counts as that
    part. Area is the mean risk over the images, each with those that are more certain. To be deferred is the smallest
    share of the least certain images without which the rest errs in at most R; images that are equally certain are
    deferred together.

    Args:
        positive: which images are SSA, bool [n].
        probabilities: [S, n].
        weights: [B, n], at least 0.
    """
    found: dict[str, list[FloatArray]] = {"risk": [], "area": [], **{f"deferred {risk}": [] for risk in RISKS}}
    for row in probabilities:
        kept, wrong = _ordered(positive, row, weights)
        total = kept[:, -1:]
        within = COVERAGES * total
        pairs = zip(within, kept, wrong, strict=True)
        found["risk"].append(np.stack([np.interp(goals, *curve) / goals for goals, *curve in pairs]))
        rates = np.divide(wrong, kept, out=np.zeros_like(kept), where=kept > 0)
        found["area"].append((np.diff(kept, axis=1) * rates[:, 1:]).sum(axis=1) / total[:, 0])
        for risk in RISKS:
            most = np.where(rates <= risk + _ROUNDING, kept, 0.0).max(axis=1)
            found[f"deferred {risk}"].append(1 - most / total[:, 0])
    return {name: np.stack(values, axis=1) for name, values in found.items()}


def certainty_for(labels: npt.ArrayLike, probabilities: npt.ArrayLike, risk: float) -> float | None:
    """Return the distance from 0.5 above which the images err in at most `risk` and are as many as possible.

    Args:
        labels: [n], 0 or 1.
        probabilities: of one model, [n], in 0..1.
        risk: in 0..1.

    Returns:
        Halfway between two neighbouring distances; None if no set of the most certain images errs so rarely.
    """
    positive, of_one_model = checked(labels, np.asarray(probabilities, dtype=np.float64)[None])
    kept, wrong = _ordered(positive, of_one_model[0], np.ones((1, positive.size)))
    distances = np.unique(np.abs(of_one_model[0] - THRESHOLD))[::-1]
    allowed = np.flatnonzero((wrong <= (risk + _ROUNDING) * kept)[0])
    allowed = allowed[kept[0, allowed] > 0]
    if not allowed.size:
        return None
    last = int(allowed[-1]) - 1  # the first column is that of no image
    if last == distances.size - 1:
        return 0.0 if distances[last] > 0 else -1.0
    return float((distances[last] + distances[last + 1]) / 2)


def kept_and_wrong(sample: Sample, probabilities: FloatArray, certainty: float) -> tuple[MetricSummary, MetricSummary]:
    """Return the share deferred and the error rate among the rest, if images above this certainty are kept."""
    is_kept = np.abs(probabilities - THRESHOLD) > certainty
    is_wrong = is_kept & ((probabilities > THRESHOLD) != sample.positive)

    def statistics(weights: FloatArray) -> Mapping[str, FloatArray]:
        kept, wrong = (weights @ chosen.T.astype(np.float64) for chosen in (is_kept, is_wrong))
        with np.errstate(invalid="ignore", divide="ignore"):
            return {"deferred": 1 - kept / weights.sum(axis=1, keepdims=True), "risk": wrong / kept}

    n_kept = float(is_kept.sum(axis=1).mean())
    drawn = sample.resample(statistics)
    return drawn.summary("deferred", n_trials=float(sample.positive.size)), drawn.summary("risk", n_trials=n_kept)


def _ordered(positive: npt.NDArray[np.bool_], row: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the weight of the most certain images and of the wrong ones among them, each [B, D + 1] from 0.

    One column for each of the D distances from 0.5, the largest first.
    """
    distance = np.abs(row - THRESHOLD)
    order = np.argsort(-distance, kind="stable")
    ends = np.append(np.diff(distance[order]) != 0, True)
    is_wrong = ((row > THRESHOLD) != positive)[order]
    ordered = weights[:, order]
    start = np.zeros((len(weights), 1))
    kept = np.concatenate([start, np.cumsum(ordered, axis=1)[:, ends]], axis=1)
    wrong = np.concatenate([start, np.cumsum(ordered * is_wrong, axis=1)[:, ends]], axis=1)
    return kept, wrong
