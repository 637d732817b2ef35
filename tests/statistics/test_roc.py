"""The mean ROC curve of several seeds with its band."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from mhist_tune.statistics.roc import roc_band


def test_the_band_holds_every_seed_and_the_mean_has_their_area() -> None:
    """Low, mean and high are those of the seeds' sensitivities at each false positive rate."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, size=200)
    probabilities = np.clip(0.3 * labels + 0.5 * rng.random((4, 200)), 0, 1)
    band = roc_band(labels, probabilities)
    curves = [np.interp(band.fpr, *roc_curve(labels, row)[:2]) for row in probabilities]

    assert len(band.seeds) == 4
    assert np.array_equal(band.low, np.min(curves, axis=0))
    assert np.array_equal(band.high, np.max(curves, axis=0))
    assert np.trapezoid(band.mean, band.fpr) == pytest.approx(
        np.mean([roc_auc_score(labels, row) for row in probabilities]), abs=0.01
    )


def test_one_seed_is_its_own_band() -> None:
    """There is nothing between the lowest and the highest then."""
    band = roc_band([0, 1, 0, 1], [[0.1, 0.9, 0.4, 0.3]])
    assert np.array_equal(band.low, band.high)
    assert (band.fpr[0], band.fpr[-1], band.mean[-1]) == (0.0, 1.0, 1.0)
