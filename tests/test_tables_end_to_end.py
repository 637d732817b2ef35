"""A table through the command line: trained, shown in Optuna, retrained by its best row, and not extended."""

import json
from collections.abc import Callable
from pathlib import Path

import optuna

from mhist_tune.storage import open_storage

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
reported = { val_f1 = 0.6, retrained_auroc = 0.9 }

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
