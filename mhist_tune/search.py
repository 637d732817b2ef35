"""What a search slot does: take its row or ask the sampler, train on the split, prune on each epoch's validation F1.

In Optuna's tables a row's values are categorical params with the values of all rows as choices (lists and tables as
JSON), and its label and seed are user attributes, so that any Optuna tool shows the table.
"""

import json
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from mhist_tune import control, studies
from mhist_tune.definition import StudyDefinition
from mhist_tune.execution import SlotRun
from mhist_tune.pruning import Decision, decide, rungs
from mhist_tune.session import Session, derive_seed
from mhist_tune.train import EpochResult

STAGE = "search"


def run(run: SlotRun) -> Mapping[str, Any]:
    """Train the trial of one search slot and return its outcome: COMPLETE with its best value, or PRUNED."""
    session, claim = run.session, run.claim
    definition = session.study.definition
    trial_id = run.ensure_trial(lambda: _template(definition, claim.slot, claim.token, claim.payload))
    if definition.rows:
        params, seed = claim.payload["params"], claim.payload["seed"]  # the same seeds for all rows: they are compared
    else:
        params = _suggest(session, claim.slot, trial_id)
        seed = derive_seed(definition.sampler["seed"], "train", claim.slot)
    hp = session.hyperparameters(params)

    def judge(result: EpochResult) -> Decision:
        assert result.best_value is not None  # there is a validation split
        if reason := control.veto_of(session.storage, session.study, claim.slot):
            return Decision(True, result.epoch, result.best_value, None, 0, reason)
        return decide(
            definition.pruner,
            slot=claim.slot,
            epoch=result.epoch,
            n_epochs=hp.epochs,
            value=result.best_value,
            values_at=session.scores(STAGE).at,
        )

    def arrive(result: EpochResult) -> Decision:
        assert result.best_value is not None
        unless_promoted = {
            "state": "PRUNED",
            "value": result.metrics["val_f1"],
            "best_value": result.best_value,
            "best_epoch": result.best_epoch,
            "stopped_epoch": result.epoch,
            "params": params,
        }
        book = session.rungs(STAGE)
        return book.arrive(claim, epoch=result.epoch, value=result.best_value, outcome=unless_promoted)

    result = run.fit(
        hp,
        session.subset("train"),
        session.subset("val"),
        seed=seed,
        judge=judge,
        arrive=arrive,
        rungs=rungs(definition.pruner, hp.epochs) if definition.pruner["name"] == "promotion" else (),
    )
    if isinstance(result, dict):
        return {"params": params, **result}
    return {
        "state": "COMPLETE",
        "value": result.best_value,
        "best_value": result.best_value,
        "best_epoch": result.best_epoch,
        "stopped_epoch": len(result.history),
        "params": params,
        "sampling": run.sampling,
    }


def make_sampler(options: Mapping[str, Any], slot: int) -> BaseSampler:
    """Return the sampler of one slot, seeded from (study seed, slot), so that it does not depend on who asks."""
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
                return optuna.samplers.QMCSampler(seed=options["seed"], warn_independent_sampling=False, **rest)
            case _:
                return optuna.samplers.RandomSampler(seed=seed)


def optuna_params(
    definition: StudyDefinition, params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Return the params of a trial as Optuna holds them, and their distributions."""
    if not definition.rows:
        return dict(params), {name: dimension.distribution() for name, dimension in definition.space.items()}
    return {name: _plain(value) for name, value in params.items()}, {
        name: CategoricalDistribution(tuple(dict.fromkeys(_plain(row.params[name]) for row in definition.rows)))
        for name in params
    }


def _plain(value: Any) -> str | int | float:
    return value if isinstance(value, str | int | float) else json.dumps(value)


def _template(definition: StudyDefinition, slot: int, token: int, payload: Mapping[str, Any]) -> FrozenTrial:
    tag = {"slot": slot, "token": token}
    if definition.rows:
        params, distributions = optuna_params(definition, payload["params"])
        return create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=distributions,
            user_attrs={**tag, "label": payload["label"], "seed": payload["seed"]},
        )
    fixed = {"fixed_params": payload["params"]} if payload.get("params") else {}
    return create_trial(state=TrialState.RUNNING, user_attrs=tag, system_attrs=fixed)


def _suggest(session: Session, slot: int, trial_id: int) -> dict[str, Any]:
    """Return the trial's params; those that are not stored yet (all, unless a worker was killed here) are suggested."""
    study, view = session.study, session.sampler_view
    distributions = {name: dimension.distribution() for name, dimension in study.definition.space.items()}

    def suggest() -> dict[str, Any]:
        stored = view.get_trial(trial_id).params
        if distributions.keys() <= stored.keys():
            return {name: stored[name] for name in distributions}
        optuna_study = optuna.load_study(
            study_name=studies.optuna_name(study, STAGE),
            storage=view,
            sampler=make_sampler(study.definition.sampler, slot),
        )
        optuna_study.get_trials(deepcopy=False)  # a view stores params only of trials that it has seen
        trial = Trial(optuna_study, trial_id)
        return {name: _suggest_one(trial, name, distribution) for name, distribution in distributions.items()}

    return session.storage.retrying(suggest)


def _suggest_one(trial: Trial, name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case optuna.distributions.FloatDistribution():
            return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
        case optuna.distributions.IntDistribution():
            return trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
        case optuna.distributions.CategoricalDistribution():
            return trial.suggest_categorical(name, distribution.choices)
    raise AssertionError(f"a space has no {type(distribution).__name__}")
