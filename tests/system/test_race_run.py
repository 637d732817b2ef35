"""The race of the finalists, run by real workers that are killed in the middle of it, on both databases."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mhist_tune.data.synthesize import synthesize
from mhist_tune.search import finalists, race
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.event_log import events
from mhist_tune.storage.studies import Study
from tests.conftest import load_optuna_study
from tests.support.killed_worker import run_killed

Run = Callable[..., tuple[int, str, str]]

N_EPOCHS = 2
DEFINITION = f"""
[study]
name = "raced"
n_trials = 4
score = "mean_f1"
at = "last"
sampler = {{ name = "random", seed = 3 }}
pruner = {{ name = "none" }}
lease_s = 1.0

[fixed]
model = "fcnn"
weights = "random"
image_size = 16
epochs = {N_EPOCHS}
precision = "fp32"
memory_format = "contiguous"
augmentation = "none"

[space]
learning_rate = {{ low = 1e-9, high = 1e-1, log = true }}

[confirm]
top = 4
n_folds = 4
race_level = 0.2

[[start]]
learning_rate = 3e-3

[[start]]
learning_rate = 1e-9

[[start]]
learning_rate = 2e-9

[[start]]
learning_rate = 4e-3
"""
WORK = ("worker", "raced", "--devices", "cpu", "--per-device")
KILLS = (
    ("mhist_tune.search.race:_record", 1),  # a look is taken and not recorded
    ("mhist_tune.worker.slot_run:record_epoch", 2),  # in the middle of a training
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred and fifty generated images, to be read only."""
    root = tmp_path_factory.mktemp("raced") / "images"
    synthesize(root, n_images=150, image_size=32, seed=0)
    return root


def outcome_of(storage: Storage, study: Study) -> tuple[object, ...]:
    """Return the looks, the choice, and which finalists remain, without what depends on the moment of a kill."""
    found = finalists.load(storage, study)
    assert found is not None
    assert found.chosen is not None
    scores = {one.candidate.trial: one.scores for one in found.finalists}
    return race.recorded(storage, study), found.chosen.candidate.trial, scores, found.dropped


def test_killed_workers_race_as_one_would(
    run: Run, storage_url: str, storage_url_sqlite: str, images: Path, tmp_path: Path
) -> None:
    """Killed at two places and then three at a time, workers take the looks of one undisturbed worker, to the bit.

    No dropped finalist is trained after its look, every slot ends once, and `replay` takes the same looks again.
    """
    (tmp_path / "raced.toml").write_text(DEFINITION)
    data = ("--data", str(images))
    alone = f"sqlite:///{tmp_path}/alone/mhist-tune.db"
    for url in (alone, storage_url):
        assert run("create-study", "raced.toml", *data, "--storage", url)[0] == 0
    assert run(*WORK, "1", *data, "--storage", alone)[0] == 0
    for place, n in KILLS:
        assert run_killed(place, n, [*WORK, "1", *data, "--storage", storage_url]) == -signal.SIGKILL, place
    code, _, err = run(*WORK, "3", *data, "--storage", storage_url)
    assert code == 0, err

    with open_storage(alone) as storage:
        undisturbed = outcome_of(storage, studies.load_study(storage, "raced"))
    with open_storage(storage_url) as storage:
        study = studies.load_study(storage, "raced")
        assert outcome_of(storage, study) == undisturbed
        slots = ledger.slots(storage, study, "confirm")
        dropped = {one.trial: one for one in race.dropped(race.recorded(storage, study))}
        trials = load_optuna_study(storage, study, "confirm").get_trials(deepcopy=False)
        epochs = {slot.slot: epochs_of(storage, study, "confirm", slot.slot) for slot in slots}
        assert events(storage, study, kind="error") == []
    assert dropped
    assert 0 not in dropped  # the default is as bad, and stays
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
    for slot in slots:
        one, outcome = dropped.get(slot.payload.trial), slot.outcome
        assert outcome is not None
        assert slot.state in ("done", "cancelled")
        if one is None or slot.payload.fold < one.n_trained:
            assert outcome.is_complete
        if outcome.is_complete:
            assert [row.epoch for row in epochs[slot.slot]] == list(range(1, N_EPOCHS + 1))
        else:
            assert outcome.reason is not None
            assert "clearly behind" in outcome.reason
    code, out, err = run("replay", "raced", "--storage", storage_url, "--json")
    assert code == 0, err
    assert json.loads(out)["race"] == {"looks": 2, "problems": []}
