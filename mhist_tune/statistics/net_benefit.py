"""Net benefit at each threshold probability: the decision curve (Vickers and Elkin, 2006).

At the threshold probability t, calling an image SSA that is HP costs t / (1 - t) of what calling an SSA image gains.
Net benefit is TP / n - FP / n * t / (1 - t). Calling every image SSA and calling none are the alternatives.

Shapes: `n` images, `S` seeds (one model each), `B` rows of weights, `T` thresholds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mhist_tune.arrays import FloatArray
from mhist_tune.statistics.estimates import Band, Sample

THRESHOLDS = np.round(np.arange(0.02, 0.981, 0.02), 2)


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit, of a true SSA image found, at each threshold probability.

    Attributes:
        thresholds: the threshold probabilities, [T], as is each of the rest.
        model: mean over seeds.
        above_all: the model's minus that of the better alternative: calling every image SSA, or none.
        treat_all: of calling every image SSA; calling none has 0.
        recalibrated: of recalibrated probabilities; None where there are none.
    """

    thresholds: list[float]
    model: Band
    above_all: Band
    treat_all: list[float]
    recalibrated: list[float] | None


def decision_curve(sample: Sample, probabilities: FloatArray, recalibrated: FloatArray | None) -> DecisionCurve:
    """Return the decision curve of models on the sample's images; probabilities are [S, n]."""
    positive = sample.positive

    def statistics(weights: FloatArray) -> Mapping[str, FloatArray]:
        model, everyone = net_benefits(positive, probabilities, weights)
        return {"model": model, "above_all": model - np.maximum(everyone, 0)[:, None]}

    drawn = sample.resample(statistics)
    ones = np.ones((1, positive.size))
    return DecisionCurve(
        thresholds=THRESHOLDS.tolist(),
        model=drawn.band("model"),
        above_all=drawn.band("above_all"),
        treat_all=net_benefits(positive, probabilities, ones)[1][0].tolist(),
        recalibrated=None
        if recalibrated is None
        else net_benefits(positive, recalibrated, ones)[0][0].mean(axis=0).tolist(),
    )


def net_benefits(
    positive: npt.NDArray[np.bool_], probabilities: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the net benefit of each model, [B, S, T], and of calling every image SSA, [B, T].

    Args:
        positive: which images are SSA, bool [n].
        probabilities: [S, n].
        weights: [B, n], at least 0.
    """
    n = weights.sum(axis=1)[:, None]
    cost = THRESHOLDS / (1 - THRESHOLDS)
    # An image's worth if it is called, [n, T].
    worth = np.where(positive[:, None], 1.0, -cost)
    models = [weights @ (worth * (row[:, None] > THRESHOLDS)) / n for row in probabilities]
    return np.stack(models, axis=1), weights @ worth / n
