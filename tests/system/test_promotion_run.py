"""A search that pauses and promotes, run by the real command with the real trainer."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mhist_tune.search import selection
from mhist_tune.search.rungs import KIND
from mhist_tune.storage import event_log, ledger, studies
from mhist_tune.storage.database import open_storage
from mhist_tune.storage.decision import Verdict
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.stages import SlotState
from tests.conftest import load_optuna_study
from tests.search.test_rungs import decide_again
from tests.support.killed_worker import run_killed

Run = Callable[..., tuple[int, str, str]]

N_TRIALS, N_EPOCHS = 6, 3
DEFINITION = f"""
[study]
name = "paused"
n_trials = {N_TRIALS}
sampler = {{ name = "tpe", n_startup_trials = 2 }}
pruner = {{ name = "promotion", min_resource = 1, reduction_factor = 2 }}
lease_s = 1.0

[fixed]
model = "fcnn"
weights = "random"
image_size = 8
epochs = {N_EPOCHS}
precision = "fp32"
memory_format = "contiguous"
augmentation = "none"

[space]
learning_rate = {{ low = 1e-4, high = 1e-2, log = true }}
"""
WORK = ("worker", "paused", "--devices", "cpu", "--per-device", "1")
KILLS = (
    ("mhist_tune.search.rungs:RungBook.arrive", 1),  # saved and recorded, not arrived
    ("mhist_tune.search.rungs:RungBook.arrive", 2),
    ("mhist_tune.worker.optuna_trial:OptunaTrial.finish", 2),
    ("mhist_tune.search.rungs:RungBook.close", 1),  # nothing but waiting slots is left
)


@pytest.fixture
def create(run: Run, generated: Path, tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    """A function that creates the study in a database, and returns the options for every other command."""

    def call(url: str) -> tuple[str, ...]:
        (tmp_path / "paused.toml").write_text(DEFINITION)
        common = ("--data", str(generated), "--storage", url)
        code, _, err = run("create-study", "paused.toml", *common)
        assert code == 0, err
        return common

    return call


def test_every_trial_ends_with_one_growing_curve(
    run: Run, storage_url: str, tmp_path: Path, create: Callable[[str], tuple[str, ...]]
) -> None:
    """Killed at every turn, a search ends with each slot COMPLETE or PRUNED, in Optuna as well, and one checkpoint."""
    common = create(storage_url)
    for place, n in KILLS:
        assert run_killed(place, n, [*WORK, *common]) == -signal.SIGKILL, place
    code, _, err = run(*WORK, *common)
    assert code == 0, err

    with open_storage(storage_url) as storage:
        study = studies.load_study(storage, "paused")
        seen = decide_again(storage, study)
        slots = ledger.slots(storage, study, "search")
        trials = {
            trial.user_attrs["slot"]: trial
            for trial in load_optuna_study(storage, study, "search").get_trials(deepcopy=False)
        }
        assert len(trials) == len(slots) == N_TRIALS
        states = []
        for slot in slots:
            assert slot.state == "done"
            assert slot.outcome is not None
            states.append(slot.outcome.state)
            epochs = epochs_of(storage, study, "search", slot.slot)
            assert [one.epoch for one in epochs] == list(range(1, slot.outcome.stopped_epoch + 1))
            trial = trials[slot.slot]
            assert (trial.number, trial.state.name, trial.params) == (
                slot.trial_number,
                slot.outcome.state,
                slot.outcome.params,
            )
            assert trial.intermediate_values == {one.epoch: one.score for one in epochs}
            if trial.state.name == "PRUNED":
                assert trial.value == epochs[-1].score
                assert slot.outcome.stopped_epoch in seen
                assert slot.outcome.decision and slot.outcome.decision.verdict is Verdict.PRUNE
            else:
                assert slot.outcome.stopped_epoch == N_EPOCHS
        assert states.count("COMPLETE") >= 1
        assert states.count("PRUNED") >= 1
        errors = event_log.events(storage, study, kind="error")
        best = selection.best(study, ledger.slots(storage, study, "search"))
    assert errors == []
    assert best is not None
    kept = {path.parent.name for path in (tmp_path / "storage" / "checkpoints").rglob("*.safetensors")}
    assert kept == {f"search-{best.slot:05}"}


def test_thaw_continues_a_waiting_trial(
    run: Run, storage_url_sqlite: str, create: Callable[[str], tuple[str, ...]]
) -> None:
    """`thaw` continues a waiting trial from its checkpoint to its next rung; a pruned one is refused in one line."""
    common = create(storage_url_sqlite)
    assert run_killed("mhist_tune.search.rungs:RungBook.close", 1, [*WORK, *common]) == -signal.SIGKILL
    with open_storage(storage_url_sqlite) as storage:
        study = studies.load_study(storage, "paused")
        slots = ledger.slots(storage, study, "search")
        waiting = next(slot for slot in slots if slot.state == SlotState.WAITING)
        ended = next(slot for slot in slots if slot.outcome and slot.outcome.state == "PRUNED" and slot.state == "done")
        before = len(epochs_of(storage, study, "search", waiting.slot))

    code, out, err = run("thaw", "paused", str(waiting.trial_number))
    assert code == 0, err
    assert f"trial {waiting.trial_number} goes on after epoch {before}" in out
    code, _, err = run("thaw", "paused", str(ended.trial_number))
    assert code == 2
    assert "its checkpoint is gone" in err
    with open_storage(storage_url_sqlite) as storage:
        [thawed] = event_log.events(storage, study, kind="thawed")
    assert thawed.detail == {"trial": waiting.trial_number, "epoch": before, "by": "the command line"}

    assert run(*WORK, *common)[0] == 0
    with open_storage(storage_url_sqlite) as storage:
        events = event_log.events(storage, study, kind=KIND, slot=waiting.slot)
        assert "continued by hand" in [event.detail["reason"] for event in events]
        epochs = epochs_of(storage, study, "search", waiting.slot)
        assert [one.epoch for one in epochs] == list(range(1, len(epochs) + 1))
        assert len(epochs) > before
