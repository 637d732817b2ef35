"""Changes that a person makes to a study under way."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState, create_trial

from mhist_tune.actions import change
from mhist_tune.definition import space
from mhist_tune.errors import UsageError
from mhist_tune.search import suggestions
from mhist_tune.storage import event_log, ledger, studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.studies import Study
from tests.conftest import load_optuna_study
from tests.worker.test_slot_run import DEFINITION

Run = Callable[..., tuple[int, str, str]]
MakeStudy = Callable[..., Study]


def test_a_worker_prunes_a_vetoed_trial(run: Run, generated: Path, tmp_path: Path, storage_url_sqlite: str) -> None:
    """A vetoed trial ends as pruned at its next epoch with the reason; the next one goes on."""
    text = DEFINITION.format(model="fcnn", study="", more="", epochs=2).replace("n_trials = 1", "n_trials = 2")
    (tmp_path / "small.toml").write_text(text)
    assert run("create-study", "small.toml", "--data", str(generated))[0] == 0
    with open_storage(storage_url_sqlite) as storage:
        study = studies.load_study(storage, "small")
        detail = {"reason": "too slow", "by": "a test"}  # what veto.record writes, before the trial has a number
        event_log.event(storage, study, kind="veto", stage="search", slot=0, detail=detail)
    run("worker", "small", "--devices", "cpu", "--per-device", "1", "--data", str(generated))
    with open_storage(storage_url_sqlite) as storage:
        vetoed, other = ledger.slots(storage, study, "search")
        assert vetoed.outcome is not None
        assert (vetoed.outcome.state, vetoed.outcome.stopped_epoch) == ("PRUNED", 1)
        assert vetoed.outcome.reason == "vetoed by a test: too slow"
        assert len(epochs_of(storage, study, "search", other.slot)) == 2
        trial = load_optuna_study(storage, study, "search").trials[0]
        assert trial.user_attrs["val_loss"] > 0
        assert trial.user_attrs["reason"] == vetoed.outcome.reason
        assert change.retry(storage, study, vetoed.trial_number or 0, by="a test") == 2
        assert ledger.slots(storage, study, "search")[2].payload.params == vetoed.outcome.params


def test_a_wider_range_stays_in_the_joint_space(storage: Storage, make_study: MakeStudy) -> None:
    """Good trials lie at the old bound: TPE goes beyond it, and sees the old trials with the new range."""
    study = make_study(n_trials=2, low=1e-3)
    before = study.definition.space["learning_rate"]
    assert change.widen(storage, study, "learning_rate=1e-6..1e-1").definition.space == {
        "learning_rate": space.Float(1e-6, 1e-1, log=True)
    }
    wider = studies.load_study(storage, "small")
    assert wider.definition.sha256 == study.definition.sha256
    trials = [
        create_trial(
            state=TrialState.COMPLETE,
            params={"learning_rate": rate},
            distributions={"learning_rate": before.distribution()},
            value=-math.log(rate),
        )
        for rate in np.geomspace(1e-3, 1e-1, 20)
    ]
    rates = [
        suggestions.suggest(study.definition.sampler, slot, wider.definition.space, trials)["learning_rate"]
        for slot in range(10)
    ]
    assert min(rates) < 1e-3
    assert trials[0].distributions == {"learning_rate": before.distribution()}

    for text in ("learning_rate=1e-5..1e-1", "learning_rate=0..1e-1", "learning_rat=1..2", "learning_rate=1e-7"):
        with pytest.raises(UsageError):
            change.widen(storage, wider, text)


def test_extend_takes_both(run: Run, generated: Path, storage_url_sqlite: str) -> None:
    """More slots and a wider range in one command; a bad range adds no slot."""
    assert run("create-study", "demo", "--data", str(generated))[0] == 0
    code, _, err = run("extend", "demo", "--n-trials", "2", "--widen", "drop_rate=0.2..0.5")
    assert (code, "may only grow" in err) == (2, True)
    code, out, err = run("extend", "demo", "--n-trials", "2", "--widen", "drop_rate=0.0..0.6")
    assert (code, "10 search slots" in out) == (0, True), err
    with open_storage(storage_url_sqlite) as storage:
        assert studies.load_study(storage, "demo").definition.space["drop_rate"] == space.Float(0.0, 0.6)
