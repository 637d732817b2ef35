"""What an audit of the pruner concludes, and when it does not."""

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
    """A trial with these best values, ten seconds an epoch; audited, it would have ended after the epoch `ends`."""
    epochs = tuple(
        EpochRow(n, 1, value, value, {"elapsed_s": 10.0}, decision(n, value, is_audited=n == ends), 0.0)
        for n, value in enumerate(values, 1)
    )
    return Trial(number, EndState(state), {}, epochs, audited)


def decision(epoch: int, value: float, *, is_audited: bool) -> Decision:
    """A decision to go on, for the audit alone or not."""
    return Decision(verdict=Verdict.GO_ON, epoch=epoch, value=value, reason="made up", audited=is_audited)


def would_have_ended(n: int) -> list[Trial]:
    """Audited trials of four epochs, the ranks of which turn round after the first."""
    return [
        trial(one, 0.4 - one / 100, 0.5 + one / 100, 0.5 + one / 100, 0.5 + one / 100, audited=True, ends=2)
        for one in range(1, n + 1)
    ]


def test_eight_are_enough_and_seven_are_not() -> None:
    """What would have been pruned took its last two epochs; the trials that were pruned would have taken three each."""
    pruned = [trial(100 + n, 0.1, state="PRUNED") for n in range(4)]
    best = trial(200, 0.5, 0.55, 0.55, 0.55)
    found = audit([*would_have_ended(N_NEEDED), *pruned, best], MEDIAN)

    assert found.missing is None
    assert (found.n_audited, found.n_would_have_ended) == (8, 8)
    assert found.saved_s == pytest.approx(4 * 3 * 10.0)
    assert found.spent_s == pytest.approx(8 * 2 * 10.0)
    assert found.lost_f1 == pytest.approx(0.58 - 0.55)
    assert found.rank_correlation == pytest.approx({1: -1.0, 2: 1.0, 3: 1.0})

    too_few = audit([*would_have_ended(N_NEEDED - 1), *pruned, best], MEDIAN)
    assert too_few.missing == "not enough: 7 audited trials would have been pruned, 8 are needed"
    assert too_few.lost_f1 is None


def test_nothing_lost_is_zero() -> None:
    """The best of all others is better than what would have been pruned."""
    assert audit([*would_have_ended(8), trial(200, 0.9)], MEDIAN).lost_f1 == 0.0


def test_who_would_have_waited_for_good_is_told_by_all_arrivals() -> None:
    """At a rung where one of two goes on, a trial that waited at first is not counted if it ended up among the best."""
    early = trial(1, 0.6, 0.7, audited=True, ends=1)
    others = [trial(10 + n, 0.1 * n, state="PRUNED") for n in range(6)]
    assert audit([early, *others], PROMOTION).n_would_have_ended == 0
    late = trial(1, 0.05, 0.7, audited=True, ends=1)
    assert audit([late, *others], PROMOTION).n_would_have_ended == 1


def test_one_of_ten_is_audited_and_counts_for_nobody() -> None:
    """Of every ten slots one goes on whatever its score, its record says what would have been, and no other sees it."""
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
