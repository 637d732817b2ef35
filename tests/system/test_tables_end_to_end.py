"""A table through the command line: trained, described, shown in Optuna, retrained by its best row, not extended."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
from sklearn.metrics import roc_auc_score

from mhist_tune.actions import open_test
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import open_storage
from mhist_tune.storage.predictions import image_rows, predictions_of

Run = Callable[..., tuple[int, str, str]]

TABLE = """
[study]
name = "table"
n_seeds = 2

[fixed]
model = "test_resnet"
weights = "random"
image_size = 32
epochs = 1
precision = "fp32"
memory_format = "contiguous"
micro_batch_size = 16

[[row]]
label = "all"
learning_rate = 1e-3
exclude_votes = []
reported = { val_f1 = 0.6, test_auroc = 0.8, retrained_auroc = 0.9 }

[[row]]
label = "clear"
learning_rate = 1e-2
exclude_votes = [3, 4]
"""


def test_a_table_is_trained_retrained_and_shown(
    run: Run, generated: Path, storage_url_sqlite: str, tmp_path: Path
) -> None:
    """Every row is trained with every seed; the best row's retraining stands beside what is reported for it."""
    path = tmp_path / "table.toml"
    path.write_text(TABLE)
    data = ("--data", str(generated), "--devices", "cpu", "--per-device", "1")
    assert run("create-study", str(path), *data[:2])[0] == 0
    code, _, err = run("extend", "table", "--n-trials", "2")
    assert code == 2
    assert "table of rows" in err
    assert run("worker", "table", *data)[0] == 0

    with open_storage(storage_url_sqlite) as storage:
        trials = optuna.load_study(study_name="table", storage=storage.optuna).trials
    assert [(trial.user_attrs["label"], trial.user_attrs["seed"]) for trial in trials] == [
        ("all", 0),
        ("clear", 0),
        ("all", 1),
        ("clear", 1),
    ]
    assert trials[1].params == {"learning_rate": 1e-2, "exclude_votes": "[3, 4]"}
    best = json.loads(run("best-trial", "table", "--json")[1])
    means = {label: sum(t.value for t in trials if t.user_attrs["label"] == label) / 2 for label in ("all", "clear")}
    assert best["label"] == max(means, key=lambda label: means[label])

    assert run("retrain", "table", "--trial", "0", "--n-seeds", "2", *data)[0] == 0
    document = json.loads(run("report", "table", "--against", "method-report", "--json")[1])
    assert document["columns"] == ["val_f1", "val_auroc", "best_epoch", "retrained_auroc"]
    retrained = document["rows"][0]["ours"]["retrained_auroc"]
    assert len(retrained["per_seed"]) == 2
    assert "retrained_auroc" not in document["rows"][1]["ours"]
    report = json.loads(run("report", "table", "--json")[1])
    assert report["metrics"]["auroc"]["per_seed"] == retrained["per_seed"]


def test_rows_are_described_on_test_by_early_stopped_models(
    run: Run, generated: Path, storage_url_sqlite: str, tmp_path: Path
) -> None:
    """They are the table's own trainings, in one opening; shown beside reported test numbers, and never a result."""
    path = tmp_path / "table.toml"
    path.write_text(TABLE)
    data = ("--data", str(generated), "--devices", "cpu", "--per-device", "1")
    assert run("create-study", str(path), *data[:2])[0] == 0
    code, _, err = run("retrain", "table", "--with-validation", *data)
    assert (code, "4 unfinished" in err) == (2, True)
    assert run("worker", "table", *data)[0] == 0

    for _ in range(2):  # the same rows and seeds are the same opening
        assert run("retrain", "table", "--with-validation", *data)[0] == 0
    found = json.loads(run("status", "table", "--json")[1])
    assert (found["test_openings"], found["stages"]["descriptive"]) == (1, {"done": 4})
    with open_storage(storage_url_sqlite) as storage:
        study = studies.load_study(storage, "table")
        searched = predictions_of(storage, study, "search", "val")
        again = predictions_of(storage, study, "descriptive", "val")
        assert all(np.array_equal(searched[slot], again[slot]) for slot in range(4))
        on_test = predictions_of(storage, study, "descriptive", "test")
        labels = image_rows(storage, study, "test").labels
    document = json.loads(run("report", "table", "--against", "method-report", "--json")[1])
    assert document["columns"] == ["val_f1", "val_auroc", "best_epoch", "test_auroc"]
    assert document["descriptive"] == ["test_auroc"]
    expected = [roc_auc_score(labels, on_test[slot]) for slot in (0, 2)]
    assert document["rows"][0]["ours"]["test_auroc"]["per_seed"] == pytest.approx(expected)
    text = run("report", "table", "--against", "method-report")[1]
    assert "test_auroc (descriptive)" in text
    assert "No choice rests on them" in text

    assert run("report", "table")[0] == 2  # nothing was retrained
    assert run("retrain", "table", "--n-seeds", "2", *data)[0] == 2  # another opening needs a reason
    assert run("retrain", "table", "--n-seeds", "2", "--again", "the result", *data)[0] == 0
    report = json.loads(run("report", "table", "--json")[1])
    assert [one["descriptive"] for one in report["test_openings"]] == [[0, 1], []]
    assert report["n_seeds"] == 2
    assert "opened 2 times, 1 of them before that choice was recorded" in report["methods"]
    assert "descriptive: early-stopped models of 2 rows, 2 seeds" in run("report", "table")[1]


def test_only_listed_rows_of_a_table_are_described(
    run: Run, generated: Path, storage_url_sqlite: str, tmp_path: Path
) -> None:
    """Any trial names its row; several without --with-validation, and a search with it, are refused."""
    path = tmp_path / "table.toml"
    path.write_text(TABLE)
    data = ("--data", str(generated), "--devices", "cpu", "--per-device", "1")
    assert run("create-study", str(path), *data[:2])[0] == 0
    assert run("worker", "table", *data)[0] == 0
    assert run("create-study", "demo", *data[:2])[0] == 0
    assert "is a search" in run("retrain", "demo", "--with-validation", *data)[2]
    assert "one trial" in run("retrain", "table", "--trial", "0", "--trial", "1", *data)[2]
    assert "trial 9" in run("retrain", "table", "--with-validation", "--trial", "9", *data)[2]

    with open_storage(storage_url_sqlite) as storage:
        study = studies.load_study(storage, "table")
        open_test.open_rows(storage, study, data_root=generated, trials=[3], n_seeds=2)
        slots = ledger.slots(storage, study, "descriptive")
    assert [(slot.payload.label, slot.payload.trial, slot.payload.seed) for slot in slots] == [
        ("clear", 1, 0),
        ("clear", 1, 1),
    ]
