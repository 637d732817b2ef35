"""The report of a study: every number recomputed from the test probabilities that its retraining stored.

It needs the storage alone, no data set and no torch.
"""

import contextlib
import csv
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mhist_tune import (
    __version__,
    audit,
    by_votes,
    definition,
    evidence,
    figures,
    finalists,
    gain,
    html,
    journal,
    ledger,
    optuna_note,
    plotly_figures,
    report_text,
    sentences,
    statistics,
    threshold,
    thumbnails,
    trials,
)
from mhist_tune.arrays import FloatArray
from mhist_tune.epochs import epochs_of, trained_since
from mhist_tune.errors import StorageError
from mhist_tune.evidence import Evidence
from mhist_tune.ledger import SlotRow
from mhist_tune.mhist import N_TEST_IMAGES, N_TEST_SSA, THRESHOLD
from mhist_tune.openings import OpeningRow
from mhist_tune.predictions import ImageRows, image_rows
from mhist_tune.references import REFERENCES
from mhist_tune.stages import Stage
from mhist_tune.storage import Storage
from mhist_tune.studies import Study
from mhist_tune.trials import Trial
from mhist_tune.writing import output_folder

_TRIAL_KEYS = ("params", "best_epoch", "stopped_epoch", "configured_epochs")
_PACKAGES = ("torch", "timm", "optuna", "numpy", "scipy", "scikit-learn")


def build(storage: Storage, study_name: str) -> dict[str, Any]:
    """Return the report of the newest opening of the test partition that has a finished seed, as a JSON document.

    Its keys:
        study, model, definition_sha256, weight_files (sha256 by name), dataset_fingerprint (of the train partition;
            each opening has that of the test partition), versions (of the machine that makes the report), commands:
            what it is of.
        result, caveats, methods: sentences.
        trial (number, params, best_epoch, stopped_epoch, configured_epochs), stop_epoch (of the retraining).
        opening (its id in `test_openings`), complete (whether every seed of it has predictions), n_seeds (reported)
            and n_seeds_planned, seeds, n_train, n_val, n_images and share_ssa (of the test partition), resampled_by
            (image or group), is_mhist (whether the references apply).
        metrics: at 0.5, see `statistics.summary`.
        confirm, held_out, gain: see `finalists.document`, `threshold.document` and `gain.document`; null where there is
            nothing of it.
        by_votes, mistakes: see `by_votes`; a mistake has its image's name.
        references: published results.
        search: `n_trials` by state, `history` (with the last decision on each trial), `importance`, `audit` (of the
            pruner), `edges` (alarms).
        settings: what every training of the study shares, as `probe.measure` returned it.
        training_speed, search_cost, confirm_cost: `images_per_s` while training, `n_epochs`, `elapsed_s`, the highest
            `peak_memory_bytes`.
        test_openings (every one of the study; `default`: the trial beside it; `descriptive`: the trials of a table
            whose early-stopped models it was for, and `trial` null), extended_after_opening (trials that were
            added to the search, or trained, after the first).
        predictions: the CSV's path once written.

    Raises:
        StudyNotFoundError: no such study.
        UsageError: no retraining has finished.
    """
    return _build(storage, evidence.load(storage, study_name))[0]


def render(storage: Storage, study_name: str) -> str:
    """Return the report as one HTML page, without writing a file.

    Raises:
        StudyNotFoundError: no such study.
        UsageError: no retraining has finished.
    """
    found = evidence.load(storage, study_name)
    document, searched = _build(storage, found)
    return _page(storage, found, document, figures.draw(storage, document, found, searched))


