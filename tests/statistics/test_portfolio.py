"""The greedy portfolio: its order, its ties, and its distance from the best set."""

import itertools

import numpy as np

from mhist_tune.statistics.portfolio import greedy


def test_each_entry_adds_most_to_the_best_score_of_each_task() -> None:
    """The first is best in the mean; the second helps where the first fails, though a third is better in the mean."""
    scores = np.array([[0.9, 0.85, 0.1], [0.9, 0.85, 0.1], [0.2, 0.25, 0.8]])

    assert greedy(scores, 3) == [0, 2, 1]


def test_configurations_that_are_tried_anyway_count() -> None:
    """What the default does well needs no entry; where nothing more can be gained the mean decides."""
    scores = np.array([[0.9, 0.5, 0.6], [0.1, 0.7, 0.6]])

    assert greedy(scores, 2, known=np.array([[0.9], [0.0]])) == [1, 2]
    assert greedy(scores, 1, known=np.ones((2, 1))) == [1]  # means .5, .6, .6: of equal ones the first


def test_no_configuration_is_taken_twice_and_none_is_made_up() -> None:
    """A portfolio that is larger than the pool is the pool."""
    assert sorted(greedy(np.ones((2, 3)), 10)) == [0, 1, 2]


def test_the_gain_is_near_that_of_the_best_set() -> None:
    """Of 120 random tables the greedy pair reaches at least 63% of the gain of the best pair, the known bound."""
    rng = np.random.default_rng(0)
    for _ in range(120):
        scores = rng.random((5, 8))
        value = {
            pair: scores[:, pair].max(axis=1).mean() - scores.min() for pair in itertools.combinations(range(8), 2)
        }
        assert value[tuple(sorted(greedy(scores, 2)))] >= (1 - 1 / np.e) * max(value.values())
