"""Outputs of a storage: verified reports, exported models, CSV files."""

import csv
import io
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mhist_tune.cli import main
from tests.report.test_json_keys import FROZEN, keys

Run = Callable[..., tuple[int, str, str]]
ONE = ("--devices", "cpu", "--per-device", "1")

# 24 px, while the images have 32: what is predicted later has to be resized in the same way.
DEFINITION = """
[study]
name = "tiny"
n_trials = 2
sampler = { name = "random", seed = 3 }
pruner = { name = "none" }

[fixed]
model = "test_resnet"
weights = "random"
image_size = 24
epochs = 2
precision = "fp32"
memory_format = "channels_last"

[space]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
"""


@pytest.fixture(scope="module")
def retrained(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage folder with a study that was searched, retrained with two seeds and reported."""
    folder = tmp_path_factory.mktemp("retrained")
    (folder / "tiny.toml").write_text(DEFINITION)
    storage = ("--storage", f"sqlite:///{folder}/storage/study.db")
    data = ("--data", str(generated))
    for command in (
        ("create-study", str(folder / "tiny.toml"), *data),
        ("worker", "tiny", *ONE, *data),
        ("retrain", "tiny", "--n-seeds", "2", *ONE, *data),
        ("report", "tiny"),
    ):
        try:
            main([*command, *storage])
        except SystemExit as left:
            assert not left.code
    return folder / "storage"


@pytest.fixture
def storage(retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Path:
    """A copy of that storage for one test."""
    folder = tmp_path / "copy"
    shutil.copytree(retrained, folder)
    monkeypatch.setenv("MHIST_TUNE_STORAGE", f"sqlite:///{folder}/study.db")
    return folder


def stored_rows(storage: Path) -> list[dict[str, str]]:
    with (storage / "reports" / "tiny" / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_untouched_report_is_repeated_bitwise(run: Run, storage: Path, generated: Path) -> None:
    """Numbers, predictions, training losses and test probabilities agree bitwise on the same machine."""
    code, out, err = run("verify", "tiny", "--json", *ONE, "--data", str(generated))
    document = json.loads(out)

    assert code == 0, err
    assert document["repeated"]
    assert json.dumps(keys(document)) == json.dumps(FROZEN["verify"])
    assert [check["state"] for check in document["checks"] if "scikit-learn" not in check["what"]] == ["bitwise"] * 4
    assert len(document["checks"]) == 5
    assert json.loads(run("status", "tiny", "--json")[1])["test_openings"] == 1, "a verification is no other opening"


def test_a_deleted_study_leaves_nothing_but_its_reports(run: Run, storage: Path) -> None:
    """Weights, test images, pictures and predictions go with the records; a neighbour's files and reports stay."""
    kept = {
        str(path.relative_to(storage)): path
        for path in storage.rglob("*")
        if path.is_file() and path.is_relative_to(storage / "reports")
    }
    folders = ("models", "thumbnails", "artifacts")
    assert all(any(path.is_file() for path in (storage / name).rglob("*")) for name in folders)
    for name in (*(f"{folder}/other-01234567" for folder in folders), "models/tiny-01234567/model.safetensors"):
        kept[name] = storage / name
        kept[name].parent.mkdir(exist_ok=True)
        kept[name].write_text("")
    code, _, err = run("delete-study", "tiny", "--yes")

    assert code == 0, err
    assert all(path.is_file() for path in kept.values())
    left = {
        str(path.relative_to(storage)) for name in folders for path in (storage / name).rglob("*") if path.is_file()
    }
    assert left == {name for name in kept if name.startswith(folders)}


def test_what_does_not_agree_is_named(run: Run, storage: Path, generated: Path) -> None:
    """Predictions changed in the database no longer fit the report, its CSV and the seed's training: exit 1."""
    with sqlite3.connect(storage / "study.db") as connection:
        (blob,) = connection.execute("SELECT probabilities FROM mhist_predictions WHERE stage = 'retrain'").fetchone()
        changed = np.frombuffer(blob).copy()
        changed[3] = changed[3] / 2
        connection.execute(
            "UPDATE mhist_predictions SET probabilities = ? WHERE stage = 'retrain' AND slot = 0", (changed.tobytes(),)
        )
    connection.close()

    code, out, err = run("verify", "tiny", "--json", *ONE, "--data", str(generated))

    assert code == 1
    assert "hint" in err
    states = {check["what"]: check["state"] for check in json.loads(out)["checks"]}
    differing = [what for what, state in states.items() if state == "differs"]
    assert len(differing) == 3
    assert any("training loss" in what for what in states if what not in differing)


def test_an_exported_model_predicts_what_was_reported(run: Run, storage: Path, generated: Path, tmp_path: Path) -> None:
    """On the test images it gives the stored probabilities of seed 0, and the class at the report's threshold."""
    folder = tmp_path / "model"
    assert run("best-trial", "tiny", "--export", str(folder))[0] == 0
    stored = [row for row in stored_rows(storage) if row["seed"] == "0"]
    images = [str(generated / "images" / row["image_name"]) for row in stored]

    code, out, _ = run("predict", str(folder), *images)
    predicted = list(csv.DictReader(io.StringIO(out)))

    assert code == 0
    assert [row["image_name"] for row in predicted] == images
    probabilities = [float(row["probability"]) for row in predicted]
    assert probabilities == pytest.approx([float(row["probability"]) for row in stored], abs=1e-6)
    assert len(set(probabilities)) > 2
    report = json.loads((storage / "reports" / "tiny" / "report.json").read_text())
    threshold = report["held_out"]["threshold"]
    assert [row["predicted"] for row in predicted] == ["SSA" if p > threshold else "HP" for p in probabilities]
    as_json = json.loads(run("predict", str(folder), images[2], "--json")[1])
    assert as_json["threshold"] == threshold
    assert as_json["predictions"][0]["probability"] == pytest.approx(probabilities[2], abs=1e-6)


def test_the_model_card_holds_what_a_user_must_know(run: Run, storage: Path, tmp_path: Path) -> None:
    """Intended use, data, metrics with intervals, limits and preprocessing, with the report's own numbers."""
    folder = tmp_path / "model"
    description = json.loads(run("best-trial", "tiny", "--export", str(folder), "--json")[1])
    card = (folder / "README.md").read_text()
    report = json.loads((storage / "reports" / "tiny" / "report.json").read_text())

    for heading in ("Intended use", "Data", "Metrics", "Limits", "How it was trained", "Identity"):
        assert f"## {heading}\n" in card
    low, high = report["metrics"]["auroc"]["ci95"]
    assert f"{low:.3f} to {high:.3f}" in card
    assert report["methods"] in card
    assert description["weights_sha256"] in card
    assert description == json.loads((folder / "model.json").read_text())
    assert description["preprocessing"]["image_size"] == 24
    assert description["seed"] == 0


def test_weights_that_are_gone_are_made_again(run: Run, storage: Path, generated: Path, tmp_path: Path) -> None:
    """Without weights the export names `verify` as remedy, which trains the seed and keeps its weights."""
    (kept,) = (storage / "models").glob("*/*.safetensors")
    before = kept.read_bytes()
    kept.unlink()

    code, _, err = run("best-trial", "tiny", "--export", str(tmp_path / "model"))
    assert code == 2
    assert "mhist-tune verify tiny" in err
    assert run("verify", "tiny", *ONE, "--data", str(generated))[0] == 0
    assert kept.read_bytes() == before
    assert run("best-trial", "tiny", "--export", str(tmp_path / "model"))[0] == 0


def test_mistakes_with_models_are_one_line(run: Run, storage: Path, generated: Path, tmp_path: Path) -> None:
    """No model, a damaged one, a missing image and a file that is none end with the pinned codes, without traceback."""
    folder = tmp_path / "model"
    run("best-trial", "tiny", "--export", str(folder))
    image = str(next((generated / "images").iterdir()))
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    (damaged / "model.safetensors").write_bytes(b"no weights")
    for arguments, code in [
        ((str(tmp_path), image), 2),
        ((str(damaged), image), 2),
        ((str(folder), str(tmp_path / "none.png")), 3),
        ((str(folder), str(generated / "annotations.csv")), 3),
    ]:
        got, out, err = run("predict", *arguments)
        assert (got, out.count("\n") <= 1) == (code, True), (arguments, err)
        assert err.startswith("error: ")
        assert "Traceback" not in err


def test_records_become_csv_files(run: Run, storage: Path, tmp_path: Path) -> None:
    """Every trial of every stage, every epoch and every prediction is there, to the last bit."""
    folder = tmp_path / "records"
    assert run("export", "tiny", str(folder))[0] == 0
    tables = {}
    for name in ("trials", "epochs", "predictions"):
        with (folder / f"{name}.csv").open(newline="") as file:
            tables[name] = list(csv.DictReader(file))

    assert [row["stage"] for row in tables["trials"]] == ["search"] * 2 + ["retrain"] * 2
    assert all(float(row["params_learning_rate"]) > 0 for row in tables["trials"])
    assert [row["for_seed"] for row in tables["trials"]] == ["", "", "0", "1"]
    of_search = [row for row in tables["epochs"] if row["stage"] == "search"]
    assert [row["epoch"] for row in of_search] == ["1", "2"] * 2
    assert all(row["val_f1"] == row["value"] for row in of_search)
    test = [row for row in tables["predictions"] if row["image_set"] == "test"]
    stored = stored_rows(storage)
    assert [(row["image_name"], row["probability"]) for row in test] == [
        (row["image_name"], row["probability"]) for row in stored
    ]
    assert {row["image_set"] for row in tables["predictions"] if row["stage"] == "search"} == {"val"}
