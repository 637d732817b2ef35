"""One pass of a model over images: in the run's precision, with or without training, always reproducible."""

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhist_tune.augment import normalize
from mhist_tune.freeze import set_training
from mhist_tune.hyperparameters import Hyperparameters
from mhist_tune.models import create_model, input_statistics
from mhist_tune.warps import warp

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
EVALUATION_FACTOR = 4  # without gradients a batch of this many micro-batches takes less memory than one in training
MIN_EVALUATION_BATCH = 64
N_PROBES = 3
N_PROBE_IMAGES_CPU = 8
PROBE_GAIN = 0.95  # a smaller gain would not be worth the coarser numbers
PROBE_GIVE_UP = 5.0  # a CPU that emulates bf16 needs many times longer


def statistics_on(device: torch.device, hp: Hyperparameters) -> tuple[Tensor, Tensor]:
    """Return the model's input mean and standard deviation, [3] each, on a device."""
    mean, std = input_statistics(hp)
    return torch.tensor(mean, device=device), torch.tensor(std, device=device)


def ready(model: nn.Module, hp: Hyperparameters, device: torch.device) -> nn.Module:
    """Return the model on a device, in the run's memory format."""
    return model.to(device, memory_format=MEMORY_FORMATS[hp.memory_format])  # type: ignore[call-overload,no-any-return]


def logits_of(model: nn.Module, images: Tensor, hp: Hyperparameters) -> Tensor:
    """Return float32 logits [B]. In bf16 the head stays in float32, whose logits rank images without ties."""
    images = images.contiguous(memory_format=MEMORY_FORMATS[hp.memory_format])
    if hp.precision == "fp32":
        logits: Tensor = model(images)
        return logits.reshape(-1)
    parts: Any = model
    with torch.autocast(images.device.type, torch.bfloat16):
        features = parts.forward_features(images)
    if isinstance(features, list):  # CoaT's head takes the features of several scales
        return parts.forward_head([scale.float() for scale in features]).reshape(-1)  # type: ignore[no-any-return]
    return parts.forward_head(features.float()).reshape(-1)  # type: ignore[no-any-return]


def evaluate(model: nn.Module, images: Tensor, hp: Hyperparameters, *, batch_size: int | None = None) -> Tensor:
    """Return logits in evaluation mode, float64 [n] on the model's device.

    Args:
        model: left in evaluation mode.
        images: uint8 [n, 3, H, W], on the model's device or elsewhere.
        hp: resolved, see `resolve`.
        batch_size: images in one pass; a multiple of the micro-batch if None.
    """
    device = next(model.parameters()).device
    statistics = statistics_on(device, hp)
    n_in_pass = batch_size or max(MIN_EVALUATION_BATCH, EVALUATION_FACTOR * hp.micro_batch_size)
    model.eval()
    with torch.inference_mode():
        logits = [
            logits_of(model, normalize(warp(batch.to(device, non_blocking=True), None), *statistics), hp)
            for batch in torch.split(images, n_in_pass)
        ]
        return torch.cat(logits).double()


def probabilities_of(logits: Tensor) -> Tensor:
    """Return sigmoid(logits), kept inside the open interval so that no probability looks like a class."""
    limits = torch.finfo(logits.dtype)
    return logits.sigmoid().clamp(limits.tiny, 1 - limits.eps)


def resolve(hp: Hyperparameters, device: torch.device) -> Hyperparameters:
    """Return `hp` with what is "auto" settled by timing a few real passes on the device.

    Channels-last or bf16 are taken where they are clearly faster, else contiguous and fp32. The choice depends on the
    device and its load, so it is made once for a study and stored with it.
    """
    n_images = min(hp.micro_batch_size, hp.effective_batch_size)
    if device.type == "cpu":
        n_images = min(n_images, N_PROBE_IMAGES_CPU)
    settled = dataclasses.replace(
        hp,
        precision="fp32" if hp.precision == "auto" else hp.precision,
        memory_format="contiguous" if hp.memory_format == "auto" else hp.memory_format,
    )
    rivals: list[dict[str, Any]] = []
    if hp.memory_format == "auto":
        rivals.append({"memory_format": "channels_last"})
    if hp.precision == "auto":
        rivals.append({"precision": "bf16"})
    if not rivals:
        return settled
    with reproducible(device):
        images = torch.rand(n_images, 3, hp.image_size, hp.image_size, device=device)
        fastest_s = _fastest_pass_s(settled, images, math.inf)
        for change in rivals:
            rival = dataclasses.replace(settled, **change)
            rival_s = _fastest_pass_s(rival, images, PROBE_GIVE_UP * fastest_s)
            if rival_s < PROBE_GAIN * fastest_s:
                settled, fastest_s = rival, rival_s
    return settled


def _fastest_pass_s(hp: Hyperparameters, images: Tensor, give_up_s: float) -> float:
    """Return the seconds of the fastest of a few passes forward and backward; fewer if one takes longer than given."""
    device = images.device
    model = ready(create_model(dataclasses.replace(hp, weights="random")), hp, device)
    set_training(model)
    fastest_s = math.inf
    for _ in range(N_PROBES):
        started = time.perf_counter()
        model.zero_grad()
        torch.autograd.backward(F.softplus(logits_of(model, images, hp)).sum())
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest_s = min(fastest_s, time.perf_counter() - started)
        if fastest_s > give_up_s:
            break
    return fastest_s


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Give the block its own random state and, on a GPU, deterministic kernels; the process gets its own back."""
    is_cuda = device.type == "cuda"
    was_on = torch.are_deterministic_algorithms_enabled()
    was_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    with (
        torch.random.fork_rng(devices=[device] if is_cuda else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        if is_cuda:
            torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was_on, warn_only=was_warning)
