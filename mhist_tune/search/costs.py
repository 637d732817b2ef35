"""The epochs and the device hours of a study's stages, expected and at most, and what a budget of hours pays for.

Everything here follows from the definition, the numbers of images and the seconds of an epoch. Imports no NumPy, so
that `status` is fast.
"""

import bisect
import functools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mhist_tune.definition.space import Categorical
from mhist_tune.definition.study_file import StudyDefinition, with_epochs
from mhist_tune.search.pruning import rungs
from mhist_tune.storage.stages import Stage

N_SEEDS = 10
"""The number of seeds of a retraining, unless a person asks for another one."""

ENOUGH_TRIALS = 20
"""A budget lowers the number of epochs only where fewer trials than this would fit."""

STAGES = (Stage.SEARCH, Stage.CONFIRM, Stage.RETRAIN)
"""The stages that a plan counts, in their order."""

_N_SIMULATIONS = 8
_MOST_SIMULATED = 1000
_FORWARD = 1 / 3  # the time of a prediction, as a share of that of a training step


@dataclass(frozen=True)
class Epochs:
    """Numbers of epochs: expected, and at most."""

    expected: int
    at_most: int


@dataclass(frozen=True)
class Pick:
    """What a budget of device hours pays for.

    Attributes:
        n_trials: the number of trials that are expected to begin; 0 if not even one fits.
        n_epochs: of a training that is not pruned.
        needed_s: the device seconds of one trial, its confirmation and its retraining, at most.
        reserved_s: the device seconds of confirmation and retraining, at most, which the search leaves.
    """

    n_trials: int
    n_epochs: int
    needed_s: float
    reserved_s: float


def n_epochs(definition: StudyDefinition) -> int:
    """Return the number of epochs of a training that is not pruned; the largest, where trials or rows differ."""
    if definition.rows:
        return max(definition.hyperparameters(row.params).epochs for row in definition.rows)
    dimension = definition.space.get("epochs")
    if dimension is None:
        return int(definition.fixed["epochs"])
    return int(max(dimension.choices) if isinstance(dimension, Categorical) else dimension.high)


def n_trainings(definition: StudyDefinition) -> int:
    """Return the largest number of trainings in the confirm stage; 0 without one.

    There is one for each candidate and fold, and one more for its inner split in a study with `at = "best"`.
    """
    n_each = 2 if definition.at == "best" else 1
    return n_each * definition.confirm["n_folds"] * (definition.confirm["top"] + 1) if definition.confirm else 0


def planned(definition: StudyDefinition, n_trials: int) -> dict[Stage, Epochs]:
    """Return the epochs of the search, the confirmation and the retraining.

    The retraining has `N_SEEDS` trainings of the choice, and as many of the default if finalists are confirmed.

    Args:
        definition: of the study.
        n_trials: the number of trials of the search.
    """
    length = n_epochs(definition)
    confirm, retrain = n_trainings(definition) * length, N_SEEDS * (2 if definition.confirm else 1) * length
    return {
        Stage.SEARCH: search_epochs(definition, n_trials),
        Stage.CONFIRM: Epochs(confirm, confirm),
        Stage.RETRAIN: Epochs(retrain, retrain),
    }


def search_epochs(definition: StudyDefinition, n_trials: int) -> Epochs:
    """Return the epochs of a search of `n_trials` trials.

    The expected number counts the trials that reach each rung, for trials that arrive in random order. Pruners without
    rungs, and early stopping, are not foreseen: every epoch is expected.
    """
    length, at_most = n_epochs(definition), n_trials * n_epochs(definition)
    if definition.pruner["name"] not in ("promotion", "successive_halving"):
        return Epochs(at_most, at_most)
    audited = float(definition.pruner["audit"]) * n_trials
    n_there, reached, expected = n_trials - audited, 0, audited * length
    for rung in rungs(definition.pruner, length):
        expected += n_there * (rung - reached)
        reached = rung
        n_there = _n_going_on(n_there, definition.pruner)
    return Epochs(min(at_most, round(expected + n_there * (length - reached))), at_most)


def n_images_trained(n_train: int, n_val: int) -> float:
    """Return the number of training images that take as long as an epoch of the search with its validation."""
    return n_train + n_val * _FORWARD


