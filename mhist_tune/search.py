"""What a search slot does: take its row or ask the sampler, train on the split, prune on each epoch's validation F1.

In Optuna's tables a row's values are categorical params with the values of all rows as choices (lists and tables as
JSON), and its label and seed are user attributes, so that any Optuna tool shows the table.
"""

import json
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from mhist_tune import space, studies, suggestions, veto
from mhist_tune.definition import StudyDefinition
from mhist_tune.execution import SlotRun
from mhist_tune.leases import Claim
from mhist_tune.pruning import Decision, decide, rungs, smoothed
from mhist_tune.seeds import derive_seed
from mhist_tune.session import Session
from mhist_tune.stages import Stage
from mhist_tune.train import EpochResult


def run(run: SlotRun) -> Mapping[str, Any]:
    """Train the trial of one search slot and return its outcome: COMPLETE with its best value, or PRUNED."""
    session, claim = run.session, run.claim
    definition = session.study.definition
    trial_id = run.ensure_trial(lambda: _template(definition, claim.slot, claim.token, claim.payload))
    if definition.rows:
        params, seed = claim.payload["params"], claim.payload["seed"]  # the same seeds for all rows: they are compared
    else:
        params = _suggest(session, claim, trial_id)
        seed = derive_seed(definition.sampler["seed"], "train", claim.slot)
    hp = session.hyperparameters(params)

    def judge(result: EpochResult) -> Decision:
        assert result.best_value is not None  # there is a validation split
        if reason := veto.reason(session.storage, session.study, claim.slot):
            return Decision(True, result.epoch, result.best_value, None, 0, reason)
        return decide(
            definition.pruner,
            slot=claim.slot,
            epoch=result.epoch,
            n_epochs=hp.epochs,
            value=result.best_value,
            values_at=session.scores(Stage.SEARCH).at,
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
        book = session.rungs(Stage.SEARCH)
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
    curve = [epoch.metrics["val_f1"] or 0.0 for epoch in result.history]
    return {
        "state": "COMPLETE",
        "value": smoothed(curve, result.best_epoch, definition.smoothing),
        "best_value": result.best_value,
        "standard_error": result.history[result.best_epoch - 1].metrics.get("val_f1_standard_error"),
        "best_epoch": result.best_epoch,
        "stopped_epoch": len(result.history),
        "params": params,
        "sampling": run.sampling,
    }


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


def _suggest(session: Session, claim: Claim, trial_id: int) -> dict[str, Any]:
    """Return the trial's params, which are set where they are not yet: the slot's own, or a suggestion on record."""
    storage, study = session.storage, session.study
    stored = storage.retrying(lambda: storage.optuna.get_trial(trial_id).params)
    if study.definition.space.keys() <= stored.keys():
        return {name: stored[name] for name in study.definition.space}
    params, dimensions = claim.payload.get("params"), study.definition.space
    if params is None:
        found = suggestions.recorded(storage, study, Stage.SEARCH, claim.slot).get(claim.slot)
        detail = (
            found.detail if found else suggestions.record(storage, claim, _suggestion(session, claim.slot, trial_id))
        )
        params = detail["params"]
        dimensions = {name: space.parse(name, table) for name, table in detail["space"].items()}

    def set_missing() -> None:
        # past Optuna's cache, which has KeyError for the params of a trial that another process created
        known = storage.rdb.get_trial(trial_id).params
        for name, dimension in dimensions.items():
            if name not in known:
                distribution = dimension.distribution()
                internal = distribution.to_internal_repr(params[name])
                storage.rdb.set_trial_param(trial_id, name, internal, distribution)

    storage.retrying(set_missing)
    return {name: params[name] for name in dimensions}


def _suggestion(session: Session, slot: int, trial_id: int) -> dict[str, Any]:
    storage = session.storage
    definition = studies.load_study(storage, session.study.name).definition  # a range may be wider by now
    study_id = studies.optuna_study_id(storage, session.study, Stage.SEARCH)
    trials = storage.retrying(lambda: session.sampler_storage.get_all_trials(study_id, deepcopy=False))
    seen = suggestions.lessons(trials, own_id=trial_id)
    return {
        "params": suggestions.suggest(definition.sampler, slot, definition.space, seen),
        "space": {name: dimension.to_dict() for name, dimension in definition.space.items()},
        "visible": suggestions.visible(seen),
    }
