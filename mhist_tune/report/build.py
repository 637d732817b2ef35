"""The report of a study from its records. Needs neither the data set nor torch.

Every number is recomputed from the test probabilities that the retraining stored.
"""

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mhist_tune import __version__
from mhist_tune.report import (
    about,
    ceiling,
    confirmation,
    cost,
    data_set,
    evidence,
    gain,
    inherited,
    more_trials,
    one_model,
    operating,
    provenance,
    repetitions,
    sampling,
    sentences,
    threshold,
    transferred,
)
from mhist_tune.report.document import Cost, Opening, Report, ReportedTrial, Search, SearchedTrial
from mhist_tune.report.evidence import Evidence
from mhist_tune.report.parts import Failures, attempt
from mhist_tune.report.references import published
from mhist_tune.search import audit, costs, finalists, trials
from mhist_tune.search.audit import Audit
from mhist_tune.search.trials import Importance, Trial
from mhist_tune.statistics import by_votes, summaries
from mhist_tune.statistics.calibration_on_test import calibration_on_test
from mhist_tune.storage import event_log, ledger
from mhist_tune.storage.database import Storage
from mhist_tune.storage.decision import Decision, Verdict
from mhist_tune.storage.epochs import epochs_of, trained_since
from mhist_tune.storage.openings import OpeningRow
from mhist_tune.storage.outcome import EndState
from mhist_tune.storage.predictions import image_rows
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study
from mhist_tune.words import utc

_PACKAGES = ("torch", "timm", "optuna", "numpy", "scipy", "scikit-learn")


def build(
    storage: Storage,
    study_name: str,
    facts: Mapping[str, Any] | None = None,
    prevalences: Sequence[float] = (),
) -> Report:
    """Return the report of the newest opening of the test partition that has a finished seed.

    Args:
        storage: where the study is.
        study_name: its name.
        facts: what the author says beside what was recorded, as from `about.read`.
        prevalences: of SSA, for the predictive values; the test partition's if there is none.

    Raises:
        StudyNotFoundError: no such study.
        UsageError: no retraining has finished.
    """
    results = evidence.load(storage, study_name)
    return of_evidence(storage, results, trials.ended(storage, results.study), facts, prevalences)


def of_evidence(
    storage: Storage,
    results: Evidence,
    searched: Sequence[Trial],
    facts: Mapping[str, Any] | None = None,
    prevalences: Sequence[float] = (),
) -> Report:
    """Return the report of an opening's results.

    Args:
        storage: where the study is.
        results: the stored probabilities of the opening.
        searched: the ended trials of the study's search.
        facts: as in `build`.
        prevalences: likewise.
    """
    study, images, payload = results.study, results.images, results.payload
    of_author = about.document(study, facts or {})
    confirmed = finalists.load(storage, study)
    planned = costs.planned(study.definition, len(searched))
    failures = Failures()
    n_ssa = int(images.labels.sum())
    is_mhist = data_set.is_mhist(images)
    transfer = transferred.of_study(study)
    weight_files = {Path(name).name: sha256 for name, sha256 in study.dataset.get("weight_files", {}).items()}
    metrics = summaries.summary(images.labels, results.probabilities, groups=images.groups)
    alike = sampling.document(images.labels, results.probabilities, images.groups, metrics)
    predicted = threshold.predicted(storage, results, confirmed)
    held_out = failures.attempt(
        "The threshold and the recalibration", lambda: threshold.document(storage, results, confirmed)
    )
    report = Report(
        study=study.name,
        model=study.definition.hyperparameters(payload.params).model,
        score=study.definition.score,
        at=study.definition.at,
        definition_sha256=study.definition.sha256,
        weight_files=weight_files,
        dataset_fingerprint=study.dataset["fingerprint"],
        trial=ReportedTrial(
            number=payload.trial,
            params=payload.params,
            best_epoch=payload.best_epoch,
            stopped_epoch=payload.stopped_epoch,
            configured_epochs=payload.configured_epochs,
        ),
        stop_epoch=payload.stop_epoch,
        opening=results.opening.id,
        complete=len(results.slots) == results.n_planned,
        n_seeds=len(results.slots),
        n_seeds_planned=results.n_planned,
        seeds=results.seeds,
        n_train=len(image_rows(storage, study, "train").names),
        n_val=len(image_rows(storage, study, "val").names),
        n_images=len(images.names),
        share_ssa=n_ssa / len(images.names),
        is_mhist=is_mhist,
        inherited_choices=inherited.of_study(study, is_mhist=is_mhist),
        transfer=transfer,
        data=data_set.document(storage, results, of_author),
        about=of_author,
        number_format=data_set.number_format(results),
        resampled_by="image" if images.groups is None else "group",
        sampling=alike,
        metrics=metrics,
        confirm=failures.attempt("The table of the finalists", lambda: confirmation.document(confirmed))
        if confirmed and confirmed.finalists
        else None,
        calibration=calibration_on_test(images.labels, results.probabilities, groups=images.groups)
        if 0 < n_ssa < len(images.names)
        else None,
        held_out=held_out,
        gain=failures.attempt("The comparison with the study's default", lambda: gain.document(results)),
        operating=failures.attempt(
            "The table of a model in use",
            lambda: operating.document(results, metrics, alike, held_out, predicted, prevalences),
        ),
        one_model=failures.attempt("The model of all seeds", lambda: one_model.document(results)),
        ceiling=failures.attempt("The ceiling from the votes", lambda: ceiling.document(results)),
        by_votes=by_votes.error_rates(images.votes, images.labels, results.probabilities, groups=images.groups),
        mistakes=by_votes.mistakes(images.names, images.votes, images.labels, results.probabilities),
        references=list(published()) if is_mhist else [],
        search=_search(storage, results, searched),
        search_cost=_cost(storage, results, Stage.SEARCH),
        confirm_cost=_cost(storage, results, Stage.CONFIRM),
        epochs_at_most=sum(planned[stage].at_most for stage in (Stage.SEARCH, Stage.CONFIRM)),
        settings=study.settings.get("probed"),
        training_speed=_cost(storage, results, Stage.RETRAIN, [slot.slot for slot in results.slots]),
        cost=cost.document(storage, study, of_author),
        provenance=provenance.document(storage, study),
        test_openings=[_opening(row) for row in results.openings],
        other_openings=[_opening(row) for row in results.of_images if row.study != study.uuid],
        extended_after_opening=len(_searched_since(storage, study, _first_look(results).opened_at)),
        versions={
            "mhist-tune": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in _PACKAGES},
        },
        commands=[
            "mhist-tune create-study study.toml --data DIR" + (" --weights FILE" if weight_files else ""),
            f"mhist-tune worker {study.name} --data DIR",
            f"mhist-tune retrain {study.name} --trial {payload.trial} --n-seeds {results.n_planned} --data DIR",
            f"mhist-tune report {study.name}",
            f"mhist-tune verify {study.name} --data DIR",
        ],
    )
    return dataclasses.replace(
        report,
        result=sentences.result(report),
        caveats=sentences.caveats(report) + failures.sentences,
        methods=sentences.paragraph(report, study),
    )


