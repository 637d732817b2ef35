"""The report of a study in optuna-dashboard, read by its own code."""

from pathlib import Path

import pytest
from optuna_dashboard import get_note

from mhist_tune.dashboard.server import app
from mhist_tune.report import files
from mhist_tune.storage.database import Storage
from tests.conftest import load_optuna_study
from tests.support import made_up
from tests.support.web import Client


@pytest.fixture(autouse=True)
def folder(storage: Storage, tmp_path: Path) -> None:
    """Artifacts lie in the test's own folder, on PostgreSQL too."""
    storage.root = tmp_path


def test_a_report_becomes_note_figures_and_file(storage: Storage) -> None:
    """At most four small figures, the result, the predictions; made again they replace themselves, no other note."""
    study = made_up.create(storage)
    made_up.open_test(storage, study)
    made_up.retrain(storage, study, n_slots=3)
    for _ in range(2):
        document = files.write(storage, study.name, storage.root / "out")
    kept = load_optuna_study(storage, study, "search")
    shown = Client(app(storage)).get(f"/api/studies/{kept._study_id}").json

    assert document.result in get_note(kept)
    assert {one["id"] for one in shown["plotly_graph_objects"]} == {"roc", "seeds", "votes"}
    assert sum(len(one["graph_object"]) for one in shown["plotly_graph_objects"]) < 12_000
    assert [one["filename"] for one in shown["artifacts"]] == ["predictions.csv"]
    storage.optuna.set_study_system_attr(kept._study_id, "dashboard:note_str:0", "mine")
    files.write(storage, study.name, storage.root / "out")
    assert get_note(kept).startswith("mine")