def seconds_per_epoch(epoch_s: float, n_train: int, n_val: int, definition: StudyDefinition) -> dict[Stage, float]:
    """Return the seconds of an epoch in each stage.

    An epoch's time is proportional to its number of training images; a prediction takes a third of a training step.
    A training of the confirm stage has all images outside a fold, and a retraining all images of the train partition.

    Args:
        epoch_s: the seconds of an epoch in the search.
        n_train: number of images that the search trains on.
        n_val: number of validation images.
        definition: of the study.
    """
    of_image = epoch_s / n_images_trained(n_train, n_val)
    n_folds = definition.confirm["n_folds"] if definition.confirm else 1
    return {
        Stage.SEARCH: epoch_s,
        Stage.CONFIRM: of_image * (n_train + n_val) * (n_folds - 1) / n_folds,
        Stage.RETRAIN: of_image * (n_train + n_val),
    }


def reserved_s(definition: StudyDefinition, per_epoch_s: Mapping[Stage, float]) -> float:
    """Return the device seconds of confirmation and retraining, at most; `per_epoch_s` is from `seconds_per_epoch`."""
    epochs = planned(definition, 0)
    return sum(epochs[stage].at_most * per_epoch_s[stage] for stage in (Stage.CONFIRM, Stage.RETRAIN))


def pick(definition: StudyDefinition, epoch_s: float, n_train: int, n_val: int) -> Pick:
    """Return what `max_hours` pays for, with at most `n_trials` trials.

    The number of epochs is lowered, as far as `min_epochs`, only where fewer than `ENOUGH_TRIALS` trials fit.

    Args:
        definition: of a study with `max_hours`.
        epoch_s, n_train, n_val: as in `seconds_per_epoch`.
    """
    assert definition.max_hours is not None
    longest = n_epochs(definition)
    found = None
    for length in range(longest, min(longest, definition.min_epochs or longest) - 1, -1):
        tried = definition if length == longest else with_epochs(definition, length)
        per_epoch_s = seconds_per_epoch(epoch_s, n_train, n_val, tried)
        reserved, whole_s = reserved_s(tried, per_epoch_s), length * epoch_s
        left_s = definition.max_hours * 3600 - reserved - whole_s
        found = Pick(_n_fitting(tried, left_s / epoch_s), length, reserved + whole_s, reserved)
        if found.n_trials >= min(definition.n_trials, ENOUGH_TRIALS):
            return found
    assert found is not None
    return found


def _n_fitting(definition: StudyDefinition, n_left: float) -> int:
    """Return the number of trials that begin while all earlier ones are expected to take at most `n_left` epochs."""
    if n_left < 0:
        return 0
    return bisect.bisect_right(
        range(definition.n_trials), n_left, key=lambda n_before: search_epochs(definition, n_before).expected
    )


def _n_going_on(n_arriving: float, pruner: Mapping[str, Any]) -> float:
    """Return how many of `n_arriving` trials are expected to go on from a rung; at least one of one or more."""
    if n_arriving < 1:
        return n_arriving
    factor, is_promotion = int(pruner["reduction_factor"]), pruner["name"] == "promotion"
    counts = _simulated(factor, is_promotion)
    if n_arriving >= _MOST_SIMULATED:
        return n_arriving * counts[-1] / _MOST_SIMULATED
    whole = math.floor(n_arriving)
    return max(1.0, counts[whole] + (n_arriving - whole) * (counts[whole + 1] - counts[whole]))


@functools.lru_cache(maxsize=32)
def _simulated(factor: int, is_promotion: bool) -> list[float]:
    """Return the mean number of trials that have gone on after 0, 1, ... arrivals in random order.

    With `promotion` a waiting trial goes on as soon as it is among the best. Otherwise only the arriving one can, and
    the best of all may always.
    """
    sums = [0] * (_MOST_SIMULATED + 1)
    for seed in range(_N_SIMULATIONS):
        rng, ranked, promoted, n_promoted = random.Random(seed), list[float](), set[float](), 0
        for n_arrived in range(1, _MOST_SIMULATED + 1):
            value = -rng.random()
            bisect.insort(ranked, value)
            n_best = n_arrived // factor if is_promotion else max(1, n_arrived // factor)
            going_on = {value} & set(ranked[:n_best]) if not is_promotion else set(ranked[max(0, n_best - 1) : n_best])
            if is_promotion and n_best and value < ranked[n_best - 1]:
                going_on.add(value)
            n_promoted += len(going_on - promoted)
            promoted |= going_on
            sums[n_arrived] += n_promoted
    return [total / _N_SIMULATIONS for total in sums]
