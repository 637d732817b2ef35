"""The corrected interval of a mean over repeated cross-validations."""

import numpy as np
import pytest
from scipy import stats

from mhist_tune.statistics.repeated import corrected


def test_the_variance_counts_the_images_that_repetitions_share() -> None:
    """1 / (r k) + 1 / (k - 1) times the variance (Bouckaert and Frank), with r k - 1 degrees of freedom."""
    differences = np.array([[0.01, 0.03, 0.02], [0.00, 0.05, 0.04]])
    found = corrected(differences, 0.002)

    se = differences.std(ddof=1) * np.sqrt(1 / 6 + 1 / 2)
    assert found.estimate == pytest.approx(0.027)
    assert found.se == pytest.approx(se)
    assert found.ci95 == pytest.approx((0.027 - stats.t.ppf(0.975, 5) * se, 0.027 + stats.t.ppf(0.975, 5) * se))


def test_more_repetitions_of_the_same_images_do_not_make_it_vanish() -> None:
    """A hundred repetitions still have the part of the shared images."""
    draws = np.random.default_rng(0).normal(0.02, 0.01, (100, 5))
    assert corrected(draws).se > 0.4 * draws.std()
