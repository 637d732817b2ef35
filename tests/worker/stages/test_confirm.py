"""The confirm stage: finalists trained again out of fold, through the command line on generated images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from mhist_tune.data import cache
from mhist_tune.search import finalists
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.openings import load_openings
from mhist_tune.storage.predictions import image_rows, predictions_of
from mhist_tune.storage.slot_rows import SlotRow
from mhist_tune.storage.studies import Study
from mhist_tune.worker.stages import confirm

Run = Callable[..., tuple[int, str, str]]

DEFINITION = """
[study]
name = "tiny"
n_trials = 2
sampler = { name = "random", seed = 3 }
pruner = { name = "none" }
lease_s = 2.0

[fixed]
model = "fcnn"
weights = "random"
image_size = 16
epochs = 3
patience = 2
precision = "fp32"
memory_format = "contiguous"

[space]
learning_rate = { low = 1e-4, high = 1e-2, log = true }

[confirm]
top = 2
n_folds = 2

[[start]]
learning_rate = 1e-3
"""
WORK = ("--devices", "cpu", "--per-device", "1")


def slots_of(storage: Storage, study: Study, fit: str) -> list[SlotRow]:
    return [slot for slot in ledger.slots(storage, study, "confirm") if slot.payload.fit == fit]


def test_finalists_predict_every_train_image_out_of_fold(
    run: Run, generated: Path, storage_url_sqlite: str, tmp_path: Path
) -> None:
    """Two trials on two folds: every image predicted once, scores by hand, the better one and the default retrained."""
    (tmp_path / "tiny.toml").write_text(DEFINITION)
    data = ("--data", str(generated))
    code, _, err = run("create-study", "tiny.toml", *data)
    assert code == 0, err
    assert run("worker", "tiny", *WORK, *data)[0] == 0
    with open_storage(storage_url_sqlite) as storage:
        study = studies.load_study(storage, "tiny")
        inner, outer = slots_of(storage, study, "inner"), slots_of(storage, study, "fold")
        confirmation = finalists.load(storage, study)
        folds = [image_rows(storage, study, f"fold{fold}") for fold in range(2)]
        stored = [predictions_of(storage, study, "confirm", f"fold{fold}") for fold in range(2)]
        epochs = {slot.slot: len(epochs_of(storage, study, "confirm", slot.slot)) for slot in outer}
    trials = {slot.payload.trial for slot in inner}

    assert "6 trainings, 2 folds x 3" in err
    assert len(trials) == 2
    assert len(inner) == len(outer) == 4
    assert confirmation is not None
    assert confirmation.default is not None
    assert (confirmation.n_open, confirmation.n_failed) == (0, 0)
    names = [name for fold in folds for name in fold.names]
    train = cache.load_train(generated, image_size=16, cache_dir=Path(generated).parent / "cache")
    assert sorted(names) == sorted(train.names)
    for finalist in confirmation.finalists:
        trial = finalist.candidate.trial
        best = [slot.outcome.best_epoch for slot in inner if slot.payload.trial == trial]
        own = {slot.payload.fold: slot for slot in outer if slot.payload.trial == trial}
        assert {slot.payload.stop_epoch for slot in own.values()} == {min(best)} == {finalist.stop_epoch}
        assert all(epochs[slot.slot] == finalist.stop_epoch for slot in own.values())
        parts = [stored[fold][own[fold].slot] for fold in range(2)]
        labels = np.concatenate([fold.labels for fold in folds])
        assert finalist.scores.f1 == pytest.approx(f1_score(labels, np.concatenate(parts) > 0.5))
        aurocs = [roc_auc_score(fold.labels, part) for fold, part in zip(folds, parts, strict=True)]
        assert finalist.scores.auroc == pytest.approx(np.mean(aurocs))
    best = json.loads(run("best-trial", "tiny", "--json")[1])
    assert best["number"] == best["confirm"]["chosen"] == confirmation.finalists[0].candidate.trial
    [fall] = [line for line in run("status", "tiny")[1].splitlines() if " out of fold, " in line]
    assert "(standard error " in fall
    assert run("retrain", "tiny", "--n-seeds", "2", *WORK, *data)[0] == 0
    with open_storage(storage_url_sqlite) as storage:
        retrained = [slot.payload for slot in ledger.slots(storage, study, "retrain")]
        [opening] = load_openings(storage, study)
    wanted = dict.fromkeys([best["number"], confirmation.default.candidate.trial])
    assert [(one.trial, one.seed) for one in retrained] == [(trial, seed) for trial in wanted for seed in (0, 1)]
    stop_epochs = {one.candidate.trial: one.stop_epoch for one in confirmation.finalists}
    assert all(one.stop_epoch == stop_epochs[one.trial] for one in retrained)
    assert opening.payload == {"trial": best["number"], "seeds": [0, 1], "default": list(wanted)[-1]}

    again = ("retrain", "tiny", "--n-seeds", "2", *WORK, *data)
    other = next(trial for trial in trials if trial != best["number"])
    assert run(*again)[0] == 0
    assert run(*again, "--trial", str(other))[0] == 2
    with open_storage(storage_url_sqlite) as storage:
        assert len(load_openings(storage, study)) == 1


def test_a_fold_that_failed_is_predicted_by_the_training_it_had(
    run: Run, generated: Path, storage_url_sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error after the last epoch of a fold: the slot is tried again, from its checkpoint; nothing trains twice."""
    (tmp_path / "tiny.toml").write_text(DEFINITION.replace("n_trials = 2", "n_trials = 1"))
    data = ("--data", str(generated))
    predict, failures = confirm.predict, [ZeroDivisionError("a bug")]

    def buggy(*args: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return predict(*args, **options)

    monkeypatch.setattr(confirm, "predict", buggy)
    assert run("create-study", "tiny.toml", *data)[0] == 0
    assert run("worker", "tiny", *WORK, *data)[0] == 0
    with open_storage(storage_url_sqlite) as storage:
        study = studies.load_study(storage, "tiny")
        outer = slots_of(storage, study, "fold")
        epochs = {slot.slot: epochs_of(storage, study, "confirm", slot.slot) for slot in outer}
        found = finalists.load(storage, study)

    assert sorted(slot.n_claims for slot in outer) == [1, 2]
    assert all({row.token for row in rows} == {1} for rows in epochs.values())
    assert found is not None
    assert found.chosen is not None
    assert found.chosen.candidate.is_default
