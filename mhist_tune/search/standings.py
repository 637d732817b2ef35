"""How well each configuration of a search did among the others of this search.

Two trials are compared by their confirmed scores if both were confirmed, and otherwise by their values after the last
epoch that both recorded. A trial's standing is the share of the others that it beats; a tie counts half. So trials that
were pruned take part, a confirmed score corrects the order of the finalists, and the standings of studies with other
scores, images or models have one scale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mhist_tune.arrays import FloatArray
from mhist_tune.search.trials import Trial
from mhist_tune.search.values import is_trivial

_TRIVIAL = -1.0  # below every value


@dataclass(frozen=True)
class Tried:
    """A configuration that a study has tried.

    Attributes:
        params: its hyperparameters by name.
        trials: the numbers of the trials that had them.
        standing: in 0..1; of several trials the mean.
        n_trainings: number of trainings that the standing rests on.
        is_confirmed: whether it was a finalist and trained again out of fold.
    """

    params: Mapping[str, Any]
    trials: tuple[int, ...]
    standing: float
    n_trainings: int
    is_confirmed: bool


def standings(
    trials: Sequence[Trial], confirmed: Mapping[int, float], *, n_folds: int, sets_trivial_apart: bool
) -> list[Tried]:
    """Return every configuration that has a standing, the best first; empty if there are fewer than two.

    Args:
        trials: the ended trials of a search.
        confirmed: the out-of-fold score of each finalist, by the number of its trial.
        n_folds: number of trainings behind a confirmed score.
        sets_trivial_apart: whether a trial whose model calls all validation images one class loses to all others.
    """
    compared = [(trial, curve) for trial in trials if (curve := _curve(trial, sets_trivial_apart))]
    if len(compared) < 2:
        return []
    shares = _shares([curve for _, curve in compared], [confirmed.get(trial.number) for trial, _ in compared])
    found: list[tuple[Mapping[str, Any], list[int]]] = []
    for place, (trial, _) in enumerate(compared):
        same = next((places for params, places in found if params == trial.params), None)
        if same is None:
            found.append((trial.params, [place]))
        else:
            same.append(place)
    tried = []
    for params, places in found:
        numbers = tuple(compared[place][0].number for place in places)
        is_confirmed = any(number in confirmed for number in numbers)
        standing = float(np.mean(shares[places]))
        tried.append(Tried(params, numbers, standing, len(places) + is_confirmed * n_folds, is_confirmed))
    return sorted(tried, key=lambda one: (-one.standing, one.trials))


def _curve(trial: Trial, sets_trivial_apart: bool) -> list[float]:
    """Return the value after each epoch; empty if one is not known."""
    values = [row.value for row in trial.epochs]
    if any(value is None for value in values):
        return []
    return [
        _TRIVIAL if sets_trivial_apart and is_trivial(row.metrics) else float(row.value or 0.0) for row in trial.epochs
    ]


def _shares(curves: Sequence[Sequence[float]], confirmed: Sequence[float | None]) -> FloatArray:
    """Return the share of the others that each trial beats, [n]."""
    lengths = np.array([len(curve) for curve in curves])
    n = len(curves)
    wins = np.zeros(n)
    for length in np.unique(lengths):
        # Trials that ended here are compared at this epoch with all that came as far; the others meet later.
        reached = np.flatnonzero(lengths >= length)
        values = np.array([curves[place][length - 1] for place in reached.tolist()])
        ended = lengths[reached] == length
        wins[reached[ended]] += _beaten(values[ended], values) - 0.5  # less half a tie with itself
        wins[reached[~ended]] += _beaten(values[~ended], values[ended])
    scores = np.array([np.nan if score is None else score for score in confirmed])
    finalists = np.flatnonzero(~np.isnan(scores)).tolist()
    for one in finalists:
        for other in finalists:
            if one == other:
                continue
            epoch = min(lengths[one], lengths[other]) - 1
            wins[one] += _win(scores[one], scores[other]) - _win(curves[one][epoch], curves[other][epoch])
    shares: FloatArray = wins / (n - 1)
    return shares


def _beaten(values: FloatArray, others: FloatArray) -> FloatArray:
    """Return how many of `others` each value beats; a tie counts half."""
    ordered = np.sort(others)
    found: FloatArray = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
    return found


def _win(value: float, other: float) -> float:
    return 0.5 + 0.5 * float(np.sign(value - other))
