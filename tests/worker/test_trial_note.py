"""A trial in optuna-dashboard, read by its own code."""

from pathlib import Path
from xml.etree import ElementTree

import optuna
import pytest

from mhist_tune.dashboard.server import app
from mhist_tune.storage import studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.studies import Study
from mhist_tune.worker import trial_note
from tests.conftest import MakeStudy
from tests.dashboard.test_pages import claim, train
from tests.support.web import Client


@pytest.fixture(autouse=True)
def folder(storage: Storage, tmp_path: Path) -> None:
    """Artifacts lie in the test's own folder, on PostgreSQL too."""
    storage.root = tmp_path


@pytest.fixture
def ended(storage: Storage, make_study: MakeStudy) -> tuple[Study, optuna.trial.FrozenTrial]:
    """A study with one trial that was pruned after three epochs, as Optuna stores it."""
    study = make_study(lease_s=60.0)
    study_id = studies.optuna_study_id(storage, study, "search")
    trial_id = storage.optuna.create_new_trial(study_id)
    claimed = claim(storage, study, 0)
    train(storage, claimed, 0.4, 0.6, 0.5)
    epochs = epochs_of(storage, study, "search", claimed.slot)
    outcome = Outcome(state=EndState.PRUNED, value=0.5, best_epoch=2, reason="0.600 is too low")
    for _ in range(2):  # a worker killed in between lets the next one write it again
        trial_note.write_trial(storage, study, "search", trial_id, outcome, epochs)
    storage.optuna.set_trial_state_values(trial_id, optuna.trial.TrialState.PRUNED, [0.5])
    return study, storage.optuna.get_trial(trial_id)


def test_a_trial_has_note_numbers_and_curves(storage: Storage, ended: tuple[Study, optuna.trial.FrozenTrial]) -> None:
    """Its note says why it ended and shows the curves, one artifact; its numbers are those of the best epoch."""
    study, trial = ended
    study_id = studies.optuna_study_id(storage, study, "search")
    client = Client(app(storage))
    [found] = client.get(f"/api/studies/{study_id}").json["trials"]
    note = found["note"]["body"]

    assert note.startswith("**PRUNED**: 0.600 is too low")
    assert "| best, 2 | 0.4000 | 0.4000 | 0.6000 | 0.6000 |" in note
    numbers = {name: value for name, value in trial.user_attrs.items() if isinstance(value, float)}
    assert numbers == pytest.approx(
        {"train_loss": 0.4, "val_loss": 0.4, "val_f1": 0.6, "val_auroc": 0.6, "elapsed_s": 6.0}
    )
    [artifact] = found["artifacts"]
    picture = client.get(f"/artifacts/{study_id}/{trial._trial_id}/{artifact['artifact_id']}")
    assert picture.headers["content-type"] == "image/svg+xml"
    ElementTree.fromstring(picture.body)
    assert f"({'/artifacts'}/{study_id}/{trial._trial_id}/{artifact['artifact_id']})" in note
