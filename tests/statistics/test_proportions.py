import numpy as np
import pytest
from scipy.stats import binomtest

from mhist_tune.statistics.proportions import effective_count, wilson


@pytest.mark.parametrize(("n_wrong", "n"), [(0, 30), (1, 30), (30, 30), (7, 12)])
def test_wilson_is_scipys(n_wrong, n):
    """Of whole counts and the normal quantile it is scipy's Wilson interval."""
    expected = binomtest(n_wrong, n).proportion_ci(method="wilson")
    assert wilson(n_wrong / n, n, 1.959964) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_a_larger_quantile_is_wider_and_no_trial_says_nothing():
    """The t quantile of few groups widens the interval; a proportion of nothing may be anything."""
    assert wilson(0.1, 20, 2.3)[1] > wilson(0.1, 20, 1.96)[1]
    assert wilson(0.0, 0, 1.96) == (0.0, 1.0)


def test_the_effective_count_is_that_of_binomial_variance_up_to_the_trials_where_few():
    """A binomial variance gives the trials, twice of it half of them; few cases give no more than the trials."""
    assert effective_count(0.2, 0.2 * 0.8 / 50, 50) == pytest.approx(50)
    assert effective_count(0.2, 2 * 0.2 * 0.8 / 50, 50) == pytest.approx(25)
    assert effective_count(0.02, 0.02 * 0.98 / 5000, 300) == 300
    assert effective_count(0.2, 0.2 * 0.8 / 500, 300) == pytest.approx(500)
    assert effective_count(0.0, 0.0, 30) == 30


def test_wilson_on_effective_counts_covers_rates_near_zero():
    """Of 3% errors among 60 images by five alike models, at least 93% of intervals hold the rate."""
    rng = np.random.default_rng(0)
    n_held = 0
    for _ in range(1000):
        rate = (rng.random(60) < 0.03).mean()
        n_held += (lambda ends: ends[0] <= 0.03 <= ends[1])(wilson(rate, 60, 1.96))
    assert n_held >= 930
