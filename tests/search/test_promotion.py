"""Promotion is a pure function of the arrivals in their order."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mhist_tune.search.promotion import Rung, arrive, close
from mhist_tune.storage.decision import Decision, Verdict

FACTOR = 3


def play(values: Sequence[float], *, n_slots: int = 100) -> tuple[Rung, list[dict[int, Decision]]]:
    """Let slots 0, 1, ... arrive with `values`. Return the rung and the decisions at each arrival."""
    rung, log = Rung(2), []
    for slot, value in enumerate(values):
        log.append(arrive(rung, slot, value, reduction_factor=FACTOR, n_slots=n_slots))
        for other, decision in log[-1].items():
            rung.take(other, decision)
    return rung, log


def fate(decision: Decision) -> str:
    return {Verdict.PRUNE: "pruned", Verdict.WAIT: "waits", Verdict.GO_ON: "goes on"}[decision.verdict]


def test_a_trial_waits_until_enough_have_arrived() -> None:
    """The best of three trials goes on after it has waited. The decision of the arriving trial comes first."""
    _, log = play([0.5, 0.7, 0.6])

    assert [{slot: fate(decision) for slot, decision in decisions.items()} for decisions in log] == [
        {0: "waits"},
        {1: "waits"},
        {2: "waits", 1: "goes on"},
    ]
    promoted = log[2][1]
    assert (promoted.epoch, promoted.value, promoted.threshold, promoted.n_competitors) == (2, 0.7, 0.7, 2)
    assert promoted.reason == "0.700 is among the best 1 of 3 at rung 2 (from 0.700)"
    assert "not among the best 1 of 3" in log[2][2].reason


def test_the_best_goes_on_at_once() -> None:
    """A trial that arrives as one of the best does not wait."""
    _, log = play([0.5, 0.6, 0.7])
    assert {slot: fate(decision) for slot, decision in log[2].items()} == {2: "goes on"}


def test_of_equal_values_the_lower_slot_is_ahead() -> None:
    """The same arrivals in another order promote the same slot."""
    rung, _ = play([0.6, 0.6, 0.6])
    assert rung.ranked()[0] == 0
    assert rung.waiting == {1, 2}


def test_the_second_score_decides_between_equal_values() -> None:
    """Of three equal values the one with the highest second score goes on, though its slot is the last."""
    rung = Rung(2)
    for slot, second in enumerate([0.3, 0.4, 0.5]):
        found = arrive(rung, slot, 0.6, reduction_factor=FACTOR, n_slots=100, tie_break=second)
        for other, decision in found.items():
            rung.take(other, decision, tie_break=second if other == slot else None)

    assert rung.ranked() == [2, 1, 0]
    assert rung.waiting == {0, 1}


def test_a_trial_that_cannot_be_promoted_is_pruned() -> None:
    """With six slots at most two can go on, so the third best is pruned as soon as it is third."""
    rung, log = play([0.5, 0.6, 0.7, 0.4], n_slots=6)

    assert fate(log[2][0]) == "pruned"
    assert log[2][0].reason == "0.500 is number 3 at rung 2, where at most 2 can go on"
    assert fate(log[3][3]) == "pruned"
    assert rung.waiting == {1}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_promotions_are_those_of_asha(scores: list[int]) -> None:
    """Exactly the trials that were once among the best n // 3 go on. Early pruning changes no promotion."""
    values = [score / 5 for score in scores]
    rung, log = play(values, n_slots=len(values))
    went_on = {slot for decisions in log for slot, decision in decisions.items() if fate(decision) == "goes on"}

    expected: set[int] = set()
    for n in range(1, len(values) + 1):
        order = np.lexsort((np.arange(n), -np.array(values[:n])))
        expected |= {int(slot) for slot in order[: n // FACTOR]}
    assert went_on == expected
    assert rung.n_promoted == len(expected)
    assert len(rung.waiting) <= max(1, len(values) // FACTOR)


def test_at_the_end_a_small_rung_promotes_its_best() -> None:
    """Two trials are too few for a promotion. At the end the better one is promoted, then the other is pruned."""
    rung, _ = play([0.5, 0.7])
    [(slot, decision)] = close([rung], reduction_factor=FACTOR).items()
    assert (slot, fate(decision)) == (1, "goes on")

    rung.take(slot, decision)
    [(slot, decision)] = close([rung], reduction_factor=FACTOR).items()
    assert (slot, fate(decision)) == (0, "pruned")
    assert decision.reason == "0.500 is not among the best 1 of 2 at rung 2 (from 0.700)"
    rung.take(slot, decision)
    assert close([rung], reduction_factor=FACTOR) == {}


@pytest.mark.parametrize("n_slots", [3, 100])
def test_an_arrival_leaves_the_rung_as_it_is(n_slots: int) -> None:
    """`arrive` changes no state; `Rung.take` does."""
    rung, _ = play([0.5, 0.6], n_slots=n_slots)
    before = (dict(rung.values), set(rung.waiting), rung.n_promoted)
    arrive(rung, 2, 0.7, reduction_factor=FACTOR, n_slots=n_slots)
    assert (rung.values, rung.waiting, rung.n_promoted) == before


def play_trivial(arrivals: Sequence[tuple[float, bool]], *, n_slots: int = 100) -> Rung:
    """Let slots 0, 1, ... arrive with a value and whether it is of a trivial model."""
    rung = Rung(2)
    for slot, (value, is_trivial) in enumerate(arrivals):
        found = arrive(rung, slot, value, reduction_factor=FACTOR, n_slots=n_slots, is_trivial=is_trivial)
        for other, decision in found.items():
            rung.take(other, decision, is_trivial=is_trivial and other == slot)
    return rung


def test_a_trivial_model_is_not_promoted_by_a_tie() -> None:
    """Six models with the same trivial F1 all wait. A better one goes on, and so does an equal one that has learned."""
    tied = play_trivial([(0.6, True)] * 6)
    better = play_trivial([(0.6, True)] * 5 + [(0.7, False)])
    equal = play_trivial([(0.6, True)] * 5 + [(0.6, False)])

    assert (tied.n_promoted, tied.waiting) == (0, {0, 1, 2, 3, 4, 5})
    assert (better.n_promoted, 5 in better.waiting) == (1, False)
    assert equal.ranked()[0] == 5
    assert (equal.n_promoted, 5 in equal.waiting) == (1, False)


def test_a_trivial_model_without_a_tie_is_promoted() -> None:
    """It goes on if its value is above those that wait, since a score other than F1 may be good."""
    rung = play_trivial([(0.5, False), (0.6, True), (0.4, False)])

    assert (rung.n_promoted, 1 in rung.waiting) == (1, False)


def test_a_search_of_trivial_models_ends_with_a_complete_trial() -> None:
    """The best waiting one is promoted when nothing else is left."""
    rung = play_trivial([(0.6, True)] * 6, n_slots=6)

    [(slot, decision)] = close([rung], reduction_factor=FACTOR).items()

    assert (slot, decision.verdict) == (0, Verdict.GO_ON)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 0.6]), st.booleans()), min_size=1, max_size=40), st.integers(2, 4))
def test_promoted_trivial_models_are_above_all_that_wait(arrivals: list[tuple[float, bool]], factor: int) -> None:
    """At the moment of its promotion a trivial model has a higher value than every slot that is not among the best."""
    rung = Rung(2)
    for slot, (value, is_trivial) in enumerate(arrivals):
        found = arrive(rung, slot, value, reduction_factor=factor, n_slots=100, is_trivial=is_trivial)
        for other, decision in found.items():
            rung.take(other, decision, is_trivial=is_trivial and other == slot)
        rest = rung.ranked()[len(rung.values) // factor :]
        for other, decision in found.items():
            if other in rung.trivial and decision.verdict is Verdict.GO_ON:
                assert all(rung.values[waiting] < rung.values[other] for waiting in rest)
