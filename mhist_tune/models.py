"""Models with one logit: any timm model by name, or a small fully connected network.

Dropout placements are mapped onto timm's modules: `head` is timm's `drop_rate`; `head+lastK.mlp` and `head+lastK` set
every dropout in the MLPs, or in the whole, of the last K blocks of a ViT; `pos` sets the dropout after the position
embedding alone.
"""

import functools
import hashlib
import inspect
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from huggingface_hub import constants, get_session, try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mhist_tune.errors import UsageError, did_you_mean
from mhist_tune.freeze import freeze, is_frozen
from mhist_tune.hyperparameters import DROPOUT_PLACEMENT, Hyperparameters

FCNN = "fcnn"
FCNN_WIDTHS = (128, 64, 32)
HALF = (0.5, 0.5, 0.5)
HEAD_DEVIATION = 0.02
HUB_PREFIX = "hf-hub:"
PROBE_TIMEOUT_S = 10
WEIGHTS_HINT = "give the weights as a file: --weights FILE.safetensors"


class FullyConnected(nn.Module):
    """The method's baseline: the flattened image through 128, 64 and 32 units with ReLU to one logit."""

    def __init__(self, image_size: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        widths = (3 * image_size**2, *FCNN_WIDTHS)
        layers = [layer for size, width in itertools.pairwise(widths) for layer in (nn.Linear(size, width), nn.ReLU())]
        self.features = nn.Sequential(nn.Flatten(), *layers)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(widths[-1], 1)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Return which parameters are the stem and which the further layers, in timm's form."""
        return {"stem": r"^features\.1\.", "blocks": r"^features\.(\d+)"}

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the last hidden layer, [B, 32], of images [B, 3, H, W]."""
        features: Tensor = self.features(images)
        return features

    def forward_head(self, features: Tensor) -> Tensor:
        """Return logits [B, 1] of the last hidden layer."""
        logits: Tensor = self.head(self.head_drop(features))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, 1] of images [B, 3, H, W]."""
        return self.forward_head(self.forward_features(images))


def create_model(hp: Hyperparameters) -> nn.Module:
    """Build the model of a run on the CPU, with its starting weights and its dropout.

    New weights are drawn from torch's global generator. `forward` takes normalized images [B, 3, S, S] with
    S = hp.image_size and gives one logit each, [B, 1].

    Raises:
        UsageError: if the model, its options, its weights, its dropout placement or what is to be frozen do not exist.
    """
    if hp.model == FCNN:
        if hp.weights != "random":
            raise UsageError("fcnn has no weights to start from", hint='set weights = "random"')
        model: nn.Module = FullyConnected(hp.image_size, drop_rate=_head_drop_rate(hp))
    else:
        source: dict[str, Any] = {"pretrained": hp.weights != "random"}
        if hp.weights == "pretrained":
            _require_download(hp)
        elif hp.weights != "random":
            _require_fitting_file(hp)
            source["pretrained_cfg_overlay"] = {"file": hp.weights}
        try:
            model = _build(hp, **source)
        except (OSError, RuntimeError) as error:
            raise UsageError(
                f'cannot load the weights "{hp.weights}" into {hp.model}: {_first_line(error)}', hint=WEIGHTS_HINT
            ) from error
        _renew_head(model)
    _place_dropout(model, hp)
    freeze(model, hp, head_names=_head_names(hp))
    return model


def check(hp: Hyperparameters) -> None:
    """Build the model without memory or weights and push a batch of shapes through it.

    Raises:
        UsageError: for what `create_model` would refuse, an image size that the model cannot take, weights that are
            not there, and a model with BatchNorm that would see single images.
    """
    if hp.model == FCNN or hp.weights == "random":
        with torch.device("meta"):
            model = create_model(hp)
    else:
        model = _blueprint(hp)
        _place_dropout(model, hp)
        freeze(model, hp, head_names=_head_names(hp))
        _require_download(hp) if hp.weights == "pretrained" else _require_fitting_file(hp)
    if has_batch_norm(model) and min(hp.micro_batch_size, hp.effective_batch_size) < 2:
        raise UsageError(
            f"{hp.model} has BatchNorm, which needs more than one image",
            hint="set micro_batch_size and effective_batch_size to 2 or more",
        )
    try:
        model.eval()(torch.empty(2, 3, hp.image_size, hp.image_size, device="meta"))
    except (AssertionError, RuntimeError) as error:
        raise UsageError(
            f"{hp.model} does not take images of {hp.image_size} px: {_first_line(error)}",
            hint="choose another image_size",
        ) from error


def input_statistics(hp: Hyperparameters) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the mean and the standard deviation per channel (of images in 0..1) that the model was trained with."""
    if hp.model == FCNN:
        return HALF, HALF
    config = _architecture(hp).config
    return tuple(config["mean"]), tuple(config["std"])


def has_batch_norm(model: nn.Module) -> bool:
    """Say whether the images of a micro-batch influence each other in training; frozen BatchNorm lets them not."""
    return any(isinstance(module, _BatchNorm) and not is_frozen(module) for module in model.modules())


def weights_identity(weights: str) -> str | None:
    """Return the SHA-256 (hex) of the weight file that `hp.weights` names, None where it names no file.

    Raises:
        UsageError: if there is no such file.
    """
    if weights in ("pretrained", "random"):
        return None
    try:
        with Path(weights).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"cannot read the weights {weights}: {error.strerror}", hint=WEIGHTS_HINT) from error


def _build(hp: Hyperparameters, **source: Any) -> nn.Module:
    options: dict[str, Any] = dict(hp.model_options)
    if rate := _head_drop_rate(hp):
        options["drop_rate"] = rate
    if _takes_image_size(hp.model):
        options.setdefault("img_size", hp.image_size)
    try:
        model: nn.Module = timm.create_model(hp.model, num_classes=1, **source, **options)
    except (AssertionError, TypeError) as error:
        raise UsageError(f"{hp.model} refuses its options: {_first_line(error)}", hint="see model_options") from error
    return model


def _blueprint(hp: Hyperparameters) -> nn.Module:
    """Return the model of a run as shapes only."""
    with torch.device("meta"):
        return _build(hp, pretrained=False)


def _renew_head(model: nn.Module) -> None:
    """Draw the head's weights from a normal distribution with a deviation of 0.02, as timm draws those of its ViTs.

    timm starts some heads (EfficientNet's) uniform in +-1/sqrt(outputs), which for one logit is +-1: the first losses
    are then so large that they wash the pretrained weights out. A new torch layer's are uniform in +-1/sqrt(inputs):
    about the same for 1,000 inputs, but too large for few (`docs/results/performance.md`).
    """
    head = cast(Any, model).get_classifier()
    if isinstance(head, nn.Linear):
        nn.init.trunc_normal_(head.weight, std=HEAD_DEVIATION)
        if head.bias is not None:
            nn.init.zeros_(head.bias)


@functools.lru_cache(maxsize=64)
def _takes_image_size(name: str) -> bool:
    """Say whether a timm model is built for one image size; others take any."""
    if name.startswith(HUB_PREFIX):
        _require_hub(name.removeprefix(HUB_PREFIX).partition("@")[0], ("config.json",), name)
    try:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=1)
    except (OSError, RuntimeError, ValueError) as error:
        architecture = name.partition(".")[0]
        suggestion = "" if timm.is_model(architecture) else did_you_mean(architecture, timm.list_models())
        raise UsageError(
            f'no model "{name}"{suggestion}: {_first_line(error)}', hint="take one of timm's names"
        ) from error
    return "img_size" in inspect.signature(type(model).__init__).parameters


def _head_drop_rate(hp: Hyperparameters) -> float:
    return hp.drop_rate if hp.dropout_placement.startswith("head") else 0.0


def _place_dropout(model: nn.Module, hp: Hyperparameters) -> None:
    """Set the dropouts in front of the head; the head's own was set when the model was built."""
    placement = hp.dropout_placement
    match = DROPOUT_PLACEMENT.fullmatch(placement)
    if placement == "pos":
        chosen = [module for name, module in model.named_modules() if name == "pos_drop"]
        _set_rate(chosen, hp)
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
    """What the names of a model's tensors are, and how timm configured it."""

    tensor_names: tuple[str, ...]
    config: Mapping[str, Any]


def _architecture(hp: Hyperparameters) -> _Architecture:
    return _architecture_of(hp.model, json.dumps(dict(hp.model_options), sort_keys=True), hp.image_size)


@functools.lru_cache(maxsize=64)
def _architecture_of(model: str, options: str, image_size: int) -> _Architecture:
    """Ask a model of shapes; one each process, since it takes a tenth of a second or more for every trial."""
    hp = Hyperparameters(model=model, model_options=json.loads(options), image_size=image_size)
    blueprint: Any = _blueprint(hp)
    return _Architecture(tuple(blueprint.state_dict()), dict(blueprint.pretrained_cfg))


def _head_names(hp: Hyperparameters) -> tuple[str, ...]:
    """Return what the names of the head's tensors start with."""
    classifier: str | tuple[str, ...] = "head" if hp.model == FCNN else _architecture(hp).config["classifier"]
    return tuple(f"{name}." for name in ((classifier,) if isinstance(classifier, str) else classifier))


def _require_download(hp: Hyperparameters) -> None:
    """Fail at once where timm's weights are neither cached nor in reach."""
    config = _architecture(hp).config
    repository = config.get("hf_hub_id")
    if repository:
        names = ("model.safetensors", "pytorch_model.bin", config.get("hf_hub_filename"))
        _require_hub(repository, tuple(name for name in names if name), hp.model)
    elif not config.get("url"):
        raise UsageError(f"{hp.model} has no pretrained weights", hint=WEIGHTS_HINT)


def _require_hub(repository: str, names: tuple[str, ...], model: str) -> None:
    """Refuse where none of the files is cached and the hub does not answer; its client alone tries for a minute."""
    if any(isinstance(try_to_load_from_cache(repository, name), str) for name in names):
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_TIMEOUT_S)
    except Exception as error:  # the client's errors depend on its version and on its transport
        raise UsageError(
            f"no pretrained weights for {model}: {constants.ENDPOINT} is not in reach", hint=WEIGHTS_HINT
        ) from error


def _require_fitting_file(hp: Hyperparameters) -> None:
    """Refuse a file that lacks weights of the model; timm alone would leave those random without a word."""
    try:
        with safe_open(hp.weights, framework="pt") as file:
            given = set(file.keys())
    except (OSError, SafetensorError) as error:
        raise UsageError(f"cannot read the weights {hp.weights}: {_first_line(error)}", hint=WEIGHTS_HINT) from error
    head_names = _head_names(hp)
    wanted = [name for name in _architecture(hp).tensor_names if not name.startswith(head_names)]
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    if missing:
        raise UsageError(
            f"{hp.weights} does not fit {hp.model}: {len(missing)} of {len(wanted)} tensors are not in it, "
            f"the first is {missing[0]}",
            hint="the file must hold this model's weights under timm's names",
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
