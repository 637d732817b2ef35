"""Power before anything is trained, beside simulated comparisons."""

import numpy as np
import pytest

from mhist_tune.statistics import paired, power
from tests.statistics.test_paired import scores


def test_power_on_mhist_is_42_percent():
    """AUROC .94 against .93 on MHIST's 360 and 617 test images with ten seeds is found in 42%, and says so."""
    assert power.power(0.94, 0.93, n_ssa=360, n_hp=617, n_seeds=10) == pytest.approx(0.42, abs=0.01)
    assert "AUROC .94 against .93 with a probability of 42%" in power.sentence(360, 617, 10)


def test_the_smallest_difference_is_found_with_80_percent():
    """What is detectable is found with 80%; more images and more seeds detect less."""
    smallest = power.detectable(0.93, n_ssa=360, n_hp=617, n_seeds=10)
    assert power.power(0.93 + smallest / 2, 0.93 - smallest / 2, n_ssa=360, n_hp=617, n_seeds=10) == pytest.approx(
        0.8, abs=0.02
    )
    assert power.detectable(0.93, n_ssa=36, n_hp=62, n_seeds=10) > 2 * smallest
    assert power.detectable(0.93, n_ssa=360, n_hp=617, n_seeds=1) > smallest


def test_equal_models_are_found_different_in_5_percent():
    """The power of no difference is the level."""
    assert power.power(0.93, 0.93, n_ssa=360, n_hp=617, n_seeds=10) == pytest.approx(0.05)


@pytest.mark.slow
def test_power_is_that_of_simulated_comparisons(record_property):
    """Models that share 60% of the variance of an image's score are told apart in 38% to 47% of 1,000 studies."""
    rng = np.random.default_rng(0)
    n_found = 0
    for study in range(1000):
        labels, models = scores(rng, (0.94, 0.93), shared=0.6, own=0.2)
        n_found += paired.auroc_differences(labels, models, n_boot=100, seed=study)[0].p_value < 0.05
    record_property("found", n_found / 1000)
    assert 0.38 <= n_found / 1000 <= 0.47
