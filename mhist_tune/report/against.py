"""The results of a table beside the numbers that its definition reports from elsewhere.

The name of a reported number says what it was measured on, and so which of our results it is compared with:
`val_*`: the validation images, at the best epoch of each training.
`test_*`: the test images, with early-stopped models (`retrain --with-validation`). No choice rests on them.
`retrained_*`: the test images, with models trained on the whole train partition.
`train_*`: nothing. They stay in the definition only.
Our results are recomputed from stored probabilities.
"""

import math
import statistics as numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mhist_tune.errors import UsageError
from mhist_tune.mhist import THRESHOLD
from mhist_tune.report.document import to_json
from mhist_tune.search import selection
from mhist_tune.statistics import binary_metrics
from mhist_tune.statistics.binary_metrics import METRICS
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.payloads import ConfirmPayload, SearchPayload
from mhist_tune.storage.predictions import image_rows, predictions_of
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study
from mhist_tune.words import markdown_table
from mhist_tune.writing import output_folder

ALWAYS_SHOWN = ("val_f1", "val_auroc", "best_epoch")
_SOURCES = {
    "val": (Stage.SEARCH, "val"),
    "test": (Stage.DESCRIPTIVE, "test"),
    "retrained": (Stage.RETRAIN, "test"),
}
"""By prefix of a number's name: the stage and the image set of our predictions."""


@dataclass(frozen=True)
class Measured:
    """A number over the seeds, as of `statistics.MetricSummary`."""

    mean: float | None
    std: float | None
    per_seed: list[float | None]


@dataclass(frozen=True)
class ComparedRow:
    """A row of the table.

    Attributes:
        n_seeds: number of complete trainings.
        ours: our results, by name.
        reported: as in the definition.
    """

    label: str
    n_seeds: int
    n_failed: int
    ours: dict[str, Measured]
    reported: dict[str, float]


@dataclass(frozen=True)
class AgainstReport:
    """A table beside the numbers that are reported elsewhere.

    Attributes:
        columns: names of the numbers shown: those of validation, and `test_*` and `retrained_*` once such models exist.
        descriptive: the columns on which no choice may rest.
    """

    study: str
    columns: list[str]
    descriptive: list[str]
    rows: list[ComparedRow]


def build(storage: Storage, study_name: str) -> AgainstReport:
    """Return a table beside its reported numbers.

    Raises:
        StudyNotFoundError: no such study.
        UsageError: the study is no table, reports nothing, or has not finished any training.
    """
    study = studies.load_study(storage, study_name)
    if not any(row.reported for row in study.definition.rows):
        raise UsageError(
            f"{study_name} has no reported numbers to stand beside",
            hint="a table has them in its [[row]] entries: reported = { val_f1 = 0.7 }",
        )
    slots = ledger.slots(storage, study, Stage.SEARCH)
    scores = selection.row_scores(study, slots)
    if not any(score.slots for score in scores):
        raise selection.without_result(study, slots)
    measured = _measured(storage, study)
    rows = []
    for row, score in zip(study.definition.rows, scores, strict=True):
        epochs = [selection.best_epoch_of(slot) for slot in score.slots]
        ours = ({"best_epoch": epochs} if epochs else {}) | measured[row.label]
        summaries = {name: _summary(values) for name, values in ours.items()}
        rows.append(ComparedRow(row.label, len(score.slots), score.n_failed, summaries, dict(row.reported)))
    columns = _columns(rows)
    return AgainstReport(
        study=study.name,
        columns=columns,
        descriptive=[name for name in columns if name.startswith("test_")],
        rows=rows,
    )


def write(storage: Storage, study_name: str, folder: Path) -> AgainstReport:
    """Write reported.json and reported.md into `folder`, and return the document; errors as for `build`."""
    document = build(storage, study_name)
    with output_folder(folder, "the table", hint="choose another folder: --output DIR"):
        (folder / "reported.json").write_text(to_json(document) + "\n", encoding="utf-8")
        (folder / "reported.md").write_text(to_text(document) + "\n", encoding="utf-8")
    return document


