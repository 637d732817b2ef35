"""Ended trials, the importance of hyperparameters, values at the end of their range.

Validation scores are the only input.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mhist_tune.arrays import FloatArray
from mhist_tune.definition.space import Categorical, Dimension
from mhist_tune.search.pruning import is_audited
from mhist_tune.storage import ledger, optuna_mirror
from mhist_tune.storage.database import Storage
from mhist_tune.storage.epochs import EpochRow, epochs_of
from mhist_tune.storage.outcome import EndState
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study

_MIN_TRIALS, _MIN_TRIALS_PER_PARAM = 20, 5
_N_TREES, _N_RESAMPLES = 16, 20
_EDGE = 0.05
"""A value closer to an end of its range than this share of the range counts as at its end."""


@dataclass(frozen=True)
class Trial:
    """One search trial that has ended and has recorded at least one epoch.

    Attributes:
        number: Optuna's number of the trial.
        state: COMPLETE or PRUNED.
        params: its hyperparameters by name.
        epochs: its recorded epochs, the first one first.
        is_audited: whether it is trained to its end regardless of its scores.
    """

    number: int
    state: EndState
    params: dict[str, Any]
    epochs: tuple[EpochRow, ...]
    is_audited: bool = False

    def value_until(self, epoch: int) -> float | None:
        """Return the trial's value up to `epoch`, which it must have reached, 1-based."""
        return self.epochs[epoch - 1].value


@dataclass(frozen=True)
class Importance:
    """Each hyperparameter's share of the variance of the trials' values after `epoch` epochs.

    Attributes:
        epoch: the last epoch that all trials reached; None without trials.
        n_trials: number of trials compared.
        shares: by hyperparameter, the largest first: the share in [0, 1] and both ends of its 90% interval over
            resampled trials.
        missing: the reason why there are no shares.
    """

    epoch: int | None
    n_trials: int
    shares: dict[str, tuple[float, float, float]]
    missing: str | None


def ended(storage: Storage, study: Study) -> list[Trial]:
    """Return the trials of a study's search that ended COMPLETE or PRUNED, by number."""
    trials = []
    for slot in ledger.slots(storage, study, Stage.SEARCH):
        outcome = slot.outcome
        if outcome is None or outcome.state is EndState.FAIL or slot.trial_number is None:
            continue
        epochs = epochs_of(storage, study, Stage.SEARCH, slot.slot)
        if epochs:
            audited = is_audited(study.definition.pruner, slot.slot)
            trials.append(Trial(slot.trial_number, outcome.state, outcome.params or {}, tuple(epochs), audited))
    return sorted(trials, key=lambda trial: trial.number)


def importance(trials: Sequence[Trial], space: Mapping[str, Dimension]) -> Importance:
    """Return the importance of each hyperparameter (fANOVA; Hutter et al., 2014), or why it is not known.

    A pruned trial was trained for fewer epochs, so its last value would make its hyperparameters look worse. So all
    trials are compared at the last epoch that all of them reached. Shares add up to 1 even if no hyperparameter
    matters. So none are given unless a random forest predicts left-out trials better than their mean does.
    """
    from sklearn.ensemble import RandomForestRegressor

    epoch = min((len(trial.epochs) for trial in trials), default=None)
    scored = [(trial, value) for trial in trials if epoch and (value := trial.value_until(epoch)) is not None]
    searched = {
        name: dimension for name, dimension in space.items() if len({trial.params[name] for trial, _ in scored}) > 1
    }
    n_needed = max(_MIN_TRIALS, _MIN_TRIALS_PER_PARAM * len(searched))
    if len(scored) < n_needed:
        reason = f"not enough data: {len(scored)} trials of at least {n_needed}"
        return Importance(epoch, len(scored), {}, reason)
    if not searched:
        return Importance(epoch, len(scored), {}, "no hyperparameter varied")
    values = np.array([value for _, value in scored])
    if np.ptp(values) == 0:
        return Importance(epoch, len(scored), {}, f"all {len(scored)} trials have the same score after epoch {epoch}")
    features = np.array([[_feature(searched[name], trial.params[name]) for name in searched] for trial, _ in scored])
    forest = RandomForestRegressor(200, oob_score=True, random_state=0).fit(features, values)
    if not forest.oob_score_ > 0:
        return Importance(epoch, len(scored), {}, "not enough data: these trials do not predict each other's scores")
    rng = np.random.default_rng(0)
    whole = _fanova([trial for trial, _ in scored], values, searched)
    draws = [rng.integers(len(scored), size=len(scored)) for _ in range(_N_RESAMPLES)]
    # A resample with one score only has no variance to share.
    draws = [draw for draw in draws if np.ptp(values[draw]) > 0]
    resampled = [_fanova([scored[i][0] for i in draw], values[draw], searched) for draw in draws]
    shares = {}
    for name in sorted(whole, key=lambda name: -whole[name]):
        low, high = np.quantile([sample[name] for sample in resampled], (0.05, 0.95))
        shares[name] = (whole[name], float(low), float(high))
    return Importance(epoch, len(scored), shares, None)


def edges(params: Mapping[str, Any], space: Mapping[str, Dimension]) -> list[str]:
    """Return a warning for each value at the end of its range, since a wider range may contain a better value.

    Choices count as a range if they are three or more numbers.
    """
    alarms = []
    for name, dimension in space.items():
        value = params[name]
        if isinstance(dimension, Categorical):
            numbers = [choice for choice in dimension.choices if isinstance(choice, int | float)]
            is_range = len(numbers) == len(dimension.choices) >= 3
            place = {min(numbers): 0.0, max(numbers): 1.0}.get(value, 0.5) if is_range else 0.5
        elif dimension.low == dimension.high:
            place = 0.5
        else:
            low, high = _scaled(dimension, dimension.low), _scaled(dimension, dimension.high)
            place = (_scaled(dimension, value) - low) / (high - low)
        if place < _EDGE or place > 1 - _EDGE:
            end = "lower" if place < _EDGE else "upper"
            text = f"{value:g}" if isinstance(value, float) else str(value)
            alarms.append(f"{name} = {text} lies at the {end} end of its range ({dimension}); widen it")
    return alarms


def _fanova(trials: Sequence[Trial], values: FloatArray, space: Mapping[str, Dimension]) -> dict[str, float]:
    import optuna
    from optuna.trial import create_trial

    distributions = {name: dimension.distribution() for name, dimension in space.items()}
    study, _ = optuna_mirror.in_memory()
    study.add_trials(
        [
            create_trial(
                params={name: trial.params[name] for name in space}, distributions=distributions, value=float(value)
            )
            for trial, value in zip(trials, values, strict=True)
        ]
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=_N_TREES, max_depth=16, seed=0)
    return {
        name: float(share)
        for name, share in optuna.importance.get_param_importances(study, evaluator=evaluator).items()
    }


def _feature(dimension: Dimension, value: Any) -> float:
    if isinstance(dimension, Categorical):
        return float(dimension.choices.index(value))
    return _scaled(dimension, value)


def _scaled(dimension: Any, value: float) -> float:
    return math.log(value) if dimension.log else float(value)
