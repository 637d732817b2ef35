"""The report of a study as optuna-dashboard shows it: a note, figures and the predictions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mhist_tune.storage import optuna_attrs
from mhist_tune.storage.database import Storage
from mhist_tune.storage.studies import Study

_OURS = "## mhist-tune's report"


def write_report(
    storage: Storage, study: Study, markdown: str, figures: Mapping[str, Mapping[str, Any]], predictions: Path
) -> None:
    """Write the report of a study into optuna-dashboard: a note, figures, and the predictions as a file.

    Args:
        storage: where the study is.
        study: the study.
        markdown: the note; one that a person wrote stays.
        figures: Plotly figures as JSON by their id, at most four, since each poll of a page returns all of them.
        predictions: the CSV.
    """
    optuna_attrs.write_study_note(storage, study, _OURS, markdown)
    for name, figure in figures.items():
        optuna_attrs.write_figure(storage, study, name, figure)
    optuna_attrs.attach_predictions(storage, study, predictions.read_bytes())
