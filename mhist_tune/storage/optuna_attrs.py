"""Notes, files and figures that optuna-dashboard shows, stored as attributes of Optuna's studies and trials.

The formats are those of `optuna_dashboard.save_note`, `save_plotly_graph_object` and `optuna.artifacts`. Importing
those modules would take a worker more than a second, so the formats are repeated here.
"""

import contextlib
import json
import uuid
from collections.abc import Mapping, Set
from typing import Any

from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study
from mhist_tune.writing import replaced

_PREDICTIONS = "predictions"
_PIECE = 2045
"""Number of characters of one attribute. optuna-dashboard cuts its texts into pieces of this length."""


def attach_to_trial(
    storage: Storage, study: Study, stage: Stage, trial_id: int, content: bytes, *, filename: str, mimetype: str
) -> str | None:
    """Attach a file to a trial, replacing an earlier one, and return the address for a note.

    Returns:
        The path of the file on optuna-dashboard; None if the folder cannot be written.
    """
    artifact = _trial_artifact(study, stage, trial_id)
    if not _save(storage, artifact, content):
        return None
    storage.optuna.set_trial_system_attr(trial_id, f"artifacts:{artifact}", _metadata(artifact, filename, mimetype))
    return f"/artifacts/{studies.optuna_study_id(storage, study, stage)}/{trial_id}/{artifact}"


def attach_predictions(storage: Storage, study: Study, content: bytes) -> None:
    """Attach `predictions.csv` to a study. Nothing happens if the folder cannot be written."""
    artifact = _artifact(study, _PREDICTIONS)
    if _save(storage, artifact, content):
        study_id = studies.optuna_study_id(storage, study, Stage.SEARCH)
        metadata = _metadata(artifact, "predictions.csv", "text/csv")
        storage.optuna.set_study_system_attr(study_id, f"artifacts:{artifact}", metadata)


def write_trial_note(storage: Storage, study: Study, stage: Stage, trial_id: int, text: str) -> None:
    """Write the note of a trial, cut to one piece."""
    study_id = studies.optuna_study_id(storage, study, stage)
    storage.optuna.set_study_system_attr(study_id, f"dashboard:{trial_id}:note_str:0", text[:_PIECE])
    storage.optuna.set_study_system_attr(study_id, f"dashboard:{trial_id}:note_ver", 1)


def write_study_note(storage: Storage, study: Study, heading: str, text: str) -> None:
    """Write the note of a study below a heading. A note without this heading is a person's and is kept."""
    study_id = studies.optuna_study_id(storage, study, Stage.SEARCH)
    attrs = storage.optuna.get_study_system_attrs(study_id)
    version = int(attrs.get("dashboard:note_ver", 0))
    if not version or str(attrs.get("dashboard:note_str:0", "")).startswith(heading):
        _write_text(storage, study_id, "dashboard:note_str:", f"{heading}\n\n{text}")
        storage.optuna.set_study_system_attr(study_id, "dashboard:note_ver", version + 1)


def write_figure(storage: Storage, study: Study, name: str, figure: Mapping[str, Any]) -> None:
    """Add a Plotly figure, a JSON-safe mapping, to a study. It replaces the figure of the same name."""
    study_id = studies.optuna_study_id(storage, study, Stage.SEARCH)
    _write_text(storage, study_id, f"dashboard:plot_data:{name}:", json.dumps(figure, separators=(",", ":")))


def artifacts(storage: Storage, study: Study) -> set[str]:
    """Return the names of the files that a study may have in the folder of artifacts.

    Call it before the slots are deleted.
    """
    slots = [slot for stage in Stage for slot in ledger.slots(storage, study, stage)]
    trials = {_trial_artifact(study, slot.stage, slot.trial_id) for slot in slots if slot.trial_id is not None}
    return {_artifact(study, _PREDICTIONS), *trials}


def remove(storage: Storage, artifacts: Set[str]) -> None:
    """Remove these files and their unfinished copies from this storage folder, if there are any.

    Raises:
        OSError: a file cannot be removed.
    """
    folder = storage.root / "artifacts"
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.partition(".")[0] in artifacts:
            path.unlink(missing_ok=True)


def _trial_artifact(study: Study, stage: Stage, trial_id: int) -> str:
    return _artifact(study, f"{stage}/{trial_id}")


def _artifact(study: Study, name: str) -> str:
    return str(uuid.uuid5(uuid.UUID(study.uuid), name))


def _metadata(artifact: str, filename: str, mimetype: str) -> str:
    return json.dumps({"artifact_id": artifact, "filename": filename, "mimetype": mimetype, "encoding": None})


def _save(storage: Storage, artifact: str, content: bytes) -> bool:
    with contextlib.suppress(OSError):
        with replaced(storage.root / "artifacts" / artifact, is_private=True) as partial:
            partial.write_bytes(content)
        return True
    return False


def _write_text(storage: Storage, study_id: int, prefix: str, text: str) -> None:
    """Write a text in pieces. Surplus pieces of an older, longer text become empty."""
    pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
    for index, piece in enumerate(pieces):
        storage.optuna.set_study_system_attr(study_id, f"{prefix}{index}", piece)
    for key in storage.optuna.get_study_system_attrs(study_id):
        index_text = key.removeprefix(prefix)
        if key.startswith(prefix) and index_text.isdecimal() and int(index_text) >= len(pieces):
            storage.optuna.set_study_system_attr(study_id, key, "")
