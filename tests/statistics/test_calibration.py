import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score

from mhist_tune.statistics.calibration import correct_prior, f1_threshold, platt, reliability


def logit(p):
    return np.log(p / (1 - p))


def predictions(n=4000, share=0.3, slope=1.0, intercept=0.0, seed=0):
    """Labels and probabilities whose logits are `slope * true logit + intercept`."""
    rng = np.random.default_rng(seed)
    true = rng.normal(loc=logit(share), scale=1.5, size=n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-true))).astype(int)
    return labels, 1 / (1 + np.exp(-(slope * true + intercept)))


def test_threshold_has_the_highest_f1_of_all():
    """No threshold between two neighbouring probabilities has a higher F1, by scikit-learn's own."""
    labels, p = predictions(n=150)
    chosen = f1_score(labels, p > f1_threshold(labels, p))
    values = np.sort(p)
    assert chosen == max(f1_score(labels, p > t) for t in [0.0, *(values[1:] + values[:-1]) / 2])


def test_threshold_lies_between_images_and_near_the_middle():
    """Between 0.2 and 0.6 nothing changes, so it is 0.4; of two equally good ones the nearer to 0.5 is taken."""
    assert f1_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)
    # Calling the last one, or the last four, gives F1 = 2/3 in both cases.
    assert f1_threshold([1, 0, 0, 1], [0.1, 0.2, 0.3, 0.9]) == pytest.approx(0.6)
    assert f1_threshold([1, 1], [0.3, 0.8]) < 0.3


def test_threshold_without_an_ssa_image_is_refused():
    """F1 is 0 everywhere then, and no threshold is better than another."""
    with pytest.raises(ValueError, match="SSA"):
        f1_threshold([0, 0], [0.1, 0.2])


def test_platt_takes_back_overconfidence():
    """Logits twice as far out as they should be, and shifted, are brought back to the true ones."""
    labels, p = predictions(slope=2.0, intercept=1.0, n=40_000)
    found = platt(labels, p)
    assert found.slope == pytest.approx(0.5, abs=0.02)
    assert found.intercept == pytest.approx(-0.5, abs=0.04)


def test_platt_equals_a_direct_maximization_of_its_likelihood():
    """Slope and intercept are those that an independent optimizer finds for Platt's targets."""
    labels, p = predictions(n=60)
    n1, n0 = labels.sum(), (1 - labels).sum()
    target = np.where(labels == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))

    def loss(ab):
        z = ab[0] * logit(p) + ab[1]
        return np.sum(np.logaddexp(0, z) - target * z)

    best = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).x
    found = platt(labels, p)
    assert (found.slope, found.intercept) == pytest.approx(tuple(best), abs=1e-4)


def test_platt_of_separated_classes_is_finite_and_keeps_the_order():
    """A perfect held-out set gives no infinite slope, and certain probabilities no infinite logit."""
    found = platt([0, 0, 1, 1], [0.0, 0.2, 0.8, 1.0])
    mapped = found.apply([0.0, 0.2, 0.8, 1.0])
    assert np.isfinite([found.slope, found.intercept]).all()
    assert (np.diff(mapped) > 0).all()
    assert ((mapped > 0) & (mapped < 1)).all()


def test_platt_needs_both_classes():
    """There is nothing to fit with one class."""
    with pytest.raises(ValueError, match="both classes"):
        platt([1, 1], [0.2, 0.3])


def test_prior_correction_is_bayes_rule():
    """0.5 at 30% SSA is 0.5 x .4/.3 over the same plus 0.5 x .6/.7 at 40%, and the way back is the way there."""
    there = correct_prior([0.5], fitted_on=0.3, applied_to=0.4)
    assert there == pytest.approx([(0.4 / 0.3) / (0.4 / 0.3 + 0.6 / 0.7)])
    assert correct_prior(there, fitted_on=0.4, applied_to=0.3) == pytest.approx([0.5])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_prior_correction_refuses_a_share_of_one_class(share):
    """A test partition of one class has no odds to move to."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        correct_prior([0.5], fitted_on=0.3, applied_to=share)


def test_reliability_equals_scikit_learns_quantile_bins():
    """Ten bins of equally many images have the means that scikit-learn's calibration curve has."""
    labels, p = predictions(n=1000)
    share, probability = calibration_curve(labels, p, n_bins=10, strategy="quantile")
    bins = reliability(labels, p)
    assert [one.n_images for one in bins] == [100] * 10
    assert [one.share for one in bins] == pytest.approx(share)
    assert [one.probability for one in bins] == pytest.approx(probability)


def test_reliability_of_few_images_has_no_empty_bin():
    """Three images make three bins."""
    assert [one.n_images for one in reliability([0, 1, 1], [0.1, 0.5, 0.9])] == [1, 1, 1]
