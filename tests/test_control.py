"""What a person changes while workers are at it."""

from collections.abc import Callable
from pathlib import Path

from mhist_tune import control, journal, ledger, studies
from mhist_tune.epochs import epochs_of
from mhist_tune.storage import open_storage
from tests.test_execution import DEFINITION

Run = Callable[..., tuple[int, str, str]]


def test_a_worker_hears_a_veto(run: Run, generated: Path, tmp_path: Path, storage_url_sqlite: str) -> None:
    """A vetoed trial ends as pruned at its next epoch with the reason; the next one goes on."""
    text = DEFINITION.format(model="fcnn", study="", more="", epochs=2).replace("n_trials = 1", "n_trials = 2")
    (tmp_path / "small.toml").write_text(text)
    assert run("create-study", "small.toml", "--data", str(generated))[0] == 0
    with open_storage(storage_url_sqlite) as storage:
        study = studies.load_study(storage, "small")
        detail = {"reason": "too slow", "by": "a test"}  # what veto.record writes, before the trial has a number
        journal.event(storage, study, kind="veto", stage="search", slot=0, detail=detail)
    run("worker", "small", "--devices", "cpu", "--per-device", "1", "--data", str(generated))
    with open_storage(storage_url_sqlite) as storage:
        vetoed, other = ledger.slots(storage, study, "search")
        assert vetoed.outcome is not None
        assert (vetoed.outcome["state"], vetoed.outcome["stopped_epoch"]) == ("PRUNED", 1)
        assert vetoed.outcome["reason"] == "vetoed by a test: too slow"
        assert len(epochs_of(storage, study, "search", other.slot)) == 2
        trial = studies.optuna_study(storage, study, "search").trials[0]
        assert trial.user_attrs["val_loss"] > 0
        assert trial.user_attrs["reason"] == vetoed.outcome["reason"]
        assert control.retry(storage, study, vetoed.trial_number or 0, by="a test") == 2
        assert ledger.slots(storage, study, "search")[2].payload["params"] == vetoed.outcome["params"]
