"""Models with one logit: any timm model by name, or a small fully connected network.

`dropout_placement` says which of timm's dropout modules get `drop_rate`. `head` is timm's own `drop_rate`.
`head+lastK.mlp` adds every dropout in the MLPs of the last K blocks of a ViT, `head+lastK` every dropout in those
blocks. `pos` sets only the dropout after the position embedding.
"""

import functools
import inspect
import itertools
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import timm
import torch
from huggingface_hub import constants, get_session, try_to_load_from_cache
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mhist_tune.definition.field_checks import DROPOUT_PLACEMENT
from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.errors import MhistTuneError, UsageError, did_you_mean
from mhist_tune.training import weight_files
from mhist_tune.training.freeze import freeze, is_frozen
from mhist_tune.training.weight_files import CHECKPOINT_PATH, WEIGHTS_HINT, reason_of

FCNN = "fcnn"
FCNN_WIDTHS = (128, 64, 32)
HALF = (0.5, 0.5, 0.5)
HEAD_DEVIATION = 0.02
HUB_PREFIX = "hf-hub:"
PROBE_TIMEOUT_S = 10


class FullyConnected(nn.Module):
    """The method's baseline: the flattened image, hidden layers of 128, 64 and 32 units with ReLU, one logit."""

    def __init__(self, image_size: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        widths = (3 * image_size**2, *FCNN_WIDTHS)
        layers = [layer for size, width in itertools.pairwise(widths) for layer in (nn.Linear(size, width), nn.ReLU())]
        self.features = nn.Sequential(nn.Flatten(), *layers)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(widths[-1], 1)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return patterns of the parameter names of the stem and of the further layers, as timm's models do."""
        return {"stem": r"^features\.1\.", "blocks": r"^features\.(\d+)"}

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the output of the last hidden layer, [B, 32], for images [B, 3, H, W]."""
        features: Tensor = self.features(images)
        return features

    def forward_head(self, features: Tensor) -> Tensor:
        """Return logits [B, 1] for the output of the last hidden layer, [B, 32]."""
        logits: Tensor = self.head(self.head_drop(features))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, 1] for images [B, 3, H, W]."""
        return self.forward_head(self.forward_features(images))


def create_model(hp: Hyperparameters) -> nn.Module:
    """Build the model of a run on the CPU, with its initial weights, its dropout and its frozen parameters.

    New weights are drawn from torch's global generator. `forward` takes normalized images [B, 3, S, S] with
    S = hp.image_size and returns one logit for each, [B, 1].

    Raises:
        UsageError: the model does not exist, refuses its options or its weights, or has no such dropout placement or
            no such blocks to freeze.
    """
    if hp.model == FCNN:
        if hp.weights != "random":
            raise UsageError("fcnn has no weights to load", hint='set weights = "random"')
        model: nn.Module = FullyConnected(hp.image_size, drop_rate=_head_drop_rate(hp))
    else:
        source: dict[str, Any] = {"pretrained": hp.weights != "random"}
        if hp.weights == "pretrained":
            _require_download(hp)
        elif hp.weights != "random":
            _require_fitting_file(hp)
            source["pretrained_cfg_overlay"] = {"file": weight_files.loadable(hp.weights)}
        if checkpoint := hp.model_options.get(CHECKPOINT_PATH):
            source[CHECKPOINT_PATH] = weight_files.loadable(checkpoint)
        try:
            model = _build(hp, **source)
        except (OSError, RuntimeError, KeyError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
            files = ", ".join(str(weight_files.path_of(name)) for name in weight_files.names(hp)) or hp.weights
            raise UsageError(
                f'cannot load the weights "{files}" into {hp.model}: {reason_of(error)}', hint=WEIGHTS_HINT
            ) from error
        _renew_head(model)
    _place_dropout(model, hp)
    freeze(model, hp, head_names=_head_names(hp))
    return model


def check(hp: Hyperparameters) -> None:
    """Check that a run's model can be built and takes its images, without memory for it.

    Raises:
        UsageError: `create_model` would raise it, the weights cannot be found or downloaded, the model does not take
            images of this size, or a model with BatchNorm would get single images.
    """
    try:
        _check(hp)
    except (MhistTuneError, MemoryError):
        raise
    except Exception as error:  # timm and its models raise any error for arguments that they were not written for
        raise UsageError(
            f"{hp.model} cannot be built: {type(error).__name__}: {reason_of(error)}",
            hint="see model and model_options",
        ) from error


def _check(hp: Hyperparameters) -> None:
    """Build the model on torch's meta device, which holds shapes only, and pass a batch of two images through it.

    Raises:
        UsageError: `create_model` would raise it, the weights cannot be found or downloaded, the model does not take
            images of this size, or a model with BatchNorm would get single images.
    """
    weight_files.require_no_other(hp)
    if hp.model == FCNN or (hp.weights == "random" and not weight_files.names(hp)):
        with torch.device("meta"):
            model = create_model(hp)
    else:
        model = _blueprint(hp)
        _place_dropout(model, hp)
        freeze(model, hp, head_names=_head_names(hp))
        if hp.weights == "pretrained":
            _require_download(hp)
        if files := weight_files.names(hp):
            _require_trainable(hp.model, _options(hp), hp.image_size, hp.weights, weight_files.versions(files))
    if has_batch_norm(model) and min(hp.micro_batch_size, hp.effective_batch_size) < 2:
        raise UsageError(
            f"{hp.model} has BatchNorm, which needs more than one image",
            hint="set micro_batch_size and effective_batch_size to 2 or more",
        )
    try:
        logits = model.eval()(torch.empty(2, 3, hp.image_size, hp.image_size, device="meta"))
    except (AssertionError, RuntimeError) as error:
        raise UsageError(
            f"{hp.model} does not take images of {hp.image_size} px: {reason_of(error)}",
            hint="choose another image_size",
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (2, 1):
        raise UsageError(f"{hp.model} does not return one logit for each image", hint="see model_options")


@functools.lru_cache(maxsize=64)
def _require_trainable(
    model: str, options: str, image_size: int, weights: str, versions: tuple[tuple[int, int], ...]
) -> None:
    """Load the weight files into a model, and raise UsageError if that fails or a value is not finite.

    Cached: a study's definition names the same model and files in many trials. `versions` are those of the files.
    """
    hp = Hyperparameters(model=model, model_options=json.loads(options), image_size=image_size, weights=weights)
    weight_files.require_finite(create_model(hp), weight_files.names(hp))


def input_statistics(hp: Hyperparameters) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the mean and the standard deviation of each channel that the model expects, for images in 0..1.

    Those of a timm model are the ones that its pretrained weights were trained with.
    """
    if hp.model == FCNN:
        return HALF, HALF
    config = _architecture(hp).config
    return tuple(config["mean"]), tuple(config["std"])


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether a model has unfrozen BatchNorm, which makes the images of a micro-batch affect each other."""
    return any(isinstance(module, _BatchNorm) and not is_frozen(module) for module in model.modules())


def _build(hp: Hyperparameters, **source: Any) -> nn.Module:
    options: dict[str, Any] = dict(weight_files.without(hp).model_options)
    if rate := _head_drop_rate(hp):
        options["drop_rate"] = rate
    if _takes_image_size(hp.model):
        options.setdefault("img_size", hp.image_size)
    try:
        model: nn.Module = timm.create_model(hp.model, num_classes=1, **source, **options)
    except (AssertionError, TypeError) as error:
        raise UsageError(f"{hp.model} refuses its options: {reason_of(error)}", hint="see model_options") from error
    return model


def _blueprint(hp: Hyperparameters) -> nn.Module:
    """Return the model of a run on torch's meta device: shapes and names, no memory."""
    with torch.device("meta"):
        return _build(hp, pretrained=False)


def _renew_head(model: nn.Module) -> None:
    """Draw the head's weights from a normal distribution with a standard deviation of 0.02, as timm does for ViTs.

    timm draws some heads (EfficientNet's) uniformly from +-1/sqrt(outputs), which is +-1 for one logit: the first
    losses are then so large that they destroy the pretrained weights. torch draws a new layer uniformly from
    +-1/sqrt(inputs), which is similar for 1,000 inputs but too large for few (`docs/results/performance.md`).
    """
    head = cast(Any, model).get_classifier()
    if isinstance(head, nn.Linear):
        nn.init.trunc_normal_(head.weight, std=HEAD_DEVIATION)
        if head.bias is not None:
            nn.init.zeros_(head.bias)


@functools.lru_cache(maxsize=64)
def _takes_image_size(name: str) -> bool:
    """Return whether a timm model is built for one image size; other models take images of any size."""
    if name.startswith(HUB_PREFIX):
        _require_hub(name.removeprefix(HUB_PREFIX).partition("@")[0], ("config.json",), name)
    try:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=1)
    except (OSError, RuntimeError, ValueError) as error:
        architecture = name.partition(".")[0]
        suggestion = "" if timm.is_model(architecture) else did_you_mean(architecture, timm.list_models())
        raise UsageError(
            f'no model "{name}"{suggestion}: {reason_of(error)}', hint="use the name of a timm model, or fcnn"
        ) from error
    return "img_size" in inspect.signature(type(model).__init__).parameters


def _head_drop_rate(hp: Hyperparameters) -> float:
    return hp.drop_rate if hp.dropout_placement.startswith("head") else 0.0


def _place_dropout(model: nn.Module, hp: Hyperparameters) -> None:
    """Set the dropout modules before the head; `_build` has set the head's own."""
    placement = hp.dropout_placement
    match = DROPOUT_PLACEMENT.fullmatch(placement)
    if placement == "pos":
        position_dropouts = [module for name, module in model.named_modules() if name == "pos_drop"]
        _set_rate(position_dropouts, hp)
    elif match and match[1]:
        blocks = getattr(model, "blocks", ())
        n_blocks = int(match[1])
        if n_blocks > len(blocks):
            raise UsageError(
                f'{hp.model} has no dropout placement "{placement}": it has {len(blocks)} blocks',
                hint='"none" and "head" fit every model',
            )
        for block in list(blocks)[-n_blocks:]:
            _set_rate([getattr(block, "mlp", None)] if match[2] else [block], hp)


def _set_rate(parts: list[Any], hp: Hyperparameters) -> None:
    modules = [module for part in parts if isinstance(part, nn.Module) for module in part.modules()]
    dropouts = [module for module in modules if isinstance(module, nn.Dropout)]
    if not dropouts:
        raise UsageError(
            f'{hp.model} has no dropout placement "{hp.dropout_placement}"', hint='"none" and "head" fit every model'
        )
    for dropout in dropouts:
        dropout.p = hp.drop_rate


@dataclass(frozen=True)
class _Architecture:
    """The names of a model's tensors, which of them hold floats, and timm's configuration of its pretrained weights."""

    is_float: Mapping[str, bool]
    config: Mapping[str, Any]


def _architecture(hp: Hyperparameters) -> _Architecture:
    return _architecture_of(hp.model, _options(weight_files.without(hp)), hp.image_size)


def _options(hp: Hyperparameters) -> str:
    return json.dumps(dict(hp.model_options), sort_keys=True)


@functools.lru_cache(maxsize=64)
def _architecture_of(model: str, options: str, image_size: int) -> _Architecture:
    """Read an architecture from a model on the meta device. Cached: building one takes 0.1 s or more in each trial."""
    hp = Hyperparameters(model=model, model_options=json.loads(options), image_size=image_size)
    blueprint: Any = _blueprint(hp)
    is_float = {name: tensor.is_floating_point() for name, tensor in blueprint.state_dict().items()}
    return _Architecture(is_float, dict(blueprint.pretrained_cfg))


def _head_names(hp: Hyperparameters) -> tuple[str, ...]:
    """Return the prefixes of the names of the head's tensors."""
    classifier: str | tuple[str, ...] = "head" if hp.model == FCNN else _architecture(hp).config["classifier"]
    return tuple(f"{name}." for name in ((classifier,) if isinstance(classifier, str) else classifier))


def _require_download(hp: Hyperparameters) -> None:
    """Raise UsageError if timm's weights are neither cached nor reachable, without downloading them."""
    config = _architecture(hp).config
    repository = config.get("hf_hub_id")
    if repository:
        names = ("model.safetensors", "pytorch_model.bin", config.get("hf_hub_filename"))
        _require_hub(repository, tuple(name for name in names if name), hp.model)
    elif not config.get("url"):
        raise UsageError(f"{hp.model} has no pretrained weights", hint=WEIGHTS_HINT)


def _require_hub(repository: str, names: tuple[str, ...], model: str) -> None:
    """Raise UsageError if no file is cached and the hub does not answer. The hub's client would retry for a minute."""
    if any(isinstance(try_to_load_from_cache(repository, name), str) for name in names):
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_TIMEOUT_S)
    except Exception as error:  # the classes of the client's errors depend on its version and its transport
        raise UsageError(
            f"no pretrained weights for {model}: {constants.ENDPOINT} is unreachable", hint=WEIGHTS_HINT
        ) from error


def _require_fitting_file(hp: Hyperparameters) -> None:
    """Raise UsageError if a file lacks tensors of the model. timm would silently leave those random."""
    head_names = _head_names(hp)
    is_float = {name: found for name, found in _architecture(hp).is_float.items() if not name.startswith(head_names)}
    weight_files.require_tensors(weight_files.path_of(hp.weights), hp.model, is_float)
