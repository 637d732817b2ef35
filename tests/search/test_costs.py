"""The epochs of the stages, and what a budget of device hours pays for."""

import numpy as np
import pytest

from mhist_tune.definition import study_file
from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.search import costs
from mhist_tune.search.promotion import Rung, arrive
from mhist_tune.storage.stages import Stage

TEXT = """
[study]
name = "small"
n_trials = {n_trials}
score = "mean_f1"
at = "{at}"
pruner = {pruner}
{more}

[fixed]
epochs = 30

[space]
learning_rate = {{ low = 1e-5, high = 1e-1, log = true }}

[[start]]
learning_rate = 1e-3

[confirm]
top = 3
n_folds = 5
"""


def define(
    *, n_trials: int = 60, at: str = "last", pruner: str = '{ name = "promotion" }', more: str = ""
) -> StudyDefinition:
    return study_file.parse(TEXT.format(n_trials=n_trials, at=at, pruner=pruner, more=more), "test")


def test_every_epoch_is_expected_without_rungs() -> None:
    """60 trials of 30 epochs, 20 trainings of finalists, ten seeds of the choice and of the default."""
    planned = costs.planned(define(pruner='{ name = "none" }'), 60)

    assert planned[Stage.SEARCH] == costs.Epochs(1800, 1800)
    assert planned[Stage.CONFIRM] == costs.Epochs(600, 600)
    assert planned[Stage.RETRAIN] == costs.Epochs(600, 600)


def test_inner_splits_double_the_confirmation() -> None:
    """A value of the best epoch needs as many trainings on inner splits."""
    assert costs.planned(define(at="best"), 60)[Stage.CONFIRM].at_most == 1200


def test_the_expected_epochs_are_those_of_simulated_arrivals() -> None:
    """Trials of random values, decided by the rule itself, train as many epochs within 5%."""
    definition = define(pruner='{ name = "promotion", min_resource = 2 , max_resource = 10}')
    totals = []
    for seed in range(30):
        rng, n_there, reached, total = np.random.default_rng(seed), 60, 0, 0
        for epoch in (2, 6):
            total, reached = total + n_there * (epoch - reached), epoch
            rung = Rung(epoch)
            for slot in range(n_there):
                for other, decision in arrive(rung, slot, rng.random(), reduction_factor=3, n_slots=60).items():
                    rung.take(other, decision)
            n_there = max(1, rung.n_promoted)
        totals.append(total + n_there * (30 - reached))

    expected = costs.search_epochs(definition, 60)
    assert expected.expected == pytest.approx(np.mean(totals), rel=0.05)
    assert expected.at_most == 1800


def test_audited_trials_are_trained_to_their_end() -> None:
    """A tenth of the trials counts with all its epochs."""
    plain = costs.search_epochs(define(), 60).expected
    audited = costs.search_epochs(define(pruner='{ name = "promotion", audit = 0.1 }'), 60).expected

    assert plain * 0.9 + 6 * 30 == pytest.approx(audited, rel=0.05)


def test_a_fold_and_a_retraining_take_their_share_of_images() -> None:
    """Without validation an epoch of 100 images takes less than 80 with 20 validated images scaled up to 100."""
    per_epoch = costs.seconds_per_epoch(10.0, 80, 20, define())

    of_image = 10.0 / (80 + 20 / 3)
    assert per_epoch[Stage.SEARCH] == 10.0
    assert per_epoch[Stage.CONFIRM] == pytest.approx(80 * of_image)
    assert per_epoch[Stage.RETRAIN] == pytest.approx(100 * of_image)


def hours_for(definition: StudyDefinition, n_trials: int, n_epochs: int, epoch_s: float) -> float:
    """Return the hours that a search of `n_trials` takes with all that follows, if the last one is complete."""
    shorter = study_file.with_epochs(definition, n_epochs)
    reserved = costs.reserved_s(shorter, costs.seconds_per_epoch(epoch_s, 80, 20, shorter))
    return (reserved + (costs.search_epochs(shorter, n_trials - 1).expected + n_epochs) * epoch_s) / 3600


@pytest.mark.parametrize("n_trials", [1, 7, 30, 60])
def test_as_many_trials_are_picked_as_fit(n_trials: int) -> None:
    """With a second less than the hours of n trials one trial fewer is picked."""
    hours = hours_for(define(), n_trials, 30, 20.0)

    fitting = costs.pick(define(more=f"max_hours = {hours + 1e-6}"), 20.0, 80, 20)
    short = costs.pick(define(more=f"max_hours = {hours - 1 / 3600}"), 20.0, 80, 20)

    assert (fitting.n_trials, fitting.n_epochs) == (n_trials, 30)
    assert short.n_trials == n_trials - 1


def test_the_epochs_are_lowered_until_enough_trials_fit() -> None:
    """Where the definition allows it, and no further; without it they stay."""
    hours = hours_for(define(), costs.ENOUGH_TRIALS, 24, 20.0) + 1e-6

    kept = costs.pick(define(more=f"max_hours = {hours}"), 20.0, 80, 20)
    lowered = costs.pick(define(more=f"max_hours = {hours}\nmin_epochs = 12"), 20.0, 80, 20)
    bounded = costs.pick(define(more=f"max_hours = {hours}\nmin_epochs = 27"), 20.0, 80, 20)

    assert (kept.n_epochs, kept.n_trials) == (30, 0)
    assert (lowered.n_epochs, lowered.n_trials) == (24, costs.ENOUGH_TRIALS)
    assert bounded.n_epochs == 27


def test_rungs_follow_the_lowered_number_of_epochs_unless_the_file_gives_them() -> None:
    """Default rungs of 30 epochs become those of 10; hash and text stay."""
    given = define(pruner='{ name = "promotion", min_resource = 4 }')
    shorter = study_file.with_epochs(define(), 10)

    assert (shorter.pruner["min_resource"], shorter.pruner["max_resource"]) == (1, 3)
    assert (shorter.sha256, shorter.text, shorter.fixed["epochs"]) == (define().sha256, define().text, 10)
    assert study_file.with_epochs(given, 10).pruner == given.pruner
