"""Trains one seed on the whole train partition and predicts the test partition.

No other module but `open_test` reads the test partition. `open_test` has recorded an opening before.
"""

from collections.abc import Callable

from mhist_tune.arrays import FloatArray
from mhist_tune.data import holdout
from mhist_tune.data.images import ImageSet
from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.errors import DataError
from mhist_tune.storage import kept_weights, thumbnails
from mhist_tune.storage.openings import load_openings
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.payloads import DescriptivePayload, RetrainPayload
from mhist_tune.storage.predictions import record_predictions, save_image_set
from mhist_tune.training import saved_model
from mhist_tune.training.fit import fit
from mhist_tune.training.fit_result import EpochResult, FitResult
from mhist_tune.training.prediction import predict
from mhist_tune.worker.session import Session
from mhist_tune.worker.slot_run import SlotRun


def run(run: SlotRun) -> Outcome:
    """Train one seed on the whole train partition, predict the test partition once, and store its probabilities.

    Raises:
        EndedEarly: the training diverged; the seed has no predictions.
    """
    session, payload = run.session, run.claim.payload
    assert isinstance(payload, RetrainPayload)
    run.trial.ensure(payload.params, seed=payload.seed, trial=payload.trial)
    hp = session.hyperparameters(payload.params)
    result = run.fit(hp, session.train, None, seed=payload.seed, stop_epoch=payload.stop_epoch)
    if payload.seed == kept_weights.SEED:
        path = kept_weights.path_of(session.storage, session.study, payload)
        saved_model.write_weights(path, result.state_dict)
    _predict_test(run, hp, result)
    return Outcome(
        state=EndState.COMPLETE,
        value=result.history[-1].metrics["train_loss"],
        best_epoch=result.best_epoch,
        stopped_epoch=len(result.history),
        sampling=run.sampling,
    )


def run_with_validation(run: SlotRun) -> Outcome:
    """Train one row with early stopping on the validation images, as its search did, and store its test probabilities.

    Raises:
        EndedEarly: the training diverged; the seed has no predictions.
    """
    session, payload = run.session, run.claim.payload
    assert isinstance(payload, DescriptivePayload)
    run.trial.ensure(payload.params, seed=payload.seed, trial=payload.trial)
    hp = session.hyperparameters(payload.params)
    result = run.fit(hp, session.subset("train"), session.subset("val"), seed=payload.seed)
    _predict_test(run, hp, result)
    return Outcome(
        state=EndState.COMPLETE,
        value=result.best_score,
        best_epoch=result.best_epoch,
        stopped_epoch=len(result.history),
        sampling=run.sampling,
    )


def _predict_test(run: SlotRun, hp: Hyperparameters, result: FitResult) -> None:
    payload = run.claim.payload
    assert isinstance(payload, RetrainPayload | DescriptivePayload)
    test = _load_test(run.session, payload.opening)
    probabilities = predict(result.state_dict, hp, test, device=run.session.device)
    record_predictions(run.session.storage, run.claim, "test", probabilities)


def rerun(session: Session, payload: RetrainPayload, on_epoch: Callable[[EpochResult], None]) -> FloatArray:
    """Train a finished slot's seed once more, under the recorded opening; return its SSA probabilities [n] on test.

    Nothing is recorded. If the kept weights are missing, they are written.

    Args:
        session: the session of the study.
        payload: the payload of the slot.
        on_epoch: is called after each epoch.

    Raises:
        Diverged: the training diverged.
        DataError: the test partition is not the one that was opened.
    """
    hp = session.hyperparameters(payload.params)
    result = fit(
        hp,
        session.train,
        None,
        seed=payload.seed,
        device=session.device,
        checkpoint=None,
        on_epoch=on_epoch,
        on_step=lambda _done, _images: session.stop.check(),
        stop_epoch=payload.stop_epoch,
    )
    path = kept_weights.path_of(session.storage, session.study, payload)
    if payload.seed == kept_weights.SEED and not path.exists():
        saved_model.write_weights(path, result.state_dict)
    return predict(result.state_dict, hp, _load_test(session, payload.opening), device=session.device)


def _load_test(session: Session, opening: int | None) -> ImageSet:
    """Load the test partition under a recorded opening, and store its labels, votes and small images."""
    storage, study = session.storage, session.study
    fingerprint = holdout.test_fingerprint(session.data_root)
    if not any(row.id == opening and row.fingerprint == fingerprint for row in load_openings(storage, study)):
        raise DataError(
            f"the test partition under {session.data_root} is not the one that {study.name} was opened with",
            hint="use the same copy of the data set on every worker",
        )
    test = holdout.load_test(
        session.data_root,
        image_size=study.definition.hyperparameters({}).image_size,
        cache_dir=session.cache_dir,
    )
    groups = test.groups or [None] * len(test.names)
    rows = [
        [name, int(label), int(votes), group]
        for name, label, votes, group in zip(test.names, test.labels.tolist(), test.votes.tolist(), groups, strict=True)
    ]
    save_image_set(storage, study, "test", rows)
    thumbnails.write(thumbnails.path_of(storage, study), test.names, test.images.numpy())
    return test
