"""Tests of mhist_tune.training.models."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import nn

from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.errors import UsageError
from mhist_tune.training import models


def hyperparameters(model: str = "test_vit", **options: Any) -> Hyperparameters:
    return Hyperparameters(**{"model": model, "weights": "random", "image_size": 32, "drop_rate": 0.3} | options)


def dropouts(placement: str, model: str = "vit_tiny_patch16_224") -> set[str]:
    """Return the names of the dropouts that act, and check that each has the rate."""
    hp = hyperparameters(model, dropout_placement=placement, image_size=224)
    with torch.device("meta"):
        built = models.create_model(hp)
    active = {
        name: module.p for name, module in built.named_modules() if isinstance(module, nn.Dropout) and module.p > 0
    }
    assert set(active.values()) <= {0.3}
    return set(active)


def of_blocks(*blocks: int, mlp_only: bool = False) -> set[str]:
    parts = ["mlp.drop1", "mlp.drop2"] + ([] if mlp_only else ["attn.attn_drop", "attn.proj_drop"])
    return {f"blocks.{block}.{part}" for block in blocks for part in parts}


@pytest.mark.parametrize("model", ["test_vit", "test_resnet", "efficientnet_b0"])
def test_every_model_starts_with_a_small_head(model: str) -> None:
    """One that is uniform in +-1 would wash pretrained weights out; without a bias nothing is foretold."""
    parts: Any = models.create_model(hyperparameters(model=model))
    head = parts.get_classifier()
    assert head.weight.std().item() == pytest.approx(models.HEAD_DEVIATION, rel=0.35)
    assert head.weight.abs().max() < 0.1
    assert not head.bias.any()


def test_a_head_may_have_no_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights are drawn all the same."""
    model, head = torch.nn.Module(), torch.nn.Linear(1000, 1, bias=False)
    monkeypatch.setattr(model, "get_classifier", lambda: head, raising=False)
    models._renew_head(model)
    assert head.weight.std().item() == pytest.approx(models.HEAD_DEVIATION, rel=0.35)


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        ("none", set()),
        ("head", {"head_drop"}),
        ("head+last1.mlp", {"head_drop"} | of_blocks(11, mlp_only=True)),
        ("head+last2.mlp", {"head_drop"} | of_blocks(10, 11, mlp_only=True)),
        ("head+last1", {"head_drop"} | of_blocks(11)),
        ("head+last2", {"head_drop"} | of_blocks(10, 11)),
        ("head+last5", {"head_drop"} | of_blocks(7, 8, 9, 10, 11)),
        ("head+last9", {"head_drop"} | of_blocks(*range(3, 12))),
        ("pos", {"pos_drop"}),
    ],
)
def test_each_placement_in_a_vit_of_twelve_blocks(placement: str, expected: set[str]) -> None:
    """Exactly the documented dropouts act, module by module."""
    assert dropouts(placement) == expected


def test_placements_count_from_the_end() -> None:
    """In a ViT of six blocks last2 means the blocks 4 and 5."""
    assert dropouts("head+last2", "test_vit") == {"head_drop"} | of_blocks(4, 5)


def test_a_placed_dropout_acts_on_the_output() -> None:
    """Attention dropout set after building is really used: two passes differ in training, not in evaluation."""
    torch.manual_seed(0)
    model = models.create_model(hyperparameters(dropout_placement="head+last1"))
    nn.init.normal_(model.get_parameter("head.weight"))
    model.get_submodule("head_drop").eval()
    images = torch.rand(2, 3, 32, 32)

    first, second = model.train()(images), model(images)
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("model", ["resnet18", "test_resnet", "test_efficientnet", "test_convnext", "fcnn", "test_vit"])
def test_head_dropout_fits_every_model(model: str) -> None:
    """With placement head the logits are random in training; with none they are not."""
    images = torch.rand(4, 3, 32, 32)
    is_random = {}
    for placement in ("none", "head"):
        torch.manual_seed(0)
        built = models.create_model(hyperparameters(model, dropout_placement=placement))
        for module in built.modules():
            if isinstance(module, nn.Linear) and module.out_features == 1:
                nn.init.normal_(module.weight)
        is_random[placement] = not torch.equal(built.train()(images), built(images))

    assert is_random == {"none": False, "head": True}


@pytest.mark.parametrize("model", ["resnet18", "vit_base_patch16_224", "fcnn", "tf_efficientnet_lite0"])
def test_one_logit_of_images_of_the_chosen_size(model: str) -> None:
    """Every model takes the study's image size and gives one logit for each image."""
    with torch.device("meta"):
        built = models.create_model(hyperparameters(model, image_size=64))

    assert built(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 1)


def test_fcnn_is_the_documented_one() -> None:
    """The flattened image goes through 128, 64 and 32 units to one logit."""
    model = models.create_model(hyperparameters("fcnn", image_size=8))

    linear = [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)]
    assert linear == [(192, 128), (128, 64), (64, 32), (32, 1)]


def test_input_statistics() -> None:
    """The statistics are those of the weights; fcnn uses one half."""
    assert models.input_statistics(hyperparameters("resnet18")) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert models.input_statistics(hyperparameters("vit_base_patch16_224")) == ((0.5,) * 3, (0.5,) * 3)
    assert models.input_statistics(hyperparameters("fcnn")) == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(("model", "expected"), [("test_resnet", True), ("test_vit", False), ("fcnn", False)])
