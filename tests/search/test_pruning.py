"""Pruning is a pure function of recorded scores."""

from collections.abc import Mapping

import pytest

from mhist_tune.search.pruning import decide
from mhist_tune.storage.decision import Decision, Verdict

MEDIAN = {"name": "median", "n_startup_trials": 3, "n_warmup_epochs": 1}
HALVING = {"name": "successive_halving", "min_resource": 2, "reduction_factor": 3}


def judge(pruner: Mapping[str, object], value: float, others: list[float], epoch: int = 2, slot: int = 0) -> Decision:
    """Judge one trial against competitors in the slots 1, 2, ..."""
    recorded = {slot: value} | {i + 1: other for i, other in enumerate(others)}
    return decide(pruner, slot=slot, epoch=epoch, n_epochs=20, value=value, values_at=lambda _: recorded)


@pytest.mark.parametrize(
    ("value", "others", "prune"),
    [(0.4, [0.3, 0.5, 0.7], True), (0.5, [0.3, 0.5, 0.7], False), (0.1, [0.8, 0.9], False)],
)
def test_median_prunes_strictly_below_the_median_of_enough_others(
    value: float, others: list[float], prune: bool
) -> None:
    """A tie with the median goes on, and fewer competitors than n_startup_trials decide nothing."""
    assert (judge(MEDIAN, value, others).verdict is Verdict.PRUNE) is prune


def test_median_waits_for_the_warm_up() -> None:
    """An epoch within the warm-up is not judged and reads nothing."""
    decision = decide(MEDIAN, slot=0, epoch=1, n_epochs=20, value=0.0, values_at=lambda _: pytest.fail("was read"))

    assert decision.verdict is Verdict.GO_ON


def test_percentile_uses_its_own_percentile() -> None:
    """As in Optuna, percentile 25 keeps the best quarter."""
    pruner = {"name": "percentile", "percentile": 25.0, "n_startup_trials": 3, "n_warmup_epochs": 0}

    assert judge(pruner, 0.55, [0.3, 0.5, 0.7]).verdict is Verdict.PRUNE
    assert judge(pruner, 0.65, [0.3, 0.5, 0.7]).verdict is Verdict.GO_ON


@pytest.mark.parametrize(("value", "prune"), [(0.7, True), (0.85, False), (0.95, False)])
def test_halving_keeps_the_best_third_of_a_rung(value: float, prune: bool) -> None:
    """Of six at the rung two go on."""
    assert (judge(HALVING, value, [0.9, 0.8, 0.5, 0.4, 0.3]).verdict is Verdict.PRUNE) is prune


def test_halving_judges_only_at_rungs() -> None:
    """Rungs are min_resource times powers of the reduction factor, below the last epoch."""
    judged = [epoch for epoch in range(1, 21) if judge(HALVING, 0.0, [0.9] * 5, epoch=epoch).verdict is Verdict.PRUNE]

    assert judged == [2, 6, 18]


def test_hyperband_compares_only_within_a_bracket() -> None:
    """Slots of other brackets are no competitors, and every bracket has slots."""
    pruner = {"name": "hyperband", "min_resource": 1, "reduction_factor": 3}
    recorded = {slot: slot / 100 for slot in range(60)}
    seen = set()
    for slot in range(60):
        points = {
            epoch: decision.n_competitors
            for epoch in range(1, 9)
            if (
                decision := decide(pruner, slot=slot, epoch=epoch, n_epochs=9, value=0.0, values_at=lambda _: recorded)
            ).n_competitors
        }
        seen.add(tuple(points))
        assert all(0 < n < 59 for n in points.values())

    assert seen == {(1, 3), (3,), ()}


def test_the_last_epoch_is_never_judged() -> None:
    """A trial that has run to its end is complete, whatever its value."""
    values = {1: 1.0, 2: 1.0, 3: 1.0}
    decision = decide(MEDIAN, slot=0, epoch=20, n_epochs=20, value=0.0, values_at=lambda _: values)
    assert decision.verdict is Verdict.GO_ON


def test_a_decision_repeats_itself() -> None:
    """The same records give the same decision."""
    assert judge(HALVING, 0.2, [0.9, 0.8, 0.5]) == judge(HALVING, 0.2, [0.9, 0.8, 0.5])
