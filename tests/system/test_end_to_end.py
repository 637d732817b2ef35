"""The main job through the command line, on generated images."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

Run = Callable[..., tuple[int, str, str]]

DEFINITION = """
[study]
name = "tiny"
n_trials = 4
sampler = { name = "random", seed = 3 }
pruner = { name = "median", n_startup_trials = 2, n_warmup_epochs = 1 }
lease_s = 2.0

[fixed]
model = "test_resnet"
weights = "random"
image_size = 32
epochs = 3
precision = "fp32"
memory_format = "contiguous"
augmentation = "flip"

[space]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
sampling = { choices = ["none", "random_over"] }

[[start]]
learning_rate = 1e-3
sampling = "none"
"""


@pytest.fixture
def definition(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(DEFINITION)
    return path


def test_search_retrain_report(run: Run, definition: Path, generated: Path, tmp_path: Path) -> None:
    """Create, search, retrain with three seeds, report: every pinned key is there and AUROC is scikit-learn's own.

    Only this user may read what is left in the storage: the database, images, weights and predictions.
    """
    data = ("--data", str(generated))
    assert run("create-study", str(definition), *data)[0] == 0
    assert run("worker", "tiny", "--devices", "cpu", "--per-device", "1", *data)[0] == 0
    status = json.loads(run("status", "tiny", "--json")[1])
    best = json.loads(run("best-trial", "tiny", "--json")[1])
    assert run("retrain", "tiny", "--n-seeds", "3", "--devices", "cpu", "--per-device", "1", *data)[0] == 0
    code, out, _ = run("report", "tiny", "--json", "--output", str(tmp_path / "report"))
    report = json.loads(out)

    assert code == 0
    assert status["stages"]["search"] == {"done": 4}
    assert sum(status["trials"].values()) == 4
    assert report["trial"]["number"] == best["number"]
    assert report["n_seeds"] == 3
    assert len(report["test_openings"]) == 1
    rows = np.genfromtxt(report["predictions"], delimiter=",", names=True, dtype=None, encoding="utf-8")
    for seed, auroc in zip(report["seeds"], report["metrics"]["auroc"]["per_seed"], strict=True):
        of_seed = rows[rows["seed"] == seed]
        assert auroc == pytest.approx(roc_auc_score(of_seed["label"], of_seed["probability"]))
    assert "AUROC" in run("report", "tiny", "--output", str(tmp_path / "report"))[1]
    storage = tmp_path / "storage"
    private = [storage, *storage.glob("*.db*")]
    for folder in ("cache", "models", "thumbnails", "artifacts"):
        private += [path for path in (storage / folder).rglob("*") if path.suffix != ".lock"]
    assert {path.suffix for path in private} >= {".db", ".npy", ".safetensors", ".zip"}
    assert [path for path in private if path.stat().st_mode & 0o077] == []


def test_a_second_opening_needs_a_reason(run: Run, definition: Path, generated: Path) -> None:
    """The same trial and seeds are the same opening; another set is refused without --again, and recorded with it."""
    data = ("--data", str(generated), "--devices", "cpu", "--per-device", "1")
    run("create-study", str(definition), "--n-trials", "2", *data[:2])
    run("worker", "tiny", *data)
    assert run("retrain", "tiny", "--n-seeds", "2", *data)[0] == 0
    assert run("retrain", "tiny", "--n-seeds", "2", *data)[0] == 0
    assert run("retrain", "tiny", "--n-seeds", "3", *data)[0] == 2
    assert json.loads(run("status", "tiny", "--json")[1])["test_openings"] == 1

    assert run("retrain", "tiny", "--n-seeds", "3", "--again", "one more seed", *data)[0] == 0
    assert json.loads(run("status", "tiny", "--json")[1])["test_openings"] == 2


def test_search_does_not_notice_a_missing_test_partition(
    run: Run, definition: Path, generated: Path, tmp_path: Path
) -> None:
    """With every test image deleted the search runs to its end; only retraining ends, with exit code 3."""
    root = tmp_path / "train-only"
    shutil.copytree(generated, root)
    for line in (root / "annotations.csv").read_text().splitlines():
        name, *_, partition = line.split(",")[:4]
        if partition == "test":
            (root / "images" / name).unlink()
    data = ("--data", str(root), "--devices", "cpu", "--per-device", "1")
    assert run("create-study", str(definition), *data[:2])[0] == 0
    assert run("worker", "tiny", *data)[0] == 0

    code, _, err = run("retrain", "tiny", "--n-seeds", "2", *data)

    assert code == 3
    assert "Traceback" not in err
    assert json.loads(run("status", "tiny", "--json")[1])["test_openings"] == 0


def test_other_images_are_refused(run: Run, definition: Path, generated: Path, tmp_path: Path) -> None:
    """A worker whose train images differ from the study's ends with exit code 3 and leaves every slot free."""
    run("create-study", str(definition), "--data", str(generated))
    other = tmp_path / "other"
    shutil.copytree(generated, other)
    changed = next(
        line.split(",")[0] for line in (other / "annotations.csv").read_text().splitlines() if ",train" in line
    )
    shutil.copy(next(path for path in (other / "images").iterdir() if path.name != changed), other / "images" / changed)

    assert run("worker", "tiny", "--devices", "cpu", "--per-device", "1", "--data", str(other))[0] == 3
    assert json.loads(run("status", "tiny", "--json")[1])["stages"]["search"] == {"free": 4}


