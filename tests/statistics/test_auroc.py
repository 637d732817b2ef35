"""Tests of mhist_tune.statistics.auroc."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhist_tune.statistics.auroc import standard_error
from mhist_tune.statistics.binary_metrics import weighted_auroc
from mhist_tune.statistics.descriptive import delong

# few different values, so that there are ties
images = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=4, max_size=40).filter(
    lambda pairs: 2 <= sum(label for label, _ in pairs) <= len(pairs) - 2
)


@given(images)
def test_it_is_that_of_delongs_test_against_a_model_that_knows_nothing(pairs: list[tuple[int, int]]) -> None:
    """A constant model has an AUROC of 0.5 without variance, so the difference from it has the AUROC's own error."""
    labels, ranks = (np.array(column) for column in zip(*pairs, strict=True))
    probabilities = ranks / 6

    found = standard_error(labels, probabilities)

    test = delong(labels, probabilities, np.full(len(labels), 0.5))
    if abs(test.difference) == 0.5:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(test.se, abs=1e-12)


def test_it_agrees_with_new_samples() -> None:
    """Averaged over samples, it is within 5% of the standard deviation of the AUROC over these samples."""
    rng = np.random.default_rng(0)
    aurocs, claimed = [], []
    for _ in range(600):
        labels = (np.arange(120) < 40).astype(int)
        probabilities = 1 / (1 + np.exp(-(rng.normal(size=120) + labels)))
        aurocs.append(weighted_auroc(labels.astype(bool), probabilities[None], np.ones((1, 120)))[0, 0])
        claimed.append(standard_error(labels, probabilities))

    assert np.mean(claimed) == pytest.approx(np.std(aurocs), rel=0.05)


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]), ([1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9]), ([0, 1, 1], [0.5, 0.4, 0.6])],
)
def test_it_is_not_known_at_the_ends_and_for_one_image_of_a_class(
    labels: list[int], probabilities: list[float]
) -> None:
    """An AUROC of 0 or 1 shows no variation, and one image has no variance."""
    assert math.isnan(standard_error(labels, probabilities))
