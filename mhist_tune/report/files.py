"""A report as files: page, Markdown, JSON, CSV and figures. Optuna's dashboard gets a note of it."""

import contextlib
import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mhist_tune.arrays import FloatArray
from mhist_tune.definition import study_file
from mhist_tune.definition.scores import SCORE_NAMES
from mhist_tune.errors import StorageError
from mhist_tune.mhist import THRESHOLD
from mhist_tune.plots import plotly
from mhist_tune.report import build, evidence, figures, html, optuna_note, report_text
from mhist_tune.report.document import Report, to_json
from mhist_tune.report.evidence import Evidence
from mhist_tune.report.parts import Failures
from mhist_tune.search import trials
from mhist_tune.search.trials import Trial
from mhist_tune.storage import thumbnails
from mhist_tune.storage.database import Storage
from mhist_tune.storage.outcome import EndState
from mhist_tune.storage.predictions import ImageRows
from mhist_tune.storage.slot_rows import RetrainSlot
from mhist_tune.writing import output_folder


def render(storage: Storage, study_name: str) -> str:
    """Return the report as one HTML page, without writing a file.

    Raises:
        StudyNotFoundError: no such study.
        UsageError: no retraining has finished.
    """
    results = evidence.load(storage, study_name)
    searched = trials.ended(storage, results.study)
    report = build.of_evidence(storage, results, searched)
    return _page(storage, results, report, figures.draw(figures.sources(storage, report, results, searched)))


def write(
    storage: Storage,
    study_name: str,
    folder: Path,
    facts: Mapping[str, Any] | None = None,
    prevalences: Sequence[float] = (),
) -> Report:
    """Write report.html, .md, .json, metrics.csv, predictions.csv, study.toml and the figures; return the report.

    Where the study's default was retrained too, its predictions are in predictions-default.csv.

    Args:
        storage: where the study is.
        study_name: its name.
        folder: for the files.
        facts: what the author says beside what was recorded, as from `about.read`.
        prevalences: of SSA, for the predictive values; the test partition's if there is none.

    Raises:
        StudyNotFoundError: no such study.
        UsageError: no retraining has finished, or the folder cannot be written.
    """
    results = evidence.load(storage, study_name)
    searched = trials.ended(storage, results.study)
    report = build.of_evidence(storage, results, searched, facts, prevalences)
    report = dataclasses.replace(report, predictions=str(folder / "predictions.csv"))
    sources = figures.sources(storage, report, results, searched)
    drawn = figures.draw(sources)
    with output_folder(folder, "the report", hint="choose another folder: --output DIR"):
        _write_predictions(results.images, results.slots, results.probabilities, folder / "predictions.csv")
        if results.default_probabilities is not None:
            path = folder / "predictions-default.csv"
            _write_predictions(results.images, results.default_slots, results.default_probabilities, path)
        _write_metrics(report, folder / "metrics.csv")
        for figure in drawn:
            figure.write(folder)
        (folder / "study.toml").write_text(study_file.render(results.study.definition) + "\n", encoding="utf-8")
        (folder / "report.md").write_text(report_text.to_markdown(report, drawn), encoding="utf-8")
        (folder / "report.html").write_text(_page(storage, results, report, drawn), encoding="utf-8")
        (folder / "report.json").write_text(to_json(report) + "\n", encoding="utf-8")
    failures = Failures()
    with contextlib.suppress(StorageError):  # a user who may only read still gets the files
        failures.attempt(
            "The note for optuna-dashboard",
            lambda: storage.retrying(lambda: _show_in_optuna(storage, sources, searched, folder)),
        )
    return dataclasses.replace(report, caveats=report.caveats + failures.sentences)


def _show_in_optuna(storage: Storage, sources: figures.Sources, searched: Sequence[Trial], folder: Path) -> None:
    report = sources.report
    figures_by_id = plotly.of_report(report.metrics, report.by_votes, sources.roc)
    by_sampling: dict[str, list[float]] = {}
    for trial in searched:
        value = trial.value_until(len(trial.epochs))
        if trial.state is EndState.COMPLETE and "sampling" in trial.params and value is not None:
            by_sampling.setdefault(str(trial.params["sampling"]), []).append(value)
    if len(by_sampling) > 1:
        figures_by_id["sampling"] = plotly.by_choice("sampling", by_sampling, SCORE_NAMES[report.score])
    optuna_note.write_report(
        storage, sources.evidence.study, report_text.to_note(report), figures_by_id, folder / "predictions.csv"
    )


def _page(storage: Storage, results: Evidence, report: Report, drawn: Sequence[figures.ReportFigure]) -> str:
    wrong = [mistake.image_name for mistake in report.mistakes[: html.N_THUMBNAILS]]
    failures = Failures()
    path = thumbnails.path_of(storage, results.study)
    pictures = failures.attempt("The sheet of misclassified images", lambda: thumbnails.read(path, wrong)) or {}
    return html.render(report, drawn, pictures, failures.sentences)


def _write_predictions(images: ImageRows, slots: Sequence[RetrainSlot], probabilities: FloatArray, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", "image_name", "label", "votes", "probability"])
        for slot, row in zip(slots, probabilities.tolist(), strict=True):
            for name, label, votes, probability in zip(images.names, images.labels, images.votes, row, strict=True):
                writer.writerow([slot.payload.seed, name, int(label), int(votes), probability])


def _write_metrics(report: Report, path: Path) -> None:
    by_threshold = [(f"{THRESHOLD}", report.metrics)]
    if report.held_out:
        by_threshold.append((f"{report.held_out.threshold:.6g}", report.held_out.metrics))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        seeds = [f"seed_{seed}" for seed in report.seeds]
        writer.writerow(["metric", "threshold", "mean", "std", "ci95_low", "ci95_high", *seeds])
        for threshold, metrics in by_threshold:
            for name, metric in metrics.items():
                ends = metric.ci95 or (None, None)
                writer.writerow([name, threshold, metric.mean, metric.std, *ends, *metric.per_seed])