def _search(storage: Storage, results: Evidence, searched: Sequence[Trial]) -> Search:
    space = results.study.definition.space
    outcomes = [slot.outcome for slot in ledger.slots(storage, results.study, Stage.SEARCH)]
    states = [outcome.state for outcome in outcomes if outcome]
    return Search(
        n_trials={state: states.count(state) for state in EndState},
        n_trivial=sum(bool(outcome.is_trivial) for outcome in outcomes if outcome),
        history=[
            SearchedTrial(
                trial.number,
                trial.state,
                trial.value_until(len(trial.epochs)),
                _decision(trial.epochs[-1].decision),
            )
            for trial in searched
        ],
        importance=attempt(
            lambda: trials.importance(searched, space), lambda reason: Importance(None, len(searched), {}, reason)
        ),
        audit=attempt(
            lambda: audit.audit(searched, results.study.definition.pruner), lambda reason: Audit(0, 0, missing=reason)
        ),
        edges=trials.edges(results.payload.params, space),
        more_trials=more_trials.of_slots(storage, results.study, ledger.all_slots(storage, results.study)),
        repetitions=repetitions.load(storage, results.study),
    )


def _decision(decision: Decision | None) -> dict[str, Any] | None:
    """Return a decision under the keys that programs know."""
    if decision is None:
        return None
    return {
        "prune": decision.verdict is Verdict.PRUNE,
        "epoch": decision.epoch,
        "value": decision.value,
        "threshold": decision.threshold,
        "n_rivals": decision.n_competitors,
        "reason": decision.reason,
        "pause": decision.verdict is Verdict.WAIT,
        "audited": decision.audited,
    }


def _first_look(results: Evidence) -> OpeningRow:
    return next(row for row in results.openings if row.is_look)


def _searched_since(storage: Storage, study: Study, opened_at: float) -> set[int]:
    """Return the search slots that were added or trained after `opened_at`, in seconds since 1970."""
    added = event_log.events(storage, study, kind="slots_added", stage=Stage.SEARCH)
    later = {slot for event in added if event.at > opened_at for slot in event.detail["slots"]}
    return later | trained_since(storage, study, Stage.SEARCH, opened_at)


def _opening(row: OpeningRow) -> Opening:
    return Opening(
        id=row.id,
        opened_at=utc(row.opened_at),
        by=row.by,
        code_version=row.code_version,
        reason=row.reason,
        trial=row.payload.get("trial"),
        default=row.payload.get("default"),
        descriptive=row.payload.get("trials", []),
        seeds=row.payload["seeds"],
        test_fingerprint=row.fingerprint,
        study=row.study_name,
        study_uuid=row.study,
        definition_sha256=row.definition_sha256,
        failed=row.failed,
        hash=row.hash,
    )


def _cost(storage: Storage, results: Evidence, stage: Stage, slots: Sequence[int] | None = None) -> Cost:
    """Return the time, speed and memory of the given slots of a stage, or of all its slots."""
    if slots is None:
        slots = [slot.slot for slot in ledger.slots(storage, results.study, stage)]
    epochs = [row.metrics for slot in slots for row in epochs_of(storage, results.study, stage, slot)]
    # A device without a memory counter measures None.
    measured = [{name: value for name, value in metrics.items() if value is not None} for metrics in epochs]
    elapsed_s = sum(metrics.get("elapsed_s", 0.0) for metrics in measured)
    n_images = sum(metrics.get("images_per_s", 0.0) * metrics.get("elapsed_s", 0.0) for metrics in measured)
    peaks = [metrics["peak_memory_bytes"] for metrics in measured if "peak_memory_bytes" in metrics]
    return Cost(
        images_per_s=n_images / elapsed_s if elapsed_s else None,
        n_epochs=len(epochs),
        elapsed_s=elapsed_s,
        peak_memory_bytes=int(max(peaks)) if peaks else None,
    )