def to_text(document: AgainstReport) -> str:
    """Return the table in Markdown with aligned columns, followed by the notes needed to read it."""
    columns = document.columns
    titles = [f"{name} (descriptive)" if name in document.descriptive else name for name in columns]
    cells = [["row", "seeds", *(title for name in titles for title in (name, "reported"))]]
    for row in document.rows:
        seeds = f"{row.n_seeds}" + (f" ({row.n_failed} failed)" if row.n_failed else "")
        pairs = ((_ours(name, row.ours), _reported(name, row.reported)) for name in columns)
        cells.append([row.label, seeds, *(cell for pair in pairs for cell in pair)])
    lines = [
        f"# {document.study}, beside the numbers reported elsewhere",
        "",
        *markdown_table(cells, is_aligned=True),
        "",
    ]
    lines.append(f"Ours: mean +- standard deviation over the seeds, positive class SSA, threshold {THRESHOLD}.")
    if document.descriptive:
        lines.append("test_* are early-stopped models, trained without the validation images. No choice rests on them.")
    if any(name.startswith("retrained_") for name in columns):
        lines.append("retrained_* are models trained on the whole train partition.")
    return "\n".join(lines)


def _measured(storage: Storage, study: Study) -> dict[str, dict[str, list[float]]]:
    """Return by row and number the values of all seeds that have predictions; of a seed trained twice, the newest."""
    by_label: dict[str, dict[str, dict[int, float]]] = {row.label: {} for row in study.definition.rows}
    searched = ledger.slots(storage, study, Stage.SEARCH)
    label_of = {slot.trial_number: slot.payload.label or "" for slot in searched}
    for prefix, (stage, image_set) in _SOURCES.items():
        predictions = predictions_of(storage, study, stage, image_set)
        for slot in ledger.slots(storage, study, stage):
            if slot.slot not in predictions or not selection.is_complete(slot):
                continue
            payload = slot.payload
            assert not isinstance(payload, ConfirmPayload)
            label = label_of[slot.trial_number if isinstance(payload, SearchPayload) else payload.trial]
            truth = image_rows(storage, study, image_set).labels
            for name, value in binary_metrics.metrics_of(truth, predictions[slot.slot]).items():
                by_label[label].setdefault(f"{prefix}_{name}", {})[payload.seed or 0] = value
    return {
        label: {name: [by_seed[seed] for seed in sorted(by_seed)] for name, by_seed in numbers_.items()}
        for label, numbers_ in by_label.items()
    }


def _summary(values: Sequence[float]) -> Measured:
    """Return mean, standard deviation (ddof = 1, None for one value) and values; an undefined value leaves None."""
    defined = all(math.isfinite(value) for value in values)
    return Measured(
        mean=numbers.fmean(values) if defined else None,
        std=numbers.stdev(values) if defined and len(values) > 1 else None,
        per_seed=[value if math.isfinite(value) else None for value in values],
    )


def _columns(rows: Sequence[ComparedRow]) -> list[str]:
    """Return `ALWAYS_SHOWN`, then the names of the numbers that are both reported and measured."""
    both = {name for row in rows for name in row.reported} & {name for row in rows for name in row.ours}
    order = [f"{prefix}_{metric}" for prefix in _SOURCES for metric in METRICS]
    return [*ALWAYS_SHOWN, *(name for name in order if name in both and name not in ALWAYS_SHOWN)]


def _ours(name: str, ours: Mapping[str, Measured]) -> str:
    if name not in ours or ours[name].mean is None:
        return "-"
    digits = 1 if name == "best_epoch" else 3
    std = ours[name].std
    return f"{ours[name].mean:.{digits}f}" + ("" if std is None else f" +- {std:.{digits}f}")


def _reported(name: str, reported: Mapping[str, float]) -> str:
    if name not in reported:
        return "-"
    return f"{reported[name]:.0f}" if name == "best_epoch" else f"{reported[name]:.3f}"
