"""Samples the params of a slot and records them.

A suggestion is a function of the study's seed, the slot, the search space and the trials that were visible. The space
and the visible trials are recorded with it, before it becomes the params of the trial. So if a worker is killed in
between, the next one uses the same params, and `replay` can derive them again at any time.
"""

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
import sqlalchemy
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import Connection

from mhist_tune.definition.space import Dimension
from mhist_tune.seeds import derive_seed
from mhist_tune.storage import event_log, optuna_mirror, tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.event_log import EventRow
from mhist_tune.storage.leases import Claim, fence, is_claimed
from mhist_tune.storage.optuna_internals import PointSampler, trial_id
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study

KIND = "suggestion"
"""The kind of event that holds a suggestion: its `params`, the `space` at that time, and `visible` (see `visible`)."""

_LETTERS = {TrialState.COMPLETE: "C", TrialState.PRUNED: "P", TrialState.RUNNING: "R"}
_NOT_SEEN = "-"


def make_sampler(options: Mapping[str, Any], slot: int) -> BaseSampler:
    """Return the sampler of one slot, seeded by the study's seed and the slot. Every worker gets the same one."""
    rest = {name: value for name, value in options.items() if name not in ("name", "seed")}
    seed = derive_seed(options["seed"], "sampler", slot)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match options["name"]:
            case "tpe":
                return optuna.samplers.TPESampler(seed=seed, **rest)
            case "gp":
                return optuna.samplers.GPSampler(seed=seed, **rest)
            case "qmc":  # its points are one sequence over all slots, so the seed is the study's
                return PointSampler(slot, seed=options["seed"], **rest)
            case _:
                return optuna.samplers.RandomSampler(seed=seed)


def suggest(
    options: Mapping[str, Any], slot: int, space: Mapping[str, Dimension], trials: Sequence[FrozenTrial]
) -> dict[str, Any]:
    """Return the params that a sampler gives to a slot.

    Args:
        options: a study definition's complete `sampler` table.
        slot: the slot of the trial.
        space: the search space.
        trials: the trials that the sampler observes, from `observed_trials`.
    """
    distributions = {name: dimension.distribution() for name, dimension in space.items()}
    sampler = make_sampler(options, slot)
    study, storage = optuna_mirror.in_memory()
    study_id = storage.get_study_id_from_name(study.study_name)
    for trial in map(copy.copy, trials):
        # the current ones, since TPE models params jointly only if their range is the same in all trials
        trial.distributions = {name: distributions[name] for name in trial.params}
        storage.create_new_trial(study_id, template_trial=trial)
    own = storage.get_trial(storage.create_new_trial(study_id))
    joint = distributions if options["name"] == "qmc" else sampler.infer_relative_search_space(study, own)
    params = sampler.sample_relative(study, own, joint)
    suggested = {
        name: params[name] if name in params else sampler.sample_independent(study, own, name, distribution)
        for name, distribution in distributions.items()
    }
    # as the database returns them, so that the first worker and a later one train with the same numbers
    return {
        name: distribution.to_external_repr(distribution.to_internal_repr(suggested[name]))
        for name, distribution in distributions.items()
    }


def observed_trials(trials: Sequence[FrozenTrial], own_id: int) -> list[FrozenTrial]:
    """Return the trials that a sampler observes: all but its own and those that have not begun.

    A failed trial becomes PRUNED with its last value, as a diverged one is in the database. Without a value it counts
    as worse than all others. No score is invented.

    Args:
        trials: all trials of the study.
        own_id: Optuna's id of the trial for which params are sampled.
    """
    observed = []
    for trial in trials:
        if trial.state == TrialState.FAIL and trial.params:
            curve = trial.intermediate_values
            trial = copy.copy(trial)
            trial.state, trial.value = TrialState.PRUNED, curve[max(curve)] if curve else None
        if trial.state in _LETTERS and trial_id(trial) != own_id:
            observed.append(trial)
    return observed


def visible(trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    """Return a JSON-safe record of the observed trials and of how far they had come, by number.

    `states` has a letter for each number: C(omplete), P(runed, failed or waiting), R(unning), - for those that are not
    observed. `lengths` has the number of epochs of each P, and the number of params of each R, where it is not 0.
    """
    by_number = {trial.number: trial for trial in trials}
    lengths = {
        str(number): len(trial.params if trial.state == TrialState.RUNNING else trial.intermediate_values)
        for number, trial in by_number.items()
        if trial.state != TrialState.COMPLETE
    }
    states = [
        _LETTERS[by_number[number].state] if number in by_number else _NOT_SEEN
        for number in range(max(by_number, default=-1) + 1)
    ]
    return {"states": "".join(states), "lengths": {number: length for number, length in lengths.items() if length}}


def seen_again(
    record: Mapping[str, Any],
    space: Mapping[str, Dimension],
    *,
    params: Mapping[int, Mapping[str, Any]],
    scores: Mapping[int, Sequence[float]],
    values: Mapping[int, float],
) -> list[FrozenTrial]:
    """Return the trials of a record from `visible` as they were then.

    Args:
        record: from `visible`.
        space: the search space at that time.
        params: of each trial, by number.
        scores: of every epoch of each trial, by number.
        values: of each complete trial, by number.

    Raises:
        KeyError, IndexError: a trial of the record is not in the other arguments, or is too short there.
    """
    distributions = {name: dimension.distribution() for name, dimension in space.items()}
    trials = []
    for number, letter in enumerate(record["states"]):
        if letter == _NOT_SEEN:
            continue
        length = record["lengths"].get(str(number), 0)
        names = list(distributions)[:length] if letter == "R" else list(distributions)
        curve = scores.get(number, ())[: length if letter == "P" else None]
        trials.append(
            create_trial(
                state=next(state for state, state_letter in _LETTERS.items() if state_letter == letter),
                params={name: params[number][name] for name in names},
                distributions={name: distributions[name] for name in names},
                intermediate_values=dict(enumerate(curve, 1)) if letter == "P" else {},
                value=values[number] if letter == "C" else curve[length - 1] if letter == "P" and length else None,
            )
        )
    return trials


def record(storage: Storage, claim: Claim, detail: Mapping[str, Any]) -> dict[str, Any]:
    """Record the suggestion of a slot unless there is one, and return the recorded one.

    Raises:
        StaleTokenError: the claim no longer holds.
    """
    table = tables.events
    of_slot = sqlalchemy.and_(is_claimed(table, claim), table.c.kind == KIND)

    def work(connection: Connection) -> dict[str, Any]:
        fence(connection, claim)
        stored = connection.execute(sqlalchemy.select(table.c.detail).where(of_slot).order_by(table.c.id)).scalar()
        if stored is None:
            row = {"study": claim.study_uuid, "stage": claim.stage, "slot": claim.slot, "at": storage.clock}
            connection.execute(sqlalchemy.insert(table).values({**row, "kind": KIND, "detail": dict(detail)}))
        return dict(detail) if stored is None else dict(stored)

    return storage.transaction(work)


def recorded(storage: Storage, study: Study, stage: Stage, slot: int | None = None) -> dict[int, EventRow]:
    """Return the recorded suggestions of a stage by slot; with `slot`, only that of this slot."""
    first: dict[int, EventRow] = {}
    for event in event_log.events(storage, study, kind=KIND, stage=stage, slot=slot):
        assert event.slot is not None
        first.setdefault(event.slot, event)
    return first
