"""The report of a study: every number recomputed from the test probabilities that its retraining stored.

It needs the storage alone, no data set and no torch.
"""

import csv
import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mhist_tune import __version__, difficulty, evidence, plots, records, statistics
from mhist_tune.errors import UsageError
from mhist_tune.evidence import Evidence
from mhist_tune.storage import Storage
from mhist_tune.studies import Study

TABLE_COLUMNS = (
    ("Loss", "log_loss"),
    ("Precision", "precision"),
    ("Recall", "recall"),
    ("Specificity", "specificity"),
    ("F1", "f1"),
    ("Accuracy", "accuracy"),
    ("AUROC", "auroc"),
)
_TRIAL_KEYS = ("params", "best_epoch", "stopped_epoch", "configured_epochs")
_PACKAGES = ("torch", "timm", "optuna", "numpy", "scipy", "scikit-learn")


def build(storage: Storage, study_name: str) -> dict[str, Any]:
    """Return the report of the newest opening of the test partition that has a finished seed, as a JSON document.

    Its keys: `study`, `trial` (number, params, best_epoch, stopped_epoch, configured_epochs), `opening` (its id
    in `test_openings`), `complete` (whether every seed of that opening has predictions), `n_seeds` (reported)
    and `n_seeds_planned`, `seeds`, `metrics` (see `statistics.summary`), `resampled_by`
    (image or group), `by_votes`, `test_openings` (every one of the study), `training_speed` (of the reported
    seeds together: `images_per_s` while training, `n_epochs`, `elapsed_s`, and the highest
    `peak_memory_bytes`), `dataset_fingerprint` (of the train partition; each opening has that of the test
    partition), `versions` (of the machine that makes the report), `predictions` (the CSV's path once written).

    Raises:
        StudyNotFoundError: no such study.
        UsageError: no retraining has finished.
    """
    return _build(storage, study_name)[0]


def write(storage: Storage, study_name: str, folder: Path) -> dict[str, Any]:
    """Write report.json, report.md, predictions.csv and the figures into `folder`, and return the document.

    Raises:
        StudyNotFoundError: no such study.
        UsageError: no retraining has finished, or the folder cannot be written.
    """
    document, found = _build(storage, study_name)
    labels = found.images.labels
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_predictions(found, folder / "predictions.csv")
        document["predictions"] = str(folder / "predictions.csv")
        figures = ["votes.png"]
        plots.error_rates(document["by_votes"], folder / "votes.png")
        if 0 < labels.sum() < labels.size:  # there is no ROC of one class
            plots.roc(labels, found.probabilities, folder / "roc.png")
            figures.insert(0, "roc.png")
        (folder / "report.md").write_text(_markdown(document, figures), encoding="utf-8")
        text = json.dumps(document, indent=2, allow_nan=False)
        (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write the report into {folder}: {error.strerror}", hint="choose another folder: --output DIR"
        ) from error
    return document


def to_table(report: Mapping[str, Any]) -> str:
    """Return a report as text: one line per seed, mean and standard deviation, and every opening of the test set."""
    rows = _rows(report)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([_headline(report), "", *lines, "", *_remarks(report)])


def _build(storage: Storage, study_name: str) -> tuple[dict[str, Any], Evidence]:
    found = evidence.load(storage, study_name)
    study, images, payload = found.study, found.images, found.payload
    document = {
        "study": study.name,
        "trial": {"number": payload["trial"], **{key: payload[key] for key in _TRIAL_KEYS}},
        "opening": found.opening.id,
        "complete": len(found.slots) == found.n_planned,
        "n_seeds": len(found.slots),
        "n_seeds_planned": found.n_planned,
        "seeds": found.seeds,
        "metrics": statistics.summary(images.labels, found.probabilities, groups=images.groups),
        "resampled_by": "image" if images.groups is None else "group",
        "by_votes": difficulty.rates_by_votes(images.votes, images.labels, found.probabilities, groups=images.groups),
        "test_openings": [_opening(row) for row in found.openings],
        "training_speed": _training_speed(storage, study, [slot.slot for slot in found.slots]),
        "dataset_fingerprint": study.dataset["fingerprint"],
        "versions": {
            "mhist-tune": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in _PACKAGES},
        },
        "predictions": None,
    }
    return document, found


def _opening(row: records.OpeningRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "opened_at": datetime.fromtimestamp(row.opened_at, UTC).isoformat(timespec="seconds"),
        "by": row.by,
        "code_version": row.code_version,
        "reason": row.reason,
        "trial": row.payload["trial"],
        "seeds": row.payload["seeds"],
        "test_fingerprint": row.fingerprint,
    }


