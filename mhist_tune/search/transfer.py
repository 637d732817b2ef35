"""Configurations of finished studies that another study of the same space tries first.

They are a greedy portfolio, as in auto-sklearn 2.0 (Feurer et al., 2022) and earlier by Wistuba, Schilling and
Schmidt-Thieme (2015). As in Winkelmolen et al. (2020), a surrogate of each source predicts what was not tried there: a
forest from hyperparameters to standings. Each of its trees was grown on a resample of the source's configurations, so
it is one version of the source that could have been observed as well. The portfolio is chosen for all these versions.
Therefore it holds different configurations even with one source, and a standing that rests on luck counts less.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mhist_tune.arrays import FloatArray
from mhist_tune.definition.scores import sets_trivial_apart
from mhist_tune.definition.space import Categorical, Dimension
from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.errors import UsageError
from mhist_tune.search import finalists, selection, trials
from mhist_tune.search.standings import Tried, standings
from mhist_tune.statistics import portfolio
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study

ALL = "all"
"""Stands for every finished study with the same space."""

MOST_ENTRIES = 10
"""The size of a portfolio, unless that is above a quarter of the trials."""

_N_TREES = 100
_N_CANDIDATES = 100  # of each source, the best ones


@dataclass(frozen=True)
class Source:
    """A finished study, and the configurations that it has tried; those outside the new space are counted apart."""

    study: Study
    tried: tuple[Tried, ...]
    n_outside: int


@dataclass(frozen=True)
class Origin:
    """A configuration in one source: the trials that had it, its standing, and whether it was confirmed."""

    study: str
    trials: list[int]
    standing: float
    is_confirmed: bool


@dataclass(frozen=True)
class Pick:
    """A configuration of the portfolio, and every source that has tried it."""

    params: dict[str, Any]
    origins: list[Origin]


def n_entries(n_trials: int) -> int:
    """Return the number of configurations that a search of `n_trials` takes from other studies."""
    return min(MOST_ENTRIES, n_trials // 4)


def sources(storage: Storage, names: Sequence[str], definition: StudyDefinition) -> list[Source]:
    """Return the studies that a new study can start from.

    Args:
        storage: where they are.
        names: of studies; `ALL` stands for all that can be used, except the new study itself.
        definition: of the new study.

    Raises:
        StudyNotFoundError: there is no study of a name.
        UsageError: a study has not finished, has another space or none of its configurations in this one, or is a
            table; or none was found for `ALL`.
    """
    if definition.rows:
        raise UsageError(f"{definition.name} is a table: it has no configurations to start from")
    if n_entries(definition.n_trials) == 0:
        raise UsageError(
            f"{definition.name} has {definition.n_trials} trials, and at most a quarter come from other studies",
            hint="--n-trials 4 or more",
        )
    found: dict[str, Source] = {}
    for name in dict.fromkeys(names):
        if name != ALL:
            found[name] = _source(storage, studies.load_study(storage, name), definition)
    if ALL in names:
        others = [study for study in studies.list_studies(storage) if study.name not in (definition.name, *found)]
        for study in others:
            try:
                found[study.name] = _source(storage, study, definition)
            except UsageError:
                continue
    if not found:
        raise UsageError(
            f"no finished study has the space of {definition.name}", hint="mhist-tune studies lists all studies"
        )
    return list(found.values())


def choose(definition: StudyDefinition, found: Sequence[Source]) -> list[Pick]:
    """Return the portfolio of a new study, its first entry first."""
    own = list(definition.start) or [definition.default_params()]
    n = min(n_entries(definition.n_trials), definition.n_trials - len(own))
    picked = pick(definition.space, own, [source.tried for source in found], n)
    return [Pick(params, _origins(params, found)) for params in picked]


def pick(
    space: Mapping[str, Dimension],
    own: Sequence[Mapping[str, Any]],
    tried: Sequence[Sequence[Tried]],
    n: int,
) -> list[dict[str, Any]]:
    """Return up to `n` configurations of some sources, in the order in which they should be tried.

    Args:
        space: of the new study; it has all configurations of `tried`.
        own: the configurations that the new study tries in any case.
        tried: the configurations of each source.
        n: the size of the portfolio.
    """
    from sklearn.ensemble import RandomForestRegressor

    pool: list[Mapping[str, Any]] = []
    for of_source in tried:
        best = sorted(of_source, key=lambda one: -one.standing)[:_N_CANDIDATES]
        pool += [one.params for one in best if one.params not in pool and one.params not in own]
    if not pool or n < 1:
        return []
    asked = np.array([_features(space, params) for params in [*own, *pool]], dtype=np.float32)
    versions: list[FloatArray] = []
    for of_source in tried:
        forest = RandomForestRegressor(_N_TREES, min_samples_leaf=2, random_state=0)
        forest.fit(
            np.array([_features(space, one.params) for one in of_source]),
            np.array([one.standing for one in of_source]),
            sample_weight=np.array([one.n_trainings for one in of_source], dtype=np.float64),
        )
        versions += [tree.tree_.predict(asked).reshape(-1) for tree in forest.estimators_]
    table = np.stack(versions)
    chosen = portfolio.greedy(table[:, len(own) :], n, known=table[:, : len(own)])
    return [dict(pool[place]) for place in chosen]


def difference(space: Mapping[str, Dimension], other: Mapping[str, Dimension]) -> str | None:
    """Return in a phrase how two spaces differ; None if they have the same fields and every field common values."""
    missing, added = sorted(space.keys() - other.keys()), sorted(other.keys() - space.keys())
    if missing or added:
        texts = [f"does not search {', '.join(missing)}"] * bool(missing)
        texts += [f"searches {', '.join(added)}, too"] * bool(added)
        return " and ".join(texts)
    apart = [name for name, dimension in space.items() if not _overlaps(dimension, other[name])]
    return f"has no value of {', '.join(apart)} in common" if apart else None


def _overlaps(dimension: Dimension, other: Dimension) -> bool:
    if isinstance(dimension, Categorical) or isinstance(other, Categorical):
        ranged = [one for one in (dimension, other) if not isinstance(one, Categorical)]
        choices = [one.choices for one in (dimension, other) if isinstance(one, Categorical)]
        return not ranged and any(dimension.contains(choice) for choice in choices[1])
    return max(dimension.low, other.low) <= min(dimension.high, other.high)


def _source(storage: Storage, study: Study, definition: StudyDefinition) -> Source:
    name = study.name
    if name == definition.name:
        raise UsageError(f"{name} cannot start from itself", hint="give the new study another name")
    if study.definition.rows:
        raise UsageError(f"{name} is a table of chosen rows and not a search")
    if phrase := difference(definition.space, study.definition.space):
        raise UsageError(f"{name} has another space than {definition.name}: it {phrase}")
    searched = ledger.slots(storage, study, Stage.SEARCH)
    if unfinished := selection.unfinished(searched):
        raise UsageError(
            f"{name} has not finished: {len(unfinished)} of its {len(searched)} trials have not ended",
            hint=f"mhist-tune worker {name}, or mhist-tune stop {name}",
        )
    if not any(selection.is_complete(slot) for slot in searched):
        raise UsageError(f"{name} has no complete trial to start from", hint=f"see mhist-tune status {name}")
    confirmation = finalists.load(storage, study)
    if confirmation and confirmation.n_open:
        raise UsageError(
            f"{name} has not finished: its best trials are not confirmed yet", hint=f"mhist-tune worker {name}"
        )
    score = study.definition.score
    confirmed = confirmation.finalists if confirmation else ()
    tried = standings(
        trials.ended(storage, study),
        {finalist.candidate.trial: finalist.scores.of(score) for finalist in confirmed},
        n_folds=study.definition.confirm["n_folds"] if study.definition.confirm else 0,
        sets_trivial_apart=sets_trivial_apart(score, study.definition.at),
    )
    inside = [one for one in tried if _is_inside(one.params, definition.space)]
    if not inside:
        raise UsageError(
            f"none of the {len(tried)} configurations that {name} compared is in the space of {definition.name}"
        )
    return Source(study, tuple(inside), len(tried) - len(inside))


def _is_inside(params: Mapping[str, Any], space: Mapping[str, Dimension]) -> bool:
    return all(dimension.contains(params.get(name)) for name, dimension in space.items())


def _origins(params: Mapping[str, Any], found: Iterable[Source]) -> list[Origin]:
    return [
        Origin(source.study.name, list(one.trials), one.standing, one.is_confirmed)
        for source in found
        for one in source.tried
        if one.params == params
    ]


def _features(space: Mapping[str, Dimension], params: Mapping[str, Any]) -> list[float]:
    """Return a configuration as numbers; a choice without a number becomes one indicator for each choice."""
    found: list[float] = []
    for name, dimension in space.items():
        value = params[name]
        if not isinstance(dimension, Categorical):
            found.append(math.log(value) if dimension.log else float(value))
        elif all(isinstance(choice, int | float) for choice in dimension.choices):
            found.append(float(value))
        else:
            found += [float(value == choice) for choice in dimension.choices]
    return found