def write(storage: Storage, study_name: str, folder: Path) -> dict[str, Any]:
    """Write report.html, .md, .json, metrics.csv, predictions.csv, study.toml and the figures; return the document.

    The predictions of the study's default, where it was retrained too, are in predictions-default.csv.

    Raises:
        StudyNotFoundError: no such study.
        UsageError: no retraining has finished, or the folder cannot be written.
    """
    found = evidence.load(storage, study_name)
    document, searched = _build(storage, found)
    drawn = figures.draw(storage, document, found, searched)
    with output_folder(folder, "the report", hint="choose another folder: --output DIR"):
        document["predictions"] = str(folder / "predictions.csv")
        _write_predictions(found.images, found.slots, found.probabilities, folder / "predictions.csv")
        if found.default_probabilities is not None:
            path = folder / "predictions-default.csv"
            _write_predictions(found.images, found.default_slots, found.default_probabilities, path)
        _write_metrics(document, folder / "metrics.csv")
        for figure in drawn:
            figure.write(folder)
        (folder / "study.toml").write_text(definition.render(found.study.definition) + "\n", encoding="utf-8")
        (folder / "report.md").write_text(report_text.to_markdown(document, drawn), encoding="utf-8")
        (folder / "report.html").write_text(_page(storage, found, document, drawn), encoding="utf-8")
        text = json.dumps(document, indent=2, allow_nan=False)
        (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    with contextlib.suppress(StorageError):  # who may only read still gets the files
        storage.retrying(lambda: _show_in_optuna(storage, found, document, searched, folder))
    return document


def _show_in_optuna(
    storage: Storage, found: Evidence, document: Mapping[str, Any], searched: Sequence[Trial], folder: Path
) -> None:
    shown = plotly_figures.of_report(document, found.images.labels, found.probabilities)
    by_sampling: dict[str, list[float]] = {}
    for trial in searched:
        value = trial.best_until(len(trial.epochs))
        if trial.state == "COMPLETE" and "sampling" in trial.params and value is not None:
            by_sampling.setdefault(str(trial.params["sampling"]), []).append(value)
    if len(by_sampling) > 1:
        shown["sampling"] = plotly_figures.by_choice("sampling", by_sampling)
    optuna_note.write_report(storage, found.study, report_text.to_note(document), shown, folder / "predictions.csv")


def _page(storage: Storage, found: Evidence, document: Mapping[str, Any], drawn: Sequence[figures.ReportFigure]) -> str:
    wrong = [one["image_name"] for one in document["mistakes"][: html.N_THUMBNAILS]]
    return html.render(document, drawn, thumbnails.read(thumbnails.path_of(storage, found.study), wrong))


def _build(storage: Storage, found: Evidence) -> tuple[dict[str, Any], list[Trial]]:
    study, images, payload = found.study, found.images, found.payload
    searched = trials.ended(storage, study)
    confirmation = finalists.load(storage, study)
    n_ssa = int(images.labels.sum())
    weight_files = {Path(name).name: sha256 for name, sha256 in study.dataset.get("weight_files", {}).items()}
    document: dict[str, Any] = {
        "study": study.name,
        "model": study.definition.hyperparameters(payload["params"]).model,
        "definition_sha256": study.definition.sha256,
        "weight_files": weight_files,
        "dataset_fingerprint": study.dataset["fingerprint"],
        "trial": {"number": payload["trial"], **{key: payload[key] for key in _TRIAL_KEYS}},
        "stop_epoch": payload["stop_epoch"],
        "opening": found.opening.id,
        "complete": len(found.slots) == found.n_planned,
        "n_seeds": len(found.slots),
        "n_seeds_planned": found.n_planned,
        "seeds": found.seeds,
        "n_train": len(image_rows(storage, study, "train").names),
        "n_val": len(image_rows(storage, study, "val").names),
        "n_images": len(images.names),
        "share_ssa": n_ssa / len(images.names),
        "is_mhist": (len(images.names), n_ssa) == (N_TEST_IMAGES, N_TEST_SSA),
        "resampled_by": "image" if images.groups is None else "group",
        "metrics": statistics.summary(images.labels, found.probabilities, groups=images.groups),
        "confirm": finalists.document(confirmation) if confirmation and confirmation.finalists else None,
        "held_out": threshold.document(storage, found, confirmation),
        "gain": gain.document(found),
        "by_votes": by_votes.error_rates(images.votes, images.labels, found.probabilities, groups=images.groups),
        "mistakes": [
            {"image_name": images.names[one["index"]], **one}
            for one in by_votes.mistakes(images.votes, images.labels, found.probabilities)
        ],
        "references": list(REFERENCES),
        "search": _search(storage, found, searched),
        **{
            f"{stage}_cost": _cost(storage, found, stage, [slot.slot for slot in ledger.slots(storage, study, stage)])
            for stage in (Stage.SEARCH, Stage.CONFIRM)
        },
        "settings": study.settings.get("probed"),
        "training_speed": _cost(storage, found, Stage.RETRAIN, [slot.slot for slot in found.slots]),
        "test_openings": [_opening(row) for row in found.openings],
        "extended_after_opening": len(_searched_since(storage, study, found.openings[0].opened_at)),
        "versions": {
            "mhist-tune": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in _PACKAGES},
        },
        "commands": [
            "mhist-tune create-study study.toml --data DIR" + (" --weights FILE" if weight_files else ""),
            f"mhist-tune worker {study.name} --data DIR",
            f"mhist-tune retrain {study.name} --trial {payload['trial']} --n-seeds {found.n_planned} --data DIR",
            f"mhist-tune report {study.name}",
            f"mhist-tune verify {study.name} --data DIR",
        ],
        "predictions": None,
    }
    document["result"] = sentences.result(document)
    document["caveats"] = sentences.caveats(document)
    document["methods"] = sentences.paragraph(document, study)
    return document, searched