def test_has_batch_norm(model: str, expected: bool) -> None:
    """Only models whose images influence each other have it."""
    assert models.has_batch_norm(models.create_model(hyperparameters(model))) is expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet81"}, 'no model "resnet81" .did you mean'),
        ({"model": "resnet18.nope"}, "Invalid pretrained tag"),
        (
            {"model": "resnet18", "dropout_placement": "head+last1"},
            'no dropout placement "head.last1": it has 0 blocks',
        ),
        ({"model": "resnet18", "dropout_placement": "pos"}, 'no dropout placement "pos"'),
        ({"model": "tf_efficientnet_lite0", "dropout_placement": "head+last1"}, "no dropout placement"),
        ({"model": "tf_efficientnet_lite0", "dropout_placement": "head+last1.mlp"}, "no dropout placement"),
        ({"model": "fcnn", "dropout_placement": "pos"}, "no dropout placement"),
        ({"model": "test_vit", "dropout_placement": "head+last7"}, "it has 6 blocks"),
        ({"model": "resnet18", "model_options": {"widht": 2}}, "refuses its options"),
        ({"model": "resnet18", "model_options": {"base_width": 32}}, "refuses its options"),
        ({"model": "resnet18", "micro_batch_size": 1}, "BatchNorm"),
        ({"model": "test_vit", "image_size": 8}, "does not take images of 8 px"),
        ({"model": "fcnn", "weights": "pretrained"}, "fcnn has no weights"),
        ({"model": "fcnn", "weights": "x.safetensors"}, "fcnn has no weights"),
        ({"model": "test_vit", "weights": "absent.safetensors"}, "cannot read the weights absent.safetensors"),
        ({"model": "hf-hub:nobody/nothing"}, "unreachable"),
    ],
)
def test_check_refuses_what_cannot_be_built(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mistake is one error with a hint, found without weights or memory."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=message) as caught:
        models.check(hyperparameters(**options))
    assert caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("build", [models.check, models.create_model])
def test_pretrained_weights_without_a_hub(build: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With nothing cached and the hub unreachable, the error names the remedy."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(UsageError, match="no pretrained weights for test_resnet") as caught:
        build(hyperparameters("test_resnet", weights="pretrained"))
    assert "--weights FILE" in str(caught.value.hint)


def test_check_passes_what_can_be_built() -> None:
    """The studies' models pass at their own size."""
    models.check(hyperparameters("vit_base_patch16_224", dropout_placement="head+last9", image_size=224))
    models.check(hyperparameters("resnet18", image_size=64))
    models.check(hyperparameters("fcnn"))


def saved_weights(folder: Path, name: str = "test_vit", **options: Any) -> Path:
    """Write random weights of a model with its thousand classes."""
    torch.manual_seed(5)
    path = folder / "weights.safetensors"
    save_file(timm.create_model(name, **options).state_dict(), path)
    return path


def test_a_weight_file_is_loaded_except_for_the_head(tmp_path: Path) -> None:
    """All weights but the head's are those of the file."""
    path = saved_weights(tmp_path, img_size=32)
    hp = hyperparameters(weights=str(path))
    models.check(hp)

    loaded, file = models.create_model(hp).state_dict(), load_file(path)

    assert loaded["head.weight"].shape == (1, 64)
    assert all(torch.equal(loaded[name], file[name]) for name in loaded if not name.startswith("head."))


def test_a_position_grid_of_another_size_is_resampled(tmp_path: Path) -> None:
    """Weights made for 160 px are usable at 32 px."""
    model = models.create_model(hyperparameters(weights=str(saved_weights(tmp_path))))

    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 1)


@pytest.mark.parametrize("build", [models.check, models.create_model])
def test_a_file_of_another_model_is_refused(build: Any, tmp_path: Path) -> None:
    """Missing tensors are an error; timm would silently leave them random."""
    path = saved_weights(tmp_path, "test_resnet")

    with pytest.raises(UsageError, match=r"does not fit test_vit: .* tensors are missing from it") as caught:
        build(hyperparameters(weights=str(path)))
    assert caught.value.hint


@pytest.mark.parametrize("build", [models.check, models.create_model])
def test_a_file_of_another_width_is_refused(build: Any, tmp_path: Path) -> None:
    """The right names with wrong shapes are an error with the hint, too."""
    path = saved_weights(tmp_path, img_size=32, embed_dim=128)

    with pytest.raises(UsageError, match=r"cannot load the weights .* size mismatch for") as caught:
        build(hyperparameters(weights=str(path)))
    assert caught.value.hint


@pytest.mark.parametrize("model", ["test_efficientnet", "test_resnet", "test_vit"])
def test_a_new_head_starts_with_small_logits(model: str) -> None:
    """No head starts so large that its first losses wash the features out, as timm's EfficientNet heads would."""
    torch.manual_seed(0)
    head = models.create_model(Hyperparameters(model=model, weights="random", image_size=64)).get_classifier()

    assert head.weight.abs().max() <= head.in_features**-0.5
