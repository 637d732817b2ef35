import numpy as np
import pytest
import statsmodels.api as sm
from scipy import special

from mhist_tune.statistics.binary_metrics import metrics_of
from mhist_tune.statistics.calibration_on_test import calibration_on_test, ece_floor


def made(rng, n=400, *, slope=1.0, intercept=0.0, n_seeds=1, between=0.0, size=1):
    """Labels and probabilities whose logits, mapped by slope and intercept, are the true ones."""
    logits = rng.normal(size=(1, n)) * 1.5 + 0.2 * rng.normal(size=(n_seeds, n))
    truth = special.expit(slope * logits[0] + intercept + between * np.repeat(rng.normal(size=n // size), size))
    return (rng.random(n) < truth).astype(int), special.expit(logits), [str(index // size) for index in range(n)]


def test_slope_and_intercept_are_those_of_statsmodels():
    """Slope and calibration in the large are logistic regressions; their errors are the robust ones, by group too."""
    labels, table, groups = made(np.random.default_rng(0), slope=0.7, intercept=0.3, size=4)
    logits = special.logit(table[0])
    for known in (None, groups):
        found = calibration_on_test(labels, table, groups=known)
        robust = (
            {"cov_type": "HC0"}
            if known is None
            else {"cov_type": "cluster", "cov_kwds": {"groups": np.array(known, int)}}
        )
        expected = sm.GLM(labels, sm.add_constant(logits), family=sm.families.Binomial()).fit(**robust)
        large = sm.GLM(labels, np.ones((400, 1)), family=sm.families.Binomial(), offset=logits).fit(**robust)
        for one, mean, se in (
            (found.slope, expected.params[1], expected.bse[1]),
            (found.intercept, large.params[0], large.bse[0]),
        ):
            assert one.mean == pytest.approx(mean, abs=1e-6)
            assert np.ptp(one.ci95) == pytest.approx(2 * 1.97 * se, rel=0.05)


@pytest.mark.parametrize("shift", [-8, -5, -3, -1, 2, 4, 6, 9])
@pytest.mark.parametrize("spread", [0.3, 2.5, 6.0])
def test_probabilities_that_are_far_off_have_the_slope_and_intercept_of_statsmodels(shift, spread):
    """Logits that lie on one side of 0, or far apart, lead the regression to the same maximum."""
    rng = np.random.default_rng(abs(shift))
    labels = np.repeat([0, 1], [32, 18])
    logits = np.clip(spread * (rng.normal(size=50) + labels) + shift, -15, 15)
    found = calibration_on_test(labels, special.expit(logits)[None])
    expected = sm.GLM(labels, sm.add_constant(logits), family=sm.families.Binomial()).fit(tol=1e-12, maxiter=200)
    assert found.slope.mean == pytest.approx(expected.params[1], abs=1e-5)
    large = special.expit(found.intercept.mean + logits).sum()
    assert large == pytest.approx(18, abs=1e-6)


def test_intervals_hold_the_truth_of_grouped_images():
    """Over 300 studies of 40 groups about 95% of intervals hold the slope and the intercept.

    What images of a group have in common has a deviation of 1, which flattens a slope of 1 to 1 / sqrt(1 + 0.346).
    """
    rng = np.random.default_rng(1)
    n_held = np.zeros(2)
    for _ in range(300):
        labels, table, groups = made(rng, 320, between=1.0, size=8)
        found = calibration_on_test(labels, table, groups=groups)
        n_held += [
            ends[0] <= truth <= ends[1] for ends, truth in ((found.slope.ci95, 0.853), (found.intercept.ci95, 0))
        ]
    assert (n_held / 300 > 0.91).all()


def test_separated_classes_have_no_slope_and_few_groups_no_interval():
    """Without an overlap no slope fits best; five groups leave the numbers without intervals."""
    labels, table, _ = made(np.random.default_rng(2), 60)
    assert calibration_on_test([0] * 10 + [1] * 10, [[0.3] * 10 + [0.7] * 10]).slope.mean is None
    few = calibration_on_test(labels, table, groups=[str(index % 5) for index in range(60)])
    assert few.slope.mean is not None
    assert (few.slope.ci95, few.intercept.ci95) == (None, None)


def test_the_floor_is_what_a_perfect_model_has():
    """Labels drawn from the probabilities have, on average, the floor as their calibration error; more images less."""
    rng = np.random.default_rng(3)
    p = special.expit(1.5 * rng.normal(size=300))
    drawn = [metrics_of(rng.random(300) < p, p)["ece"] for _ in range(400)]
    assert ece_floor(p[None]) == pytest.approx(np.mean(drawn), rel=0.05)
    assert ece_floor(np.tile(p, 10)[None]) < 0.5 * ece_floor(p[None])
