"""Trains one trial of the search on the split and prunes it on its validation score.

The params come from the row of a table, or from the sampler. In Optuna's tables the label and the seed of a row are
user attributes of its trial.
"""

from collections.abc import Mapping
from typing import Any

from mhist_tune.definition import space
from mhist_tune.definition.scores import Score
from mhist_tune.search import suggestions, veto
from mhist_tune.search.pruning import decide, rungs
from mhist_tune.search.values import is_trivial, objective
from mhist_tune.seeds import derive_seed
from mhist_tune.statistics import out_of_fold
from mhist_tune.storage import studies
from mhist_tune.storage.decision import Decision, Verdict
from mhist_tune.storage.leases import Claim
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.payloads import SearchPayload
from mhist_tune.storage.stages import Stage
from mhist_tune.training.fit_result import EpochResult
from mhist_tune.worker.session import Session
from mhist_tune.worker.slot_run import SlotRun


def run(run: SlotRun) -> Outcome:
    """Train the trial of one search slot and return its outcome.

    Raises:
        EndedEarly: the trial was pruned, or it diverged.
        Waits: the trial waits at a rung.
    """
    session, claim, payload = run.session, run.claim, run.claim.payload
    assert isinstance(payload, SearchPayload)
    definition = session.study.definition
    if definition.rows:
        assert payload.params is not None
        params, seed = payload.params, payload.seed or 0  # all rows have the same seeds, so that they can be compared
        run.trial.ensure(params, label=payload.label, seed=seed)
    else:
        params = _suggest(session, claim, payload, run.trial.ensure(None, fixed=payload.params))
        seed = derive_seed(definition.sampler["seed"], "train", claim.slot)
    run.params = params
    hp = session.hyperparameters(params)

    def judge(epoch: int, value: float) -> Decision:
        if reason := veto.reason(session.storage, session.study, claim.slot):
            return Decision(verdict=Verdict.PRUNE, epoch=epoch, value=value, reason=reason)
        return decide(
            definition.pruner,
            slot=claim.slot,
            epoch=epoch,
            n_epochs=hp.epochs,
            value=value,
            values_at=session.values(Stage.SEARCH).at,
        )

    def arrive(result: EpochResult, value: float) -> Decision:
        if_not_promoted = Outcome(
            state=EndState.PRUNED,
            value=value,
            best_score=result.best_score,
            best_epoch=result.best_epoch,
            stopped_epoch=result.epoch,
            params=params,
            is_trivial=is_trivial(result.metrics) or None,
            tie_break=_tie_break(definition.score, result.metrics),
        )
        book = session.rungs(Stage.SEARCH)
        return book.arrive(claim, epoch=result.epoch, value=value, if_not_promoted=if_not_promoted)

    result = run.fit(
        hp,
        session.subset("train"),
        session.subset("val"),
        seed=seed,
        judge=judge,
        arrive=arrive,
        rungs=rungs(definition.pruner, hp.epochs) if definition.pruner["name"] == "promotion" else (),
    )
    best = result.history[result.best_epoch - 1]
    curve = [epoch.metrics[f"val_{definition.score}"] or 0.0 for epoch in result.history]
    return Outcome(
        state=EndState.COMPLETE,
        value=objective(curve, result.best_epoch, definition.smoothing),
        best_score=result.best_score,
        standard_error=best.metrics.get(f"val_{definition.score}_standard_error"),
        best_epoch=result.best_epoch,
        stopped_epoch=len(result.history),
        params=params,
        sampling=run.sampling,
        is_trivial=is_trivial(best.metrics) or None,
        tie_break=_tie_break(definition.score, best.metrics),
    )


def _tie_break(score: Score, metrics: Mapping[str, float | None]) -> float | None:
    """Return the second score of an epoch in a study by AUROC; None in others, which keep the order of their slots."""
    return metrics.get(f"val_{out_of_fold.second_score(score)}") if score == "auroc" else None


def _suggest(session: Session, claim: Claim, payload: SearchPayload, trial_id: int) -> dict[str, Any]:
    """Return the params of the trial, and set those that it lacks: the slot's own, or the recorded suggestion."""
    storage, study = session.storage, session.study
    stored = storage.retrying(lambda: storage.optuna.get_trial(trial_id).params)
    if study.definition.space.keys() <= stored.keys():
        return {name: stored[name] for name in study.definition.space}
    params, dimensions = payload.params, study.definition.space
    if params is None:
        event = suggestions.recorded(storage, study, Stage.SEARCH, claim.slot).get(claim.slot)
        if event is None:
            detail = suggestions.record(storage, claim, _suggestion(session, claim.slot, trial_id))
        else:
            detail = event.detail
        params = detail["params"]
        dimensions = {name: space.parse(name, table) for name, table in detail["space"].items()}

    def set_missing() -> None:
        # not through Optuna's cache, which raises KeyError for the params of a trial that another process created
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
    definition = studies.load_study(storage, session.study.name).definition  # a range may have been widened since
    study_id = studies.optuna_study_id(storage, session.study, Stage.SEARCH)
    trials = storage.retrying(lambda: session.sampler_storage.get_all_trials(study_id, deepcopy=False))
    seen = suggestions.observed_trials(trials, own_id=trial_id)
    return {
        "params": suggestions.suggest(definition.sampler, slot, definition.space, seen),
        "space": {name: dimension.to_dict() for name, dimension in definition.space.items()},
        "visible": suggestions.visible(seen),
    }
