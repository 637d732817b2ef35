"""Curves of configurations that were not recorded, and samplers that suggest them, for `bench.search.replay`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial
from scipy.stats import spearmanr
from sklearn.ensemble import RandomForestRegressor

from bench.search.simulation import Curves, Params, Trial
from mhist_tune.definition import space
from mhist_tune.search import suggestions

_N_TREES = 60


def suggest(
    sampler: Mapping[str, Any], seed: int, slot: int, dimensions: Mapping[str, space.Dimension], trials: Sequence[Trial]
) -> Params:
    """Ask a sampler as a worker does. It sees waiting trials as pruned.

    `start = "qmc"` begins with a Sobol sequence. For a field in `ordered` the sampler suggests a place among the
    choices, a whole number, so that it knows which choices are neighbours.
    """
    options = {key: value for key, value in sampler.items() if key not in ("start", "ordered")}
    if sampler.get("start") == "qmc" and slot < sampler["n_startup_trials"]:
        options = {"name": "qmc", "scramble": True}
    choices = {
        name: dimension.choices
        for name, dimension in dimensions.items()
        if name in sampler.get("ordered", ()) and isinstance(dimension, space.Categorical)
    }
    asked = {**dimensions, **{name: space.Int(0, len(found) - 1) for name, found in choices.items()}}
    distributions = {name: dimension.distribution() for name, dimension in asked.items()}
    seen = [
        _frozen(trial, {name: found.index(trial.params[name]) for name, found in choices.items()}, distributions)
        for trial in trials
    ]
    params = suggestions.suggest({**options, "seed": seed}, slot, asked, seen)
    return {**params, **{name: found[params[name]] for name, found in choices.items()}}


def _frozen(trial: Trial, places: Mapping[str, int], distributions: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
    state = {"complete": TrialState.COMPLETE, "running": TrialState.RUNNING}.get(trial.state, TrialState.PRUNED)
    seen = trial.curve[: trial.n_epochs].tolist()
    value = {TrialState.COMPLETE: trial.best if seen else None, TrialState.PRUNED: seen[-1] if seen else None}.get(
        state
    )
    return create_trial(
        state=state,
        params={**trial.params, **places},
        distributions=dict(distributions),
        intermediate_values=dict(enumerate(seen, 1)),
        value=value,
    )


class Surrogate:
    """A random forest from hyperparameters to the curve of one seed.

    Args:
        curves: the recording.
        seed: 0 or 1, whose curves.
        drawn: the configurations to fit, with repetitions, [n].
    """

    def __init__(self, curves: Curves, seed: int, drawn: np.ndarray) -> None:
        self._space = curves.space
        self._curves, self._seconds = curves.f1[seed], curves.seconds[seed]
        features = np.array([self._features(params) for params in curves.params])
        self._forest = RandomForestRegressor(_N_TREES, min_samples_leaf=2, random_state=0)
        self._forest.fit(features[drawn], self._curves[drawn])
        self._residuals = self._curves - self._forest.predict(features)

    def mean(self, params: Params) -> np.ndarray:
        """Return the expected curve, [epochs]."""
        features = np.array([self._features(params)], dtype=np.float32)
        # as the forest's own `predict`, which prepares threads for each call and is thirty times slower
        return np.mean([tree.tree_.predict(features) for tree in self._forest.estimators_], axis=0).reshape(-1)

    def noisy(self, params: Params, which: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the expected curve plus the residual of a recorded configuration, and the seconds of its epochs."""
        return np.clip(self.mean(params) + self._residuals[which], 0.0, 1.0), self._seconds[which]

    def _features(self, params: Params) -> list[float]:
        found = []
        for name, dimension in self._space.items():
            if isinstance(dimension, space.Categorical):
                found.append(float(dimension.choices.index(params[name])))
            else:
                found.append(float(np.log(params[name]) if dimension.log else params[name]))
        return found


def quality(curves: Curves) -> dict[str, float]:
    """Return how well the surrogate predicts left-out configurations, and how well the seeds predict each other.

    `r2` and `rank_correlation`: five-fold predictions of the mean curve of both seeds, their best value, against the
    recorded one. `seeds`: Spearman's rank correlation of the best values of both seeds, the limit of any prediction.
    """
    n = len(curves.params)
    best = curves.f1.mean(axis=0).max(axis=1)
    predicted = np.zeros(n)
    folds = np.random.default_rng(0).permutation(n) % 5
    for fold in range(5):
        surrogates = [Surrogate(curves, seed, np.flatnonzero(folds != fold)) for seed in (0, 1)]
        for index in np.flatnonzero(folds == fold):
            predicted[index] = np.mean([one.mean(curves.params[index]) for one in surrogates], axis=0).max()
    return {
        "r2": float(1 - ((best - predicted) ** 2).sum() / ((best - best.mean()) ** 2).sum()),
        "rank_correlation": float(spearmanr(best, predicted).statistic),
        "seeds": float(spearmanr(curves.f1[0].max(axis=1), curves.f1[1].max(axis=1)).statistic),
    }
