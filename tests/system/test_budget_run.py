"""A search within a budget of device hours, by real workers that are killed, on both databases."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy

from mhist_tune.report import status
from mhist_tune.search import budget, finalists, replay
from mhist_tune.storage import ledger, studies, tables
from mhist_tune.storage.database import open_storage
from mhist_tune.storage.stages import SlotState, Stage
from tests.support import slow_epochs
from tests.support.killed_worker import run_killed
from tests.support.slow_epochs import EPOCH_S

Run = Callable[..., tuple[int, str, str]]

MAX_S = 950.0  # confirmation and retraining take up to 790
DEFINITION = f"""
[study]
name = "budgeted"
n_trials = 20
max_hours = {MAX_S / 3600}
score = "mean_f1"
at = "last"
sampler = {{ name = "random" }}
pruner = {{ name = "promotion", min_resource = 1, reduction_factor = 2 }}
lease_s = 1.0

[fixed]
model = "fcnn"
weights = "random"
image_size = 8
epochs = 3
precision = "fp32"
memory_format = "contiguous"
augmentation = "none"

[space]
learning_rate = {{ low = 1e-4, high = 1e-2, log = true }}

[[start]]
learning_rate = 1e-3

[confirm]
top = 1
n_folds = 2
"""
WORK = ("worker", "budgeted", "--devices", "cpu", "--per-device", "1")
KILLS = (
    ("mhist_tune.search.budget:record_plan", 1),  # measured, not recorded
    ("mhist_tune.worker.optuna_trial:OptunaTrial.ensure", 1),  # claimed, no trial
    ("mhist_tune.worker.trial_checkpoints:TrialCheckpoints.announce", 4),  # epochs recorded, not all announced
    ("mhist_tune.search.rungs:RungBook.close", 1),  # closed by the budget, the waiting trials not decided
    ("mhist_tune.worker.stages.confirm:record_predictions", 1),
)


def test_killed_workers_keep_the_budget_and_choose(run: Run, storage_url: str, generated: Path, tmp_path: Path) -> None:
    """The search takes no more than the budget leaves, every epoch counts once, and a finalist is chosen."""
    (tmp_path / "budgeted.toml").write_text(DEFINITION)
    common = ("--data", str(generated), "--storage", storage_url)
    assert run("create-study", "budgeted.toml", *common)[0] == 0
    for place, n in KILLS:
        assert run_killed(place, n, [*WORK, *common], slow_epochs.install) == -signal.SIGKILL, place
    assert run_killed(KILLS[0][0], 0, [*WORK, *common], slow_epochs.install) == 0

    with open_storage(storage_url) as storage:
        study = studies.load_study(storage, "budgeted")
        slots = ledger.all_slots(storage, study)
        reached = budget.reached(storage, study)
        confirmed = finalists.load(storage, study)
        found = status.of_study(storage, study)
        with storage.engine.connect() as connection:
            rows = connection.execute(sqlalchemy.select(tables.epochs)).all()
        assert replay.replay(storage, study).budget == []
    assert reached is not None
    assert {slot.state for slot in slots.search} == {SlotState.DONE, SlotState.CANCELLED}
    assert reached.n_begun == sum(slot.state is SlotState.DONE for slot in slots.search) < 20
    assert confirmed is not None
    assert confirmed.chosen is not None
    assert len({(row.stage, row.slot, row.epoch) for row in rows}) == len(rows)
    n_searched = sum(row.stage == Stage.SEARCH for row in rows)
    assert n_searched * EPOCH_S + reached.account.reserved_s <= MAX_S
    assert found.cost is not None
    assert found.cost.search.hours_spent * 3600 == pytest.approx(n_searched * EPOCH_S)
    assert found.cost.in_all.epochs_spent == len(rows)
