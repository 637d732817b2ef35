"""Weight files: compared at every load, and refused before a study exists if no trial could be trained from them."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.errors import UsageError
from mhist_tune.training import models, weight_files


def hyperparameters(**options: Any) -> Hyperparameters:
    return Hyperparameters(**{"model": "test_resnet", "weights": "random", "image_size": 32} | options)


def saved(folder: Path, *, n_classes: int = 1000, **changes: torch.Tensor) -> Path:
    """Write random weights of test_resnet, some tensors changed."""
    torch.manual_seed(5)
    path = folder / "weights.safetensors"
    tensors = timm.create_model("test_resnet", num_classes=n_classes).state_dict()
    save_file({name: changes.get(name, tensor).contiguous() for name, tensor in tensors.items()}, path)
    return path


def test_names_of_a_run(tmp_path: Path) -> None:
    """`weights` and timm's checkpoint_path are files; without them the model is the same."""
    hp = hyperparameters(weights="a.safetensors", model_options={"checkpoint_path": "b.pth", "base_width": 64})
    assert weight_files.names(hp) == ["a.safetensors", "b.pth"]
    assert weight_files.names(hyperparameters()) == weight_files.names(hyperparameters(weights="pretrained")) == []
    renamed = weight_files.renamed(hp, {"a.safetensors": "/x.safetensors", "b.pth": "/y.pth"})
    assert weight_files.names(renamed) == ["/x.safetensors", "/y.pth"]
    assert weight_files.without(hp) == hyperparameters(model_options={"base_width": 64})


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    """It is the SHA-256; what cannot be read, or never ends, is a usage error."""
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"weights")
    assert weight_files.sha256_of(str(path)) == hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(UsageError, match="cannot read the weights"):
        weight_files.sha256_of(str(tmp_path / "absent.safetensors"))
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(UsageError, match="not a regular file"):
        weight_files.sha256_of(str(tmp_path / "pipe.safetensors"))


@pytest.mark.parametrize("route", ["weights", "checkpoint_path"])
def test_a_changed_file_is_noticed_at_the_next_load(tmp_path: Path, route: str) -> None:
    """One other value in the file, with the right names and shapes, does not become a model."""
    path = saved(tmp_path, n_classes=1)
    name = weight_files.pinned(path, weight_files.sha256_of(str(path)))
    hp = hyperparameters(weights=name) if route == "weights" else hyperparameters(model_options={route: name})
    models.check(hp)
    first = models.create_model(hp).state_dict()
    assert torch.equal(first["conv1.0.weight"], load_file(path)["conv1.0.weight"])

    saved(tmp_path, n_classes=1, **{"conv1.0.weight": first["conv1.0.weight"] + 1})
    with pytest.raises(UsageError, match="were changed: their SHA-256 is"):
        models.create_model(hp)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("route", ["weights", "checkpoint_path"])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, route: str, value: float) -> None:
    """Every trial would diverge, and the whole budget with it."""
    weight = timm.create_model("test_resnet").state_dict()["conv1.0.weight"]
    weight[0, 0, 0, 0] = value
    path = str(saved(tmp_path, n_classes=1, **{"conv1.0.weight": weight}))
    hp = hyperparameters(weights=path) if route == "weights" else hyperparameters(model_options={route: path})
    with pytest.raises(UsageError, match=r"1 of \d+ tensors .* not finite, first conv1\.0\.weight"):
        models.check(hp)


@pytest.mark.parametrize("kind", [torch.int8, torch.int64])
def test_whole_numbers_are_refused(tmp_path: Path, kind: torch.dtype) -> None:
    """A quantized file would be converted without a word."""
    weight = torch.ones(timm.create_model("test_resnet").state_dict()["conv1.0.weight"].shape, dtype=kind)
    with pytest.raises(UsageError, match=r"conv1\.0\.weight consists of whole numbers"):
        models.check(hyperparameters(weights=str(saved(tmp_path, **{"conv1.0.weight": weight}))))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_every_floating_format_is_taken(tmp_path: Path, kind: torch.dtype) -> None:
    """Weights in half or double precision are converted."""
    weight = timm.create_model("test_resnet").state_dict()["conv1.0.weight"].to(kind)
    models.check(hyperparameters(weights=str(saved(tmp_path, **{"conv1.0.weight": weight}))))


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "cannot load|cannot read"), (b"junk" * 9, "cannot load|cannot read"), (None, "read")]
)
@pytest.mark.parametrize("route", ["weights", "checkpoint_path"])
def test_what_is_no_weight_file_is_one_line(tmp_path: Path, route: str, content: bytes | None, message: str) -> None:
    """An empty, damaged or absent file by either route."""
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    hp = hyperparameters(weights=str(path)) if route == "weights" else hyperparameters(model_options={route: str(path)})
    with pytest.raises(UsageError, match=message) as caught:
        models.check(hp)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    """Its head has a thousand classes; timm loads all of it or nothing."""
    with pytest.raises(UsageError, match=r"size mismatch for fc\.weight"):
        models.check(hyperparameters(model_options={"checkpoint_path": str(saved(tmp_path))}))


@pytest.mark.parametrize("option", ["pretrained_cfg", "pretrained_cfg_overlay"])
def test_no_other_option_names_weights(option: str) -> None:
    """A file by timm's configuration would be neither hashed nor checked."""
    hp = hyperparameters(weights="pretrained", model_options={option: {"file": "w.safetensors"}})
    with pytest.raises(UsageError, match=f"model_options.{option} names weights by file"):
        models.check(hp)


def test_options_are_checked_where_they_are_declared() -> None:
    """The path of a checkpoint is text."""
    with pytest.raises(ValueError, match="checkpoint_path must be the path of a file, got 5"):
        hyperparameters(model_options={"checkpoint_path": 5})
    assert json.loads(json.dumps(hyperparameters().to_dict()))["model_options"] == {}
