"""What optuna-dashboard, which knows nothing of ours, shows of a study: notes, numbers, curves, figures, files.

The formats are those of `optuna_dashboard.save_note`, `save_plotly_graph_object` and `optuna.artifacts`, written here
because importing these takes a worker more than a second.
"""

import contextlib
import json
import uuid
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from mhist_tune import ledger, studies, svg
from mhist_tune.epochs import EpochRow
from mhist_tune.stages import Stage
from mhist_tune.storage import Storage
from mhist_tune.studies import Study
from mhist_tune.svg import Line
from mhist_tune.words import markdown_table, number
from mhist_tune.writing import replaced

_PREDICTIONS = "predictions"
_PIECE = 2045
"""Characters of one attribute, as optuna-dashboard cuts its texts."""

_NUMBERS = ("train_loss", "val_loss", "val_auroc", "val_accuracy", "images_per_s")
_CURVES = (("Loss", ("train_loss", "val_loss")), ("Validation F1 and AUROC", ("val_f1", "val_auroc")))
_OURS = "## mhist-tune's report"


def numbers(epochs: Sequence[EpochRow], best_epoch: int | None) -> dict[str, float]:
    """Return a trial's numbers at its best epoch, or its last one, for the columns of a table of trials."""
    if not epochs:
        return {}
    metrics = epochs[min(best_epoch or len(epochs), len(epochs)) - 1].metrics
    found = {name: value for name in _NUMBERS if (value := metrics.get(name)) is not None}
    return {**found, "elapsed_s": sum(row.metrics.get("elapsed_s") or 0.0 for row in epochs)}


def write_trial(
    storage: Storage, study: Study, stage: Stage, trial_id: int, outcome: Mapping[str, Any], epochs: Sequence[EpochRow]
) -> None:
    """Give a trial that has not ended for Optuna yet its note, its numbers and a picture of its curves.

    Run again, it writes the same; a folder that cannot be written costs the picture alone.
    """
    study_id = studies.optuna_study_id(storage, study, stage)
    picture = _artifact(study, f"{stage}/{trial_id}")
    note = _note(outcome, epochs)
    if epochs and _save_file(storage, picture, _curves(epochs).encode()):
        meta = _meta(picture, "learning-curves.svg", "image/svg+xml")
        storage.optuna.set_trial_system_attr(trial_id, f"artifacts:{picture}", meta)
        note += f"\n\n![Learning curves](/artifacts/{study_id}/{trial_id}/{picture})"
    for name, value in numbers(epochs, outcome.get("best_epoch")).items():
        storage.optuna.set_trial_user_attr(trial_id, name, value)
    storage.optuna.set_study_system_attr(study_id, f"dashboard:{trial_id}:note_str:0", note[:_PIECE])
    storage.optuna.set_study_system_attr(study_id, f"dashboard:{trial_id}:note_ver", 1)


def write_report(
    storage: Storage, study: Study, markdown: str, figures: Mapping[str, Mapping[str, Any]], predictions: Path
) -> None:
    """Give a study its report as a note, with figures, and the predictions as a file.

    Args:
        storage: where the study is.
        study: the study.
        markdown: the note; one that somebody wrote by hand stays.
        figures: Plotly figures as JSON by their id, at most four, since each poll of a page returns all of them.
        predictions: the CSV.
    """
    study_id = studies.optuna_study_id(storage, study, Stage.SEARCH)
    attrs = storage.optuna.get_study_system_attrs(study_id)
    version = int(attrs.get("dashboard:note_ver", 0))
    if not version or str(attrs.get("dashboard:note_str:0", "")).startswith(_OURS):
        _save_text(storage, study_id, "dashboard:note_str:", f"{_OURS}\n\n{markdown}")
        storage.optuna.set_study_system_attr(study_id, "dashboard:note_ver", version + 1)
    for name, figure in figures.items():
        _save_text(storage, study_id, f"dashboard:plot_data:{name}:", json.dumps(figure, separators=(",", ":")))
    artifact = _artifact(study, _PREDICTIONS)
    if _save_file(storage, artifact, predictions.read_bytes()):
        meta = _meta(artifact, "predictions.csv", "text/csv")
        storage.optuna.set_study_system_attr(study_id, f"artifacts:{artifact}", meta)


def artifacts(storage: Storage, study: Study) -> set[str]:
    """Return the names of the files that a study may have in the folder of artifacts, while its slots are known."""
    slots = [slot for stage in Stage for slot in ledger.slots(storage, study, stage)]
    names = [f"{slot.stage}/{slot.trial_id}" for slot in slots if slot.trial_id is not None]
    return {_artifact(study, name) for name in [_PREDICTIONS, *names]}


def remove(storage: Storage, artifacts: Set[str]) -> None:
    """Remove these files from this storage folder, unfinished ones too; nothing happens if there are none.

    Raises:
        OSError: a file cannot be removed.
    """
    folder = storage.root / "artifacts"
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.partition(".")[0] in artifacts:
            path.unlink(missing_ok=True)


def _note(outcome: Mapping[str, Any], epochs: Sequence[EpochRow]) -> str:
    parts = [f"**{outcome['state']}**" + (f": {outcome['reason']}" if outcome.get("reason") else "")]
    if epochs:
        best = min(outcome.get("best_epoch") or len(epochs), len(epochs))
        shown = {f"best, {best}": epochs[best - 1], f"last, {len(epochs)}": epochs[-1]}
        names = [name for name in ("train_loss", "val_loss", "val_f1", "val_auroc") if name in epochs[-1].metrics]
        rows = [["epoch", *names]]
        for label, row in shown.items():
            cells = [row.metrics.get(name) for name in names]
            rows.append([label, *("" if cell is None else number(cell, 4) for cell in cells)])
        parts.append("\n".join(markdown_table(rows)))
    return "\n\n".join(parts)


def _curves(epochs: Sequence[EpochRow]) -> str:
    panels = []
    for title, names in _CURVES:
        lines = [Line(name, [row.metrics.get(name) for row in epochs], f"c{place}") for place, name in enumerate(names)]
        panels.append((title, svg.curves(title, lines, n_epochs=len(epochs))))
    return svg.standalone(panels)


def _artifact(study: Study, name: str) -> str:
    return str(uuid.uuid5(uuid.UUID(study.uuid), name))


def _meta(artifact: str, filename: str, mimetype: str) -> str:
    return json.dumps({"artifact_id": artifact, "filename": filename, "mimetype": mimetype, "encoding": None})


def _save_file(storage: Storage, name: str, content: bytes) -> bool:
    with contextlib.suppress(OSError):
        with replaced(storage.root / "artifacts" / name) as partial:
            partial.write_bytes(content)
        return True
    return False


def _save_text(storage: Storage, study_id: int, prefix: str, text: str) -> None:
    """Save a text in pieces; what an older, longer one left behind is emptied."""
    pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
    for index, piece in enumerate(pieces):
        storage.optuna.set_study_system_attr(study_id, f"{prefix}{index}", piece)
    for key in storage.optuna.get_study_system_attrs(study_id):
        place = key.removeprefix(prefix)
        if key.startswith(prefix) and place.isdecimal() and int(place) >= len(pieces):
            storage.optuna.set_study_system_attr(study_id, key, "")
