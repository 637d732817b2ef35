"""The order of the configurations of one study, from trials of different length and confirmed scores."""

import numpy as np
import pytest

from mhist_tune.search.standings import standings
from mhist_tune.search.trials import Trial
from mhist_tune.storage.epochs import EpochRow
from mhist_tune.storage.outcome import EndState


def trial(number: int, values: list[float], params: object = None, *, is_trivial: bool = False) -> Trial:
    """Return a trial with these values, one for each epoch."""
    metrics: dict[str, float | None] = {"val_recall": 1.0, "val_specificity": 0.0} if is_trivial else {}
    epochs = [EpochRow(n, 1, value, value, metrics, None, 0.0) for n, value in enumerate(values, start=1)]
    return Trial(number, EndState.COMPLETE, {"x": number if params is None else params}, tuple(epochs))


def by_number(
    trials: list[Trial], confirmed: dict[int, float] | None = None, *, apart: bool = True
) -> dict[int, float]:
    """Return the standing of each trial."""
    found = standings(trials, confirmed or {}, n_folds=5, sets_trivial_apart=apart)
    return {number: one.standing for one in found for number in one.trials}


def test_trials_are_compared_at_the_last_epoch_that_both_recorded() -> None:
    """A pruned trial loses to those that beat it at its last epoch, whatever their later values; ties count half."""
    trials = [trial(0, [0.5]), trial(1, [0.6, 0.4]), trial(2, [0.7, 0.5]), trial(3, [0.5])]

    assert by_number(trials) == {2: 1.0, 1: pytest.approx(2 / 3), 0: pytest.approx(1 / 6), 3: pytest.approx(1 / 6)}


def test_standings_are_shares_of_won_pairs() -> None:
    """They agree with a comparison of every pair, for curves of random length with ties."""
    rng = np.random.default_rng(0)
    trials = [trial(n, np.round(rng.random(rng.integers(1, 6)), 1).tolist()) for n in range(40)]
    confirmed = {n: float(np.round(rng.random(), 1)) for n in range(0, 40, 7)}

    def wins(one: Trial, other: Trial) -> float:
        epoch = min(len(one.epochs), len(other.epochs))
        both = one.number in confirmed and other.number in confirmed
        pair = (
            (confirmed[one.number], confirmed[other.number])
            if both
            else (one.value_until(epoch), other.value_until(epoch))
        )
        assert pair[0] is not None and pair[1] is not None
        return 0.5 if pair[0] == pair[1] else float(pair[0] > pair[1])

    expected = {one.number: np.mean([wins(one, other) for other in trials if other is not one]) for one in trials}
    assert by_number(trials, confirmed) == pytest.approx(expected)


def test_confirmed_scores_order_the_finalists() -> None:
    """The search's best falls behind the two that were better out of fold, and stays before the others."""
    trials = [trial(0, [0.9]), trial(1, [0.8]), trial(2, [0.7]), trial(3, [0.6]), trial(4, [0.5])]

    assert list(by_number(trials, {0: 0.3, 1: 0.4, 2: 0.5})) == [2, 1, 0, 3, 4]
    assert by_number(trials, {2: 0.5}) == by_number(trials)  # one alone is compared with nobody


def test_a_trivial_model_loses_to_all_others() -> None:
    """Its F1 may be high without having learned anything; a study that keeps the older rules does not do this."""
    trials = [trial(0, [0.9], is_trivial=True), trial(1, [0.2])]

    assert by_number(trials) == {1: 1.0, 0: 0.0}
    assert by_number(trials, apart=False) == {0: 1.0, 1: 0.0}


def test_a_configuration_that_was_tried_twice_is_one() -> None:
    """It has the mean standing, and counts as often as it was trained; a confirmed one as often as there are folds."""
    found = standings(
        [trial(0, [0.9], "a"), trial(1, [0.5], "a"), trial(2, [0.7], "b")], {2: 0.6}, n_folds=5, sets_trivial_apart=True
    )

    assert [(one.params["x"], one.trials, one.standing, one.n_trainings, one.is_confirmed) for one in found] == [
        ("a", (0, 1), 0.5, 2, False),
        ("b", (2,), 0.5, 6, True),
    ]
    assert standings([trial(0, [0.9])], {}, n_folds=0, sets_trivial_apart=True) == []
