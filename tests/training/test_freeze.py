"""Tests of mhist_tune.training.freeze, through the models that it freezes."""

from typing import Any

import pytest
import torch
from torch import nn

from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.errors import UsageError
from mhist_tune.training import models
from mhist_tune.training.freeze import set_training
from mhist_tune.training.optimizer import build_optimizer


def hyperparameters(model: str, freeze: str, **options: Any) -> Hyperparameters:
    given = {"model": model, "freeze": freeze, "weights": "random", "image_size": 32, "precision": "fp32"}
    return Hyperparameters(**given | options)


def learning(model: str, freeze: str) -> set[str]:
    """Return the first two parts of the names of all parameters that learn."""
    with torch.device("meta"):
        built = models.create_model(hyperparameters(model, freeze))
    return {".".join(n.split(".")[:2]) for n, parameter in built.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("model", ["resnet18", "test_vit", "fcnn"])
def test_nothing_is_frozen_by_default(model: str) -> None:
    """With none every parameter learns."""
    built = models.create_model(hyperparameters(model, "none"))

    assert all(parameter.requires_grad for parameter in built.parameters())


@pytest.mark.parametrize(
    ("model", "freeze", "expected"),
    [
        ("resnet18", "all_but_head", {"fc.weight", "fc.bias"}),
        ("resnet18", "first3", {"layer4.0", "layer4.1", "fc.weight", "fc.bias"}),
        ("resnet18", "first4", {"fc.weight", "fc.bias"}),
        ("test_vit", "all_but_head", {"head.weight", "head.bias"}),
        ("test_vit", "first5", {"blocks.5", "norm.weight", "norm.bias", "head.weight", "head.bias"}),
        ("fcnn", "stem", {"features.3", "features.5", "head.weight", "head.bias"}),
        ("fcnn", "first1", {"features.5", "head.weight", "head.bias"}),
        ("fcnn", "all_but_head", {"head.weight", "head.bias"}),
    ],
)
def test_what_still_learns(model: str, freeze: str, expected: set[str]) -> None:
    """The stem and the first N stages of a ResNet, blocks of a ViT, or layers of the fcnn are frozen, no more."""
    assert learning(model, freeze) == expected


def test_the_stem_of_a_vit() -> None:
    """Patches, position and class token are frozen, no block is."""
    assert learning("test_vit", "stem") == {f"blocks.{block}" for block in range(6)} | {
        "norm.weight",
        "norm.bias",
        "head.weight",
        "head.bias",
    }


@pytest.mark.parametrize("model", ["resnet18", "test_vit", "fcnn"])
def test_more_blocks_than_there_are_is_refused(model: str) -> None:
    """The message gives the number of blocks, also in create-study."""
    with pytest.raises(UsageError, match=r"cannot freeze first40: it has \d+ blocks or stages") as caught:
        models.check(hyperparameters(model, "first40"))
    assert caught.value.hint


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize(
    ("model", "freeze"), [("test_vit", "first2"), ("test_resnet", "first1"), ("test_resnet", "all_but_head")]
)
def test_frozen_weights_and_statistics_do_not_change(model: str, freeze: str, optimizer: str) -> None:
    """After updates with decay the frozen tensors are the same bit by bit, BatchNorm's statistics among them."""
    hp = hyperparameters(model, freeze, optimizer=optimizer, weight_decay=0.1, learning_rate=0.1, layer_decay=0.9)
    torch.manual_seed(0)
    built = models.create_model(hp)
    set_training(built)
    before = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    update = build_optimizer(built, hp)
    for _ in range(3):
        update.zero_grad()
        torch.autograd.backward(nn.functional.softplus(built(torch.rand(4, 3, 32, 32))).sum())
        update.step()

    changed = {name for name, tensor in built.state_dict().items() if not torch.equal(tensor, before[name])}
    learns = {name for name, parameter in built.named_parameters() if parameter.requires_grad}
    modules = dict(built.named_modules())
    moves = {
        f"{name}.{buffer}"
        for name, module in modules.items()
        if isinstance(module, nn.BatchNorm2d) and module.weight.requires_grad
        for buffer in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert changed <= learns | moves
    assert moves <= changed
    assert "head.weight" in changed or "fc.weight" in changed


def test_frozen_batch_norm_does_not_couple_images() -> None:
    """With all BatchNorm frozen an image's logit in training is its own, and one image is a legal micro-batch."""
    hp = hyperparameters("test_resnet", "all_but_head", micro_batch_size=1)
    built = models.create_model(hp)
    set_training(built)
    images = torch.rand(4, 3, 32, 32)

    assert not models.has_batch_norm(built)
    assert models.has_batch_norm(models.create_model(hyperparameters("test_resnet", "stem")))
    torch.testing.assert_close(built(images)[:1], built(images[:1]), atol=1e-5, rtol=1e-5)
    models.check(hp)
