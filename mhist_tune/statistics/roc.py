"""ROC curves of several seeds: each one's, and their mean with its band, as plain arrays.

Shapes: `n` images, `S` seeds, `G` false positive rates.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_curve

from mhist_tune.arrays import FloatArray

_GRID = np.linspace(0, 1, 201)


@dataclass(frozen=True)
class RocBand:
    """ROC curves over seeds.

    Attributes:
        seeds: false positive rates and sensitivities of each seed's own curve.
        fpr: the false positive rates that the rest is for, ascending from 0 to 1, [G].
        mean: of the seeds' sensitivities there (vertical averaging), [G].
        low: the lowest seed's, [G].
        high: the highest seed's, [G].
    """

    seeds: list[tuple[FloatArray, FloatArray]]
    fpr: FloatArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray


def roc_band(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> RocBand:
    """Return the ROC curves of several seeds.

    Args:
        labels: [n], 0 or 1, both present.
        probabilities: [S, n], in 0..1.
    """
    seeds = [roc_curve(labels, row)[:2] for row in np.asarray(probabilities)]
    curves = np.stack([np.interp(_GRID, fpr, tpr) for fpr, tpr in seeds])
    return RocBand(seeds, _GRID, curves.mean(axis=0), curves.min(axis=0), curves.max(axis=0))
