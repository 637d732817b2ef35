"""What more trials are expected to bring: its mean and interval in simulated searches, and the noise behind it."""

import numpy as np
import pytest

from mhist_tune.statistics import more_trials
from mhist_tune.statistics.mean_f1 import mean_f1


def searches(spread: float, noise: float, n: int, n_searches: int) -> tuple[list[more_trials.Gain], list[float]]:
    """Return the predicted and the realized gain of twenty more trials in searches with normal true scores."""
    rng = np.random.default_rng(0)
    predicted, realized = [], []
    for _ in range(n_searches):
        true = 0.7 + spread * rng.normal(size=n + 20)
        measured = true + noise * rng.normal(size=n + 20)
        ordered = np.sort(measured[:n])[::-1]
        predicted.append(more_trials.gain(ordered, noise, n, 20))
        realized.append(float(true[measured.argmax()] - true[measured[:n].argmax()]))
    return predicted, realized


@pytest.mark.parametrize("noise", [0.0001, 0.03])
def test_the_expected_gain_is_the_mean_gain(noise: float) -> None:
    """Within three Monte Carlo errors, without noise and with; the interval holds at least 80%."""
    predicted, realized = searches(0.05, noise, 40, 80)

    error = float(np.std(realized) / np.sqrt(80))
    assert np.mean([one.expected for one in predicted]) == pytest.approx(np.mean(realized), abs=3 * error)
    held = [one.low <= gain <= one.high for one, gain in zip(predicted, realized, strict=True)]
    assert np.mean(held) >= 0.8


def test_scores_that_are_noise_alone_promise_little() -> None:
    """The highest of forty lucky scores seems to rise with more trials; its true score does not."""
    predicted, _ = searches(0.0, 0.05, 40, 40)

    naive = 0.05 * 0.17  # the rise of the maximum from 40 to 60 normal draws
    assert np.mean([one.expected for one in predicted]) < naive / 2


def test_pruned_trials_count_as_worse() -> None:
    """The best four of forty give nearly what all forty give: the others have no part in the maximum."""
    values = np.sort(0.7 + 0.05 * np.random.default_rng(1).normal(size=40))[::-1]

    whole, cut = (more_trials.gain(values[:n], 0.001, 40, 20).expected for n in (40, 4))
    assert cut == pytest.approx(whole, rel=0.15)


def test_equal_scores_promise_nothing() -> None:
    """Neither does a longer search than any."""
    found = more_trials.gain(np.full(20, 0.6), 0.02, 20, 20)
    assert (found.expected, found.low <= 0 <= found.high) == (0.0, True)


def test_the_noise_of_a_difference_is_that_of_resampled_images() -> None:
    """The jackknife agrees with a bootstrap of the images; images that all models find hard do not count."""
    rng = np.random.default_rng(0)
    labels = (rng.random(300) < 0.4).astype(int)
    hard = rng.normal(size=300)
    probabilities = 1 / (1 + np.exp(-(2 * labels - 1 + hard + 0.5 * rng.normal(size=(2, 300)))))
    found = more_trials.noise("mean_f1", labels, probabilities)

    draws = [rng.integers(300, size=300) for _ in range(400)]
    scores = np.array([[mean_f1(labels[drawn], one[drawn]).value for one in probabilities] for drawn in draws])
    differences = scores[:, 0] - scores[:, 1]
    assert found.of_difference == pytest.approx(differences.std(), rel=0.12)
    assert found.own.max() < 0.8 * scores[:, 0].std()


def _draw(kind: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Return true scores of a distribution."""
    good = 0.75 + 0.03 * rng.normal(size=size)
    return {
        "normal": 0.7 + 0.05 * rng.normal(size=size),
        "uniform": 0.6 + 0.17 * rng.random(size),
        "exponential": 0.8 - 0.06 * rng.gamma(1.0, 1.0, size=size),
        "failures": np.where(rng.random(size) < 0.4, 0.3 + 0.1 * rng.normal(size=size), good),
    }[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normal", "uniform", "exponential", "failures"])
@pytest.mark.parametrize("n", [20, 40])
@pytest.mark.parametrize("noise", [0.0001, 0.02, 0.05])
def test_the_advice_holds_for_other_scores(kind: str, n: int, noise: float) -> None:
    """The mean prediction is never below the realized mean by more than its error; the interval holds 79% or more."""
    rng = np.random.default_rng(1)
    predicted, realized = [], []
    for _ in range(400):
        true = _draw(kind, rng, n + 20)
        measured = true + noise * rng.normal(size=n + 20)
        predicted.append(more_trials.gain(np.sort(measured[:n])[::-1], noise, n, 20))
        realized.append(float(true[measured.argmax()] - true[measured[:n].argmax()]))
    assert np.mean([one.expected for one in predicted]) > np.mean(realized) - 3 * np.std(realized) / 20
    held = [one.low - 1e-9 <= gain <= one.high + 1e-9 for one, gain in zip(predicted, realized, strict=True)]
    assert np.mean(held) >= 0.79
