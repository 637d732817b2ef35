"""Trains the finalists of a search again, out of fold, on the same folds.

A finalist trains on all images outside a fold for a fixed number of epochs, and predicts the fold. In a study with
`at = "last"` that number is the length of its schedule. In a study with `at = "best"` the images outside each fold are
split again before (an inner split): the finalist trains on one part and stops early on the other, which gives its
number of epochs. No image that scores a training stops it or chooses its epoch.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mhist_tune.search import finalists, race
from mhist_tune.seeds import derive_seed
from mhist_tune.statistics import out_of_fold
from mhist_tune.storage import ledger
from mhist_tune.storage.database import Storage
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.payloads import INNER, OUTER, ConfirmPayload, fold_set, inner_set
from mhist_tune.storage.predictions import record_predictions
from mhist_tune.storage.stages import OPEN, SlotState, Stage
from mhist_tune.storage.studies import Study
from mhist_tune.training.prediction import predict
from mhist_tune.worker.slot_run import EndedEarly, SlotRun


def add_slots(storage: Storage, study: Study) -> None:
    """Add the slots that can be trained now: after the search, and after any inner splits. Each is added once.

    After an extended search, finalists that are new get slots too. In a race, all finalists are trained on one fold
    after the other. Looks of earlier finalists that are due come first.
    """
    if study.definition.confirm is None or _is_open(ledger.counts(storage, study, Stage.SEARCH)):
        return
    race.advance(storage, study)
    slots = ledger.slots(storage, study, Stage.CONFIRM)
    added: list[ConfirmPayload] = []
    for candidate in finalists.candidates(study, ledger.slots(storage, study, Stage.SEARCH)):
        trained = [slot for slot in slots if slot.payload.trial == candidate.trial]
        n_epochs = finalists.stop_epoch(study, candidate, trained)
        if not trained and study.definition.at == "best":
            fit, stop_epoch = INNER, None
        elif n_epochs is not None and all(slot.payload.fit == INNER for slot in trained):
            fit, stop_epoch = OUTER, n_epochs
        else:
            continue
        payloads = [
            ConfirmPayload(
                trial=candidate.trial,
                params=candidate.params,
                search_value=candidate.search_value,
                fit=fit,
                stop_epoch=stop_epoch,
                fold=fold,
            )
            for fold in range(study.definition.confirm["n_folds"])
        ]
        if study.definition.races and fit == OUTER:
            added += payloads
        else:
            ledger.add_slots(storage, study, Stage.CONFIRM, payloads, key=f"{fit} {candidate.trial}")
    if added:
        # All at once, so that no look is taken without some of them. The key lets only the first process do it.
        n_before = sum(slot.payload.fit == OUTER for slot in slots)
        in_turn = sorted(added, key=lambda payload: payload.fold)
        ledger.add_slots(storage, study, Stage.CONFIRM, in_turn, key=f"{OUTER} after {n_before}")


def run(run: SlotRun) -> Outcome:
    """Train one finalist for one fold: on an inner split, or for its fixed number of epochs and predict the fold.

    Raises:
        EndedEarly: the training diverged, or the finalist was dropped from the race.
    """
    session, payload = run.session, run.claim.payload
    assert isinstance(payload, ConfirmPayload)
    definition, fold = session.study.definition, payload.fold
    run.trial.ensure(payload.params, trial=payload.trial, fit=payload.fit, fold=fold)
    hp = session.hyperparameters(payload.params)
    seed = derive_seed(definition.sampler["seed"], "confirm", fold)
    in_fold = session.positions(fold_set(fold))
    outside = np.setdiff1d(np.arange(len(session.train)), in_fold)
    if payload.fit == INNER:
        inner = session.positions(inner_set(fold))
        train, val = session.train.take(np.setdiff1d(outside, inner)), session.train.take(inner)
        result = run.fit(hp, train, val, seed=seed, image_set=inner_set(fold))
        value = result.best_score
    else:

        def check_race(n_epochs: int) -> None:
            if (outcome := race.end_of(session.storage, session.study, payload.trial)) is not None:
                raise EndedEarly(replace(outcome, stopped_epoch=n_epochs, sampling=run.sampling))

        check_race(0)
        train = session.train.take(outside)
        result = run.fit(hp, train, None, seed=seed, stop_epoch=payload.stop_epoch, after_epoch=check_race)
        scored = session.train.take(in_fold)
        probabilities = predict(result.state_dict, hp, scored, device=session.device)
        record_predictions(session.storage, run.claim, fold_set(fold), probabilities)
        value = out_of_fold.score(definition.score, scored.labels.numpy(), probabilities)
    return Outcome(
        state=EndState.COMPLETE,
        value=value,
        best_epoch=result.best_epoch,
        stopped_epoch=len(result.history),
        sampling=run.sampling,
    )


def _is_open(counts: Mapping[SlotState, int]) -> bool:
    return any(counts.get(state) for state in OPEN)
