"""Tests of mhist_tune.statistics.mean_f1."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from mhist_tune.statistics.mean_f1 import THRESHOLDS, mean_f1, weighted_mean_f1

# thresholds themselves are among the probabilities, since an image at a threshold is not called SSA
probability = st.one_of(st.sampled_from([0.0, *THRESHOLDS, 1.0]), st.floats(0, 1))
images = st.lists(st.tuples(st.integers(0, 1), probability), min_size=1, max_size=60)


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of `n` images that overlap."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(np.int64)
    return labels, 1 / (1 + np.exp(-(rng.normal(size=n) * 1.5 + 2 * labels - 1)))


@given(images)
def test_it_is_the_mean_of_scikit_learns_f1_at_each_threshold(pairs: list[tuple[int, float]]) -> None:
    """It agrees at all nine thresholds, with ties, absent classes, and probabilities at a threshold."""
    labels, probabilities = (np.array(column) for column in zip(*pairs, strict=True))

    expected = [f1_score(labels, probabilities > threshold, zero_division=0) for threshold in THRESHOLDS]

    assert mean_f1(labels, probabilities).value == pytest.approx(np.mean(expected), abs=1e-12)


@given(images.filter(lambda pairs: len(pairs) > 1))
def test_the_standard_error_is_that_of_a_jackknife_by_hand(pairs: list[tuple[int, float]]) -> None:
    """Leaving out one image after the other and computing the mean F1 anew gives the same standard error."""
    labels, probabilities = (np.array(column) for column in zip(*pairs, strict=True))
    found = mean_f1(labels, probabilities)
    n = len(labels)
    left = [mean_f1(np.delete(labels, i), np.delete(probabilities, i)).value for i in range(n)]

    if 0 < found.value < 1:
        assert found.standard_error == pytest.approx(math.sqrt((n - 1) * np.var(left)), abs=1e-9)
    else:
        assert math.isnan(found.standard_error)


@pytest.mark.parametrize("n", [100, 400])
def test_the_standard_error_agrees_with_the_bootstrap(n: int) -> None:
    """Averaged over samples, it is within 5% of the standard deviation over resampled images."""
    rng = np.random.default_rng(1)
    claimed, bootstrapped = [], []
    for seed in range(20):
        labels, probabilities = drawn(n, seed)
        claimed.append(mean_f1(labels, probabilities).standard_error)
        weights = rng.multinomial(n, np.full(n, 1 / n), size=1000).astype(np.float64)
        bootstrapped.append(weighted_mean_f1(labels.astype(bool), probabilities[None], weights)[:, 0].std())

    assert np.mean(claimed) == pytest.approx(np.mean(bootstrapped), rel=0.05)


def test_a_weight_counts_images() -> None:
    """An image of weight 2 counts as two images."""
    labels, probabilities = drawn(30, 0)
    weights = np.arange(30) % 3

    [[found]] = weighted_mean_f1(labels.astype(bool), probabilities[None], weights[None].astype(np.float64))

    repeated = mean_f1(np.repeat(labels, weights), np.repeat(probabilities, weights))
    assert found == pytest.approx(repeated.value)


def test_logits_are_refused() -> None:
    """A probability outside 0..1 is refused."""
    with pytest.raises(ValueError, match="logits"):
        mean_f1([0, 1], [0.2, 1.5])