def _search(storage: Storage, found: Evidence, searched: Sequence[Trial]) -> dict[str, Any]:
    space = found.study.definition.space
    states = [(slot.outcome or {}).get("state") for slot in ledger.slots(storage, found.study, Stage.SEARCH)]
    return {
        "n_trials": {state: states.count(state) for state in ("COMPLETE", "PRUNED", "FAIL")},
        "history": [
            {
                "number": one.number,
                "state": one.state,
                "value": one.best_until(len(one.epochs)),
                "decision": one.epochs[-1].decision,
            }
            for one in searched
        ],
        "importance": asdict(trials.importance(searched, space)),
        "audit": asdict(audit.audit(searched, found.study.definition.pruner)),
        "edges": trials.edges(found.payload["params"], space),
    }


def _searched_since(storage: Storage, study: Study, opened_at: float) -> set[int]:
    """Return the search slots that were added or trained after a moment, in epoch seconds."""
    added = journal.events(storage, study, kind="slots_added", stage=Stage.SEARCH)
    later = {slot for event in added if event.at > opened_at for slot in event.detail["slots"]}
    return later | trained_since(storage, study, Stage.SEARCH, opened_at)


def _opening(row: OpeningRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "opened_at": datetime.fromtimestamp(row.opened_at, UTC).isoformat(timespec="seconds"),
        "by": row.by,
        "code_version": row.code_version,
        "reason": row.reason,
        "trial": row.payload.get("trial"),
        "default": row.payload.get("default"),
        "descriptive": row.payload.get("trials", []),
        "seeds": row.payload["seeds"],
        "test_fingerprint": row.fingerprint,
    }


def _cost(storage: Storage, found: Evidence, stage: Stage, slots: Sequence[int]) -> dict[str, Any]:
    epochs = [row.metrics for slot in slots for row in epochs_of(storage, found.study, stage, slot)]
    # A device without a memory counter measures None.
    measured = [{name: value for name, value in metrics.items() if value is not None} for metrics in epochs]
    elapsed_s = sum(metrics.get("elapsed_s", 0.0) for metrics in measured)
    n_images = sum(metrics.get("images_per_s", 0.0) * metrics.get("elapsed_s", 0.0) for metrics in measured)
    peaks = [metrics["peak_memory_bytes"] for metrics in measured if "peak_memory_bytes" in metrics]
    return {
        "images_per_s": n_images / elapsed_s if elapsed_s else None,
        "n_epochs": len(epochs),
        "elapsed_s": elapsed_s,
        "peak_memory_bytes": int(max(peaks)) if peaks else None,
    }


def _write_predictions(images: ImageRows, slots: Sequence[SlotRow], table: FloatArray, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", "image_name", "label", "votes", "probability"])
        for slot, row in zip(slots, table.tolist(), strict=True):
            for name, label, votes, probability in zip(images.names, images.labels, images.votes, row, strict=True):
                writer.writerow([slot.payload["seed"], name, int(label), int(votes), probability])


def _write_metrics(document: Mapping[str, Any], path: Path) -> None:
    tables = [(f"{THRESHOLD}", document["metrics"])]
    if fixed := document["held_out"]:
        tables.append((f"{fixed['threshold']:.6g}", fixed["metrics"]))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        seeds = [f"seed_{seed}" for seed in document["seeds"]]
        writer.writerow(["metric", "threshold", "mean", "std", "ci95_low", "ci95_high", *seeds])
        for threshold, metrics in tables:
            for name, one in metrics.items():
                ends = one["ci95"] or [None, None]
                writer.writerow([name, threshold, one["mean"], one["std"], *ends, *one["per_seed"]])
