"""The portfolio that a new study takes from finished ones, without a database."""

import numpy as np
import pytest

from mhist_tune.definition.space import Categorical, Dimension, Float, Int
from mhist_tune.search import transfer
from mhist_tune.search.standings import Tried

SPACE: dict[str, Dimension] = {"rate": Float(1e-5, 1e-1, log=True), "sampling": Categorical(("none", "over", "smote"))}


def tried(best_rate: float, sampling: str, seed: int, n: int = 40) -> list[Tried]:
    """Return random configurations; the nearer one is to the best, the higher its standing."""
    rng = np.random.default_rng(seed)
    params = [
        {"rate": float(10 ** rng.uniform(-5, -1)), "sampling": str(rng.choice(["none", "over", "smote"]))}
        for _ in range(n)
    ]
    merit = [
        -abs(float(np.log10(one["rate"] / best_rate))) - (one["sampling"] != sampling) + rng.normal() / 10  # type: ignore[operator]
        for one in params
    ]
    ranks = np.argsort(np.argsort(merit)) / (n - 1)
    return [Tried(one, (number,), float(ranks[number]), 1, False) for number, one in enumerate(params)]


def test_two_sources_that_agree_give_their_common_best() -> None:
    """The first pick is within a factor of three of the rate that is best in both, with the sampling that is."""
    [first, *_] = transfer.pick(SPACE, [], [tried(1e-3, "over", 0), tried(1e-3, "over", 1)], 5)

    assert first["sampling"] == "over"
    assert 3e-4 < first["rate"] < 3e-3


def test_two_sources_that_disagree_are_both_served() -> None:
    """Among the first three picks are one that is good in each, which the mean over both would not give."""
    picked = transfer.pick(SPACE, [], [tried(1e-4, "none", 0), tried(3e-2, "smote", 1)], 3)

    assert any(one["sampling"] == "none" and one["rate"] < 1e-3 for one in picked)
    assert any(one["sampling"] == "smote" and one["rate"] > 3e-3 for one in picked)


def test_picks_are_different_and_not_those_that_are_tried_anyway() -> None:
    """With one source, too, ten different configurations follow; the study's own are not repeated."""
    source = tried(1e-3, "over", 0)
    own = max(source, key=lambda one: one.standing).params
    picked = transfer.pick(SPACE, [own], [source], 10)

    assert len({str(one) for one in picked}) == 10
    assert own not in picked
    assert picked == transfer.pick(SPACE, [own], [source], 10)  # the same every time
    assert transfer.pick(SPACE, [own], [source], 0) == []


@pytest.mark.parametrize(
    ("other", "phrase"),
    [
        ({}, None),
        ({"rate": Float(1e-2, 1.0, log=True)}, None),
        ({"sampling": Categorical(("smote", "adasyn"))}, None),
        ({"rate": Float(0.2, 1.0)}, "has no value of rate in common"),
        ({"rate": Categorical((1e-3,))}, "has no value of rate in common"),
        ({"sampling": Categorical(("tomek",))}, "has no value of sampling in common"),
        ({"epochs": Int(1, 9)}, "searches epochs, too"),
    ],
)
def test_spaces_are_the_same_if_every_field_has_common_values(other: dict[str, Dimension], phrase: str | None) -> None:
    """A range may be wider or narrower; another field, other choices or a choice instead of a range are not."""
    assert transfer.difference(SPACE, {**SPACE, **other}) == phrase


def test_a_missing_field_is_named() -> None:
    """The sentence is about the source."""
    assert transfer.difference(SPACE, {"rate": SPACE["rate"]}) == "does not search sampling"


def test_at_most_ten_and_at_most_a_quarter_of_the_trials() -> None:
    """So a search of forty or more takes ten, and one of three takes none."""
    assert [transfer.n_entries(n) for n in (3, 4, 39, 40, 500)] == [0, 1, 9, 10, 10]
