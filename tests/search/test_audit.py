"""The audit of the pruner, and when it has no result."""

import pytest

from mhist_tune.search.audit import N_NEEDED, audit
from mhist_tune.search.pruning import decide, is_audited
from mhist_tune.search.trials import Trial
from mhist_tune.storage.decision import Decision, Verdict
from mhist_tune.storage.epochs import EpochRow
from mhist_tune.storage.outcome import EndState

MEDIAN = {"name": "median", "n_startup_trials": 3, "n_warmup_epochs": 0, "audit": 0.1}
PROMOTION = {"name": "promotion", "min_resource": 1, "reduction_factor": 2, "audit": 0.1}


def trial(number: int, *values: float, state: str = "COMPLETE", audited: bool = False, ends: int = 0) -> Trial:
    """Return a trial with these values, ten seconds an epoch. If audited, it would have ended after epoch `ends`."""
    epochs = tuple(
        EpochRow(n, 1, value, value, {"elapsed_s": 10.0}, decision(n, value, is_audited=n == ends), 0.0)
        for n, value in enumerate(values, 1)
    )
    return Trial(number, EndState(state), {}, epochs, audited)


def decision(epoch: int, value: float, *, is_audited: bool) -> Decision:
    """Return a decision to go on, only for the audit or not."""
    return Decision(verdict=Verdict.GO_ON, epoch=epoch, value=value, reason="made up", audited=is_audited)


def would_have_ended(n: int) -> list[Trial]:
    """Return audited trials of four epochs. Their ranks are reversed after the first epoch."""
    return [
        trial(
            number, 0.4 - number / 100, 0.5 + number / 100, 0.5 + number / 100, 0.5 + number / 100, audited=True, ends=2
        )
        for number in range(1, n + 1)
    ]


def test_eight_are_enough_and_seven_are_not() -> None:
    """The audited trials spent two epochs more; each pruned trial saved three."""
    pruned = [trial(100 + n, 0.1, state="PRUNED") for n in range(4)]
    best = trial(200, 0.5, 0.55, 0.55, 0.55)
    result = audit([*would_have_ended(N_NEEDED), *pruned, best], MEDIAN)

    assert result.missing is None
    assert (result.n_audited, result.n_would_have_ended) == (8, 8)
    assert result.saved_s == pytest.approx(4 * 3 * 10.0)
    assert result.spent_s == pytest.approx(8 * 2 * 10.0)
    assert result.lost_f1 == pytest.approx(0.58 - 0.55)
    assert result.rank_correlation == pytest.approx({1: -1.0, 2: 1.0, 3: 1.0})

    too_few = audit([*would_have_ended(N_NEEDED - 1), *pruned, best], MEDIAN)
    assert too_few.missing == "not enough: 7 audited trials would have been pruned, 8 are needed"
    assert too_few.lost_f1 is None


def test_nothing_lost_is_zero() -> None:
    """The best other trial is better than every trial that would have been pruned."""
    assert audit([*would_have_ended(8), trial(200, 0.9)], MEDIAN).lost_f1 == 0.0


def test_all_arrivals_decide_whether_a_trial_would_have_been_promoted() -> None:
    """At a rung where one of two goes on, a trial that waited at first is not counted if it ended up among the best."""
    early = trial(1, 0.6, 0.7, audited=True, ends=1)
    others = [trial(10 + n, 0.1 * n, state="PRUNED") for n in range(6)]
    assert audit([early, *others], PROMOTION).n_would_have_ended == 0
    late = trial(1, 0.05, 0.7, audited=True, ends=1)
    assert audit([late, *others], PROMOTION).n_would_have_ended == 1


def test_one_of_ten_is_audited_and_is_no_competitor() -> None:
    """One of ten slots goes on regardless of its score, with the decision on record. No trial is compared with it."""
    audited = [slot for slot in range(100) if is_audited(MEDIAN, slot)]
    assert [slot // 10 for slot in audited] == list(range(10))
    assert len({slot % 10 for slot in audited}) > 3

    others = [slot for slot in range(20) if slot not in audited]
    recorded = dict.fromkeys(others, 0.5) | dict.fromkeys(audited, 0.99)
    kept = decide(MEDIAN, slot=audited[0], epoch=1, n_epochs=9, value=0.1, values_at=lambda _: recorded)
    assert (kept.verdict, kept.audited, kept.n_competitors) == (Verdict.GO_ON, True, len(others))
    assert "finished for the audit; 0.100 is below 0.500" in kept.reason
    other = decide(MEDIAN, slot=others[0], epoch=1, n_epochs=9, value=0.5, values_at=lambda _: recorded)
    assert other.verdict is Verdict.GO_ON
    assert not is_audited({**MEDIAN, "audit": 0.0}, audited[0])
