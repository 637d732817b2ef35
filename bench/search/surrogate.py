"""Curves of configurations that were not recorded, and samplers that suggest them, for `bench.search.replay`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial
from sklearn.ensemble import RandomForestRegressor

from bench.search.curves import SCORES, Curves, Params
from bench.search.simulation import Curve, Trial
from mhist_tune.definition import space
from mhist_tune.search import suggestions

_N_TREES = 40


def suggest(
    sampler: Mapping[str, Any],
    seed: int,
    slot: int,
    dimensions: Mapping[str, space.Dimension],
    trials: Sequence[Trial],
) -> Params:
    """Ask a sampler as a worker does. It sees waiting trials as pruned.

    With `matched` it sees only values of the same epoch, as BOHB does (Falkner et al. 2018): the highest epoch that
    at least `n_startup_trials` trials have reached, and its values as if they were complete.
    """
    options = {key: value for key, value in sampler.items() if key != "matched"}
    distributions = {name: dimension.distribution() for name, dimension in dimensions.items()}
    if sampler.get("matched"):
        reached = sorted((trial.n_epochs for trial in trials), reverse=True)
        n_needed = int(sampler["n_startup_trials"])
        epoch = reached[n_needed - 1] if len(reached) >= n_needed else 0
        seen = [_at(trial, epoch, distributions) for trial in trials if epoch and trial.n_epochs >= epoch]
    else:
        seen = [_frozen(trial, distributions) for trial in trials]
    return suggestions.suggest({**options, "seed": seed}, slot, dimensions, seen)


def _at(trial: Trial, epoch: int, distributions: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
    return create_trial(
        state=TrialState.COMPLETE,
        params=dict(trial.curve.params),
        distributions=dict(distributions),
        value=float(trial.values[epoch - 1]),
    )


def _frozen(trial: Trial, distributions: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
    state = {"complete": TrialState.COMPLETE, "running": TrialState.RUNNING}.get(trial.state, TrialState.PRUNED)
    seen = trial.values[: trial.n_epochs].tolist()
    value = seen[-1] if seen and state is not TrialState.RUNNING else None
    return create_trial(
        state=state,
        params=dict(trial.curve.params),
        distributions=dict(distributions),
        intermediate_values=dict(enumerate(seen, 1)),
        value=value,
    )


class Surrogate:
    """A random forest from hyperparameters to the curves of one seed, and to the truth of the others.

    Args:
        curves: the recording.
        seed: the one whose validation scores are predicted.
        drawn: the configurations to fit, with repetitions, [n].
    """

    def __init__(self, curves: Curves, seed: int, drawn: np.ndarray) -> None:
        self._space, self._seconds = curves.space, curves.seconds[seed]
        features = np.array([self._features(params) for params in curves.params])
        val = np.stack([curves.val[name][seed] for name in SCORES], axis=1)
        truth = np.stack([curves.truth[name][curves.others(seed)].mean(axis=0) for name in SCORES], axis=1)
        targets = np.stack([val, truth], axis=1)  # [C, 2, scores, E]
        self._shape = targets.shape[1:]
        self._forest = RandomForestRegressor(_N_TREES, min_samples_leaf=2, random_state=0)
        self._forest.fit(features[drawn], targets.reshape(len(features), -1)[drawn])
        predicted = self._forest.predict(features).reshape(targets.shape)
        self._residuals = (targets - predicted)[:, 0]

    def curve(self, params: Params, which: int) -> Curve:
        """Return the expected validation curves plus the residuals of the recorded configuration `which`."""
        scores = np.clip(self._predict(params)[0] + self._residuals[which], 0.0, 1.0)
        by_name = dict(zip(SCORES, scores, strict=True))
        return Curve(params, by_name, np.zeros(scores.shape[1], dtype=bool), self._seconds[which])

    def truth(self, params: Params) -> Mapping[str, np.ndarray]:
        """Return each expected score on the images of the other seeds, by epoch."""
        return dict(zip(SCORES, self._predict(params)[1], strict=True))

    def _predict(self, params: Params) -> np.ndarray:
        features = np.array([self._features(params)], dtype=np.float32)
        # as the forest's own `predict`, which prepares threads for each call and is thirty times slower
        return np.mean([tree.tree_.predict(features) for tree in self._forest.estimators_], axis=0).reshape(self._shape)

    def _features(self, params: Params) -> list[float]:
        found = []
        for name, dimension in self._space.items():
            if isinstance(dimension, space.Categorical):
                found.append(float(dimension.choices.index(params[name])))
            else:
                found.append(float(np.log(params[name]) if dimension.log else params[name]))
        return found