def test_a_name_belongs_to_one_definition(run: Run, definition: Path, generated: Path) -> None:
    """Creating the same study again changes nothing; another definition under its name is refused."""
    arguments = ("create-study", str(definition), "--data", str(generated))
    assert run(*arguments)[0] == 0
    assert run(*arguments)[0] == 0
    assert run(*arguments, "--set", "epochs=2")[0] == 2
    assert json.loads(run("status", "tiny", "--json")[1])["stages"]["search"] == {"free": 4}


def worker_process(generated: Path, storage: str, *more: str) -> subprocess.Popen[str]:
    """Start a real worker whose events are lines on its stderr."""
    command = [sys.executable, "-m", "mhist_tune", "worker", "tiny", "--devices", "cpu", "--per-device", "1", *more]
    environment = {**os.environ, "MHIST_TUNE_STORAGE": storage, "MHIST_TUNE_DATA": str(generated)}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    """Read the process's events up to the first that contains a word."""
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return
    raise AssertionError(f"the worker ended before {word}")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_worker_is_resumed(
    run: Run, definition: Path, generated: Path, storage_url_sqlite: str, tmp_path: Path, signum: int, code: int
) -> None:
    """Killed or stopped in the middle of a trial and started again, the search records what an undisturbed one does."""
    text = DEFINITION.replace('name = "median", n_startup_trials = 2, n_warmup_epochs = 1', 'name = "none"')
    definition.write_text(text)
    data = ("--data", str(generated))
    run("create-study", str(definition), *data)
    process = worker_process(generated, storage_url_sqlite)
    wait_for(process, "event=epoch")
    process.send_signal(signum)
    process.communicate()

    assert process.returncode == code
    assert run("worker", "tiny", "--devices", "cpu", "--per-device", "1", *data)[0] == 0
    undisturbed = f"sqlite:///{tmp_path}/undisturbed/study.db"
    run("create-study", str(definition), *data, "--storage", undisturbed)
    run("worker", "tiny", "--devices", "cpu", "--per-device", "1", *data, "--storage", undisturbed)
    first = json.loads(run("status", "tiny", "--json")[1])
    second = json.loads(run("status", "tiny", "--json", "--storage", undisturbed)[1])
    assert first["trials"] == second["trials"] == {"COMPLETE": 4, "PRUNED": 0, "FAIL": 0}
    assert first["best"] == second["best"]