def _training_speed(storage: Storage, study: Study, slots: Sequence[int]) -> dict[str, Any]:
    epochs = [row.metrics for slot in slots for row in records.epochs(storage, study, evidence.STAGE, slot)]
    # A device without a memory counter measures None.
    measured = [{name: value for name, value in metrics.items() if value is not None} for metrics in epochs]
    elapsed_s = sum(metrics["elapsed_s"] for metrics in measured)
    n_images = sum(metrics["images_per_s"] * metrics["elapsed_s"] for metrics in measured)
    peaks = [metrics["peak_memory_bytes"] for metrics in measured if "peak_memory_bytes" in metrics]
    return {
        "images_per_s": n_images / elapsed_s if elapsed_s else None,
        "n_epochs": len(epochs),
        "elapsed_s": elapsed_s,
        "peak_memory_bytes": int(max(peaks)) if peaks else None,
    }


def _write_predictions(found: Evidence, path: Path) -> None:
    images = found.images
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", "image_name", "label", "votes", "probability"])
        for seed, row in zip(found.seeds, found.probabilities.tolist(), strict=True):
            for name, label, votes, probability in zip(images.names, images.labels, images.votes, row, strict=True):
                writer.writerow([seed, name, int(label), int(votes), probability])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _rows(report: Mapping[str, Any]) -> list[list[str]]:
    chosen = [report["metrics"][name] for _, name in TABLE_COLUMNS]
    return [
        ["", *(title for title, _ in TABLE_COLUMNS)],
        *(
            [f"seed {seed}", *(_number(metric["per_seed"][index]) for metric in chosen)]
            for index, seed in enumerate(report["seeds"])
        ),
        ["mean", *(_number(metric["mean"]) for metric in chosen)],
        ["std", *(_number(metric["std"]) for metric in chosen)],
    ]


def _headline(report: Mapping[str, Any]) -> str:
    n_seeds, n_planned = report["n_seeds"], report["n_seeds_planned"]
    seeds = _counted(n_seeds, "seed") if report["complete"] else f"only {n_seeds} of {n_planned} seeds have finished"
    n_images = sum(rate["n_images"] for rate in report["by_votes"])
    return f"{report['study']}, trial {report['trial']['number']}: {n_images} test images, {seeds}"


def _remarks(report: Mapping[str, Any]) -> list[str]:
    """Return the sentences without which the table would be misread."""
    auroc, openings = report["metrics"]["auroc"], report["test_openings"]
    images = "images (no patient or slide is known, so images count as independent)"
    if report["resampled_by"] == "group":
        images = "whole groups of images"
    remarks = ["Positive class SSA, threshold 0.5; the loss is the mean per image."]
    if auroc["ci95"] is not None:
        low, high = auroc["ci95"]
        remarks.append(f"AUROC {auroc['mean']:.4f}, 95% interval {low:.4f} to {high:.4f}, for this configuration.")
        remarks.append(f"Intervals resample the seeds and, the same for all seeds, {images}.")
    remarks.append(f"The test partition was opened {_counted(len(openings), 'time')}:")
    for one in openings:
        what = f"trial {one['trial']}, {_counted(len(one['seeds']), 'seed')}"
        remarks.append(f"- {one['opened_at']} by {one['by']}, {what}: {one['reason']}")
    return remarks


def _markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *body)]


def _markdown(report: Mapping[str, Any], figures: Sequence[str]) -> str:
    trial, speed = report["trial"], report["training_speed"]
    all_metrics = [
        ["metric", "mean", "std", "95% interval"],
        *(
            [name, _number(one["mean"]), _number(one["std"]), " to ".join(map(_number, one["ci95"] or [None]))]
            for name, one in report["metrics"].items()
        ),
    ]
    votes = [
        ["votes for SSA", "images", "error rate"],
        *([str(one["votes"]), str(one["n_images"]), _number(one["error_rate"])] for one in report["by_votes"]),
    ]
    epochs = f"best {trial['best_epoch']}, stopped {trial['stopped_epoch']}, configured {trial['configured_epochs']}"
    training = f"{speed['n_epochs']} epochs in {speed['elapsed_s']:.1f} s, {_number(speed['images_per_s'])} images/s"
    if speed["peak_memory_bytes"] is not None:
        training += f", at most {speed['peak_memory_bytes'] / 2**20:.0f} MiB"
    facts = {
        "Params": ", ".join(f"{name} = {value}" for name, value in trial["params"].items()) or "none searched",
        "Epochs": epochs,
        "Training": training,
        "Train partition": f"fingerprint `{report['dataset_fingerprint']}`",
        "Versions": ", ".join(f"{name} {number}" for name, number in report["versions"].items()),
        "Predictions": "`predictions.csv`",
    }
    return "\n".join(
        [
            f"# {_headline(report)}",
            "",
            *_markdown_table(_rows(report)),
            "",
            *(remark if remark.startswith("- ") else f"{remark}\n" for remark in _remarks(report)),
            "",
            *(f"![{Path(figure).stem}]({figure})" for figure in figures),
            "",
            *_markdown_table(all_metrics),
            "",
            *_markdown_table(votes),
            "",
            *(f"- {name}: {fact}" for name, fact in facts.items()),
            "",
        ]
    )
