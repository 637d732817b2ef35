"""The packaged tables: each is created and begun on generated images, and its reported numbers are consistent."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mhist_tune.definition import files
from mhist_tune.definition import study_file as definitions
from mhist_tune.storage import studies
from mhist_tune.storage.database import open_storage

Run = Callable[..., tuple[int, str, str]]

TABLES = sorted(name for name in files.packaged() if name.startswith("report-"))
TINY = {
    "resnet18": {"model": "test_resnet", "micro_batch_size": "8"},
    "vit_base_patch16_224": {"model": "test_vit3", "micro_batch_size": "8"},  # nine blocks, as many as a row drops
    "fcnn": {},
}


def test_every_table_of_the_report_has_a_file() -> None:
    """One file for each table that the method report compares configurations in."""
    expected = (
        "augmentation balancing balancing-exclusions batch-size dropout exclusions fcnn grad-accumulation "
        "learning-rate no-validation paper pretrained training-size weight-decay"
    )
    assert [f"report-{name}" for name in expected.split()] == TABLES


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_what_it_asks_and_where_its_numbers_are_from(name: str) -> None:
    """It carries its file's name, all headings, several rows that differ, and a reported number in every row."""
    table = definitions.load(name)

    assert table.name == name
    for heading in ("# Source ", "# Question ", "# Scientific ", "# Nuisance ", "# Fixed "):
        assert heading in table.text
    assert len({json.dumps(row.params) for row in table.rows}) == len(table.rows) >= 2
    assert all(row.reported for row in table.rows)
    assert table.n_trials == 3 * len(table.rows)


@pytest.mark.parametrize("name", TABLES)
def test_reported_numbers_fit_together(name: str) -> None:
    """F1 follows from precision and recall and balanced accuracy from recall and specificity: no slip in copying."""
    for row in definitions.load(name).rows:
        for prefix in ("test", "retrained"):
            numbers = {key.removeprefix(f"{prefix}_"): value for key, value in row.reported.items()}
            if f"{prefix}_recall" not in row.reported:
                continue
            precision, recall = numbers["precision"], numbers["recall"]
            assert numbers["balanced_accuracy"] == pytest.approx((recall + numbers["specificity"]) / 2, abs=1.1e-3)
            # one row holds means over ten seeds, where F1 is only near the F1 of the means
            assert numbers["f1"] == pytest.approx(2 * precision * recall / (precision + recall), abs=2.5e-3)
        for key, value in row.reported.items():
            assert 0 < value <= 1 or key.endswith("loss_sum") or key == "best_epoch"


@pytest.mark.parametrize("name", TABLES)
def test_a_table_runs(run: Run, generated: Path, storage_url_sqlite: str, name: str) -> None:
    """With a tiny model its first two rows are trained, and stand beside what is reported for them."""
    model = definitions.load(name).default_params().get("model") or definitions.load(name).fixed["model"]
    settings = {"weights": "random", "image_size": "32", "epochs": "1", "precision": "fp32", "n_per_class": "4"}
    settings["memory_format"] = "contiguous"  # nothing is left to be probed
    overrides = [f"--set={key}={value}" for key, value in {**settings, **TINY[model]}.items()]
    data = ("--data", str(generated))
    code, _, err = run("create-study", name, "--n-trials", "2", *overrides, *data)
    assert code == 0, err
    with open_storage(storage_url_sqlite) as storage:
        assert len(studies.load_study(storage, name).definition.rows) == len(definitions.load(name).rows)

    code, _, err = run("worker", name, "--devices", "cpu", "--per-device", "1", *data)
    assert code == 0, err
    code, out, err = run("report", name, "--against", "method-report", "--json")
    assert code == 0, err
    document = json.loads(out)

    first, second, *others = document["rows"]
    labels = [row.label for row in definitions.load(name).rows]
    assert [row["label"] for row in document["rows"]] == labels
    assert (first["n_seeds"], second["n_seeds"], [row["n_seeds"] for row in others]) == (1, 1, [0] * len(others))
    assert first["ours"]["val_f1"]["std"] is None
    assert 0 <= first["ours"]["val_f1"]["mean"] <= 1
    assert document["columns"] == ["val_f1", "val_auroc", "best_epoch"]
    assert json.loads(run("status", name, "--json")[1])["trials"] == {"COMPLETE": 2, "PRUNED": 0, "FAIL": 0}
