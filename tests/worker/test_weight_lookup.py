"""A study's weight file is found by its content, wherever a worker has it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
from safetensors.torch import load_file, save_file

from mhist_tune.storage.database import open_storage
from mhist_tune.storage.studies import load_study

Run = Callable[..., tuple[int, str, str]]

DEFINITION = """
[study]
name = "tiny"
n_trials = 1

[fixed]
model = "test_resnet"
weights = "w.safetensors"
image_size = 32
epochs = 1
precision = "fp32"
memory_format = "contiguous"

[space]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a definition and the weight file beside it, which is not the working directory."""
    folder = tmp_path / "definitions"
    folder.mkdir()
    (folder / "tiny.toml").write_text(DEFINITION)
    tensors = timm.create_model("test_resnet").state_dict()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "w.safetensors")
    return folder


def test_a_file_of_a_definition_is_found_from_any_working_directory(
    run: Run, folder: Path, generated: Path, storage_url_sqlite: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its path starts from the definition's folder, and its hash is stored; another way to the folder is the same."""
    data = ("--data", str(generated))
    assert run("create-study", "definitions/tiny.toml", *data)[0] == 0
    monkeypatch.chdir(folder)
    assert run("create-study", "tiny.toml", *data)[0] == 0
    assert run("create-study", "../definitions/tiny.toml", *data)[0] == 0
    with open_storage(storage_url_sqlite) as storage:
        study = load_study(storage, "tiny")
    assert study.definition.fixed["weights"] == str(folder / "w.safetensors")
    assert list(study.dataset["weight_files"]) == [str(folder / "w.safetensors")]
    monkeypatch.chdir(tmp_path)
    assert run("worker", "tiny", *data, "--devices", "cpu", "--per-device", "1")[0] == 0


def test_a_worker_says_where_it_looked_and_takes_another_path(
    run: Run, folder: Path, generated: Path, tmp_path: Path
) -> None:
    """Moved and renamed, the file is given with --weights; a file of other content is not taken for it."""
    data = ("--data", str(generated))
    work = (*data, "--devices", "cpu", "--per-device", "1")
    assert run("create-study", "definitions/tiny.toml", *data)[0] == 0
    moved = (folder / "w.safetensors").rename(tmp_path / "elsewhere.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(moved).items()}, other)

    unnamed = tmp_path / "elsewhere.bin"
    unnamed.symlink_to(moved)

    code, _, err = run("worker", "tiny", *work, "--weights", str(other), "--weights", str(unnamed))
    assert code == 3
    assert f"{other} is another file" in err
    assert f"{unnamed} does not end with .safetensors" in err
    assert str(folder / "w.safetensors") in err
    assert "--weights FILE" in err
    assert "Traceback" not in err

    assert run("worker", "tiny", *work, "--weights", str(other), "--weights", str(moved))[0] == 0
    code, _, err = run("retrain", "tiny", "--n-seeds", "2", *work, "--weights", str(moved))
    assert code == 0, err


def test_a_changed_file_is_refused(run: Run, folder: Path, generated: Path) -> None:
    """With the right name and shapes, but other values, the study goes no further, nor is it created again."""
    data = ("--data", str(generated))
    assert run("create-study", "definitions/tiny.toml", *data)[0] == 0
    path = folder / "w.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    code, _, err = run("worker", "tiny", *data, "--devices", "cpu", "--per-device", "1")
    assert code == 3
    assert f"{path} is another file" in err
    code, _, err = run("create-study", "definitions/tiny.toml", *data)
    assert code == 3
    assert "another content of its weight file" in err


def test_run_takes_the_file_for_a_new_study(run: Run, folder: Path, generated: Path) -> None:
    """As with create-study, the file replaces the definition's weights."""
    (folder / "tiny.toml").write_text(DEFINITION.replace('"w.safetensors"', '"pretrained"'))
    arguments = ("--data", str(generated), "--devices", "cpu", "--per-device", "1")
    code, _, err = run("run", "definitions/tiny.toml", *arguments, "--weights", "definitions/w.safetensors")
    assert code == 0, err
