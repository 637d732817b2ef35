"""Variances over groups and seeds: by hand, and over simulated studies."""

import numpy as np
import pytest
from scipy import stats

from mhist_tune.statistics import groups as grouped


def means(values):
    """A statistic for `influences`: the weighted mean of values [S, n]."""
    return lambda weights: {"mean": weights @ values.T / weights.sum(axis=1, keepdims=True)}


def test_units_count_what_holds_a_class():
    """Three groups, two of which hold SSA and two HP; each image is a unit where no groups are known."""
    positive = np.array([True, False, True, False])
    units = grouped.units_of(positive, ["a", "a", "b", "c"])
    assert (units.n, units.n_ssa, units.n_hp, units.n_rarer) == (3, 2, 2, 2)
    assert grouped.units_of(positive, None).n == 4


def test_the_variance_of_a_mean_is_that_of_the_textbook():
    """Of one model and single images it is s^2 / n, with n - 1 degrees of freedom, and t intervals are scipy's."""
    values = np.random.default_rng(0).random((1, 25))
    units = grouped.units_of(np.ones(25, dtype=bool), None)
    found = grouped.variance([(grouped.influences(means(values), units)["mean"], values.mean(axis=1))], units)
    assert found.total == pytest.approx(values.var(ddof=1) / 25)
    assert found.df == pytest.approx(24)
    assert found.t(0.975) == pytest.approx(stats.t.ppf(0.975, 24))


def test_groups_of_equal_size_have_the_variance_of_their_means():
    """Eight groups of five images: the variance of the mean is that of eight group means."""
    values = np.random.default_rng(1).random((1, 40))
    units = grouped.units_of(np.ones(40, dtype=bool), [str(index // 5) for index in range(40)])
    found = grouped.variance([(grouped.influences(means(values), units)["mean"], values.mean(axis=1))], units)
    assert found.total == pytest.approx(values.reshape(8, 5).mean(axis=1).var(ddof=1) / 8)
    assert found.df == pytest.approx(7)


def test_units_seeds_and_their_interaction_count_once():
    """Over simulated studies the mean variance is the variance of the means, and its parts add up without a double."""
    rng = np.random.default_rng(2)
    units = grouped.units_of(np.ones(60, dtype=bool), [str(index // 3) for index in range(60)])
    totals, estimates = [], []
    for _ in range(400):
        of_group = np.repeat(rng.normal(size=20), 3)
        values = of_group + rng.normal(size=(5, 1)) * 0.3 + rng.normal(size=(5, 60))
        found = grouped.variance([(grouped.influences(means(values), units)["mean"], values.mean(axis=1))], units)
        totals.append(found.total)
        estimates.append(values.mean())
    assert np.mean(totals) == pytest.approx(np.var(estimates), rel=0.15)


def test_two_models_on_the_same_groups_are_paired():
    """What both models share drops out of the variance of their difference."""
    rng = np.random.default_rng(3)
    shared, own = rng.normal(size=60), rng.normal(size=(2, 1, 60)) * 0.1
    units = grouped.units_of(np.ones(60, dtype=bool), [str(index // 3) for index in range(60)])
    models = [(grouped.influences(means(shared + one), units)["mean"], (shared + one).mean(axis=1)) for one in own]
    assert grouped.variance(models, units).se < 0.3 * grouped.variance(models[:1], units).se


def test_degrees_of_freedom_follow_the_groups_that_the_variance_comes_from():
    """Ten groups hold SSA and thirty HP: a variance from SSA has 9, one from HP 29, and one from both more."""
    positive = np.repeat([True] * 10 + [False] * 30, 4)
    groups = [str(index // 4) for index in range(160)]
    units = grouped.units_of(positive, groups)
    noise = np.random.default_rng(4).normal(size=(1, 160))
    for chosen, df in ((positive, 9), (~positive, 29)):

        def mean(weights, chosen=chosen):
            return {"mean": weights[:, chosen] @ noise[:, chosen].T / weights[:, chosen].sum(axis=1, keepdims=True)}

        per_unit = grouped.influences(mean, units)["mean"]
        inside = np.isin(np.arange(units.n), units.of_image[chosen])
        per_unit = per_unit * inside[:, None]
        assert grouped.variance([(per_unit, np.zeros(1))], units).df == pytest.approx(df)


def test_intervals_stay_where_the_number_can_be():
    """On the logit scale an interval stays in 0..1, on the log scale above 0; both hold the number itself."""
    wide = grouped.Variance(of_units=0.04, of_seeds=0.0, of_both=0.0, df=9.0)
    low, high = grouped.logit_interval(0.95, wide)
    assert 0 < low < 0.95 < high < 1
    low, high = grouped.log_interval(0.3, wide)
    assert 0 < low < 0.3 < high
