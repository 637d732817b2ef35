"""One pass of a model over images: in the run's precision, with or without training, always reproducible."""

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhist_tune.augment import normalize, warp
from mhist_tune.hyperparameters import Hyperparameters
from mhist_tune.models import create_model, input_statistics

EVALUATION_FACTOR = 4  # without gradients a batch of this many micro-batches takes less memory than one in training
MIN_EVALUATION_BATCH = 64
N_PROBES = 3
N_PROBE_IMAGES_CPU = 4
PROBE_GAIN = 0.95  # a smaller gain would not be worth the coarser numbers
PROBE_GIVE_UP = 5.0  # a CPU that emulates bf16 needs many times longer


def statistics_on(device: torch.device, hp: Hyperparameters) -> tuple[Tensor, Tensor]:
    """Return the model's input mean and standard deviation, [3] each, on a device."""
    mean, std = input_statistics(hp)
    return torch.tensor(mean, device=device), torch.tensor(std, device=device)


def logits_of(model: nn.Module, images: Tensor, precision: str) -> Tensor:
    """Return float32 logits [B]. In bf16 the head stays in float32, whose logits rank images without ties."""
    if precision == "fp32":
        logits: Tensor = model(images)
        return logits.reshape(-1)
    parts: Any = model
    with torch.autocast(images.device.type, torch.bfloat16):
        features = parts.forward_features(images)
    return parts.forward_head(features.float()).reshape(-1)  # type: ignore[no-any-return]


def evaluate(model: nn.Module, images: Tensor, hp: Hyperparameters, *, batch_size: int | None = None) -> Tensor:
    """Return logits in evaluation mode, float64 [n] on the model's device.

    Args:
        model: left in evaluation mode.
        images: uint8 [n, 3, H, W], on the model's device or elsewhere.
        hp: with a resolved precision.
        batch_size: images in one pass; a multiple of the micro-batch if None.
    """
    device = next(model.parameters()).device
    statistics = statistics_on(device, hp)
    n_in_pass = batch_size or max(MIN_EVALUATION_BATCH, EVALUATION_FACTOR * hp.micro_batch_size)
    model.eval()
    with torch.inference_mode():
        logits = [
            logits_of(model, normalize(warp(batch.to(device, non_blocking=True), None), *statistics), hp.precision)
            for batch in torch.split(images, n_in_pass)
        ]
        return torch.cat(logits).double()


def probabilities_of(logits: Tensor) -> Tensor:
    """Return sigmoid(logits), kept inside the open interval so that no probability looks like a class."""
    limits = torch.finfo(logits.dtype)
    return logits.sigmoid().clamp(limits.tiny, 1 - limits.eps)


def resolve_precision(hp: Hyperparameters, device: torch.device) -> Literal["fp32", "bf16"]:
    """Return `hp.precision`; for "auto" bf16 where a few real passes are clearly faster with it, else fp32."""
    if hp.precision != "auto":
        return hp.precision
    n_images = min(hp.micro_batch_size, hp.effective_batch_size)
    if device.type == "cpu":
        n_images = min(n_images, N_PROBE_IMAGES_CPU)
    with reproducible(device):
        model = create_model(dataclasses.replace(hp, weights="random")).to(device).train()
        images = torch.rand(n_images, 3, hp.image_size, hp.image_size, device=device)

        def fastest_pass_s(precision: str, give_up_s: float) -> float:
            fastest_s = math.inf
            for _ in range(N_PROBES):
                started = time.perf_counter()
                model.zero_grad()
                torch.autograd.backward(F.softplus(logits_of(model, images, precision)).sum())
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                fastest_s = min(fastest_s, time.perf_counter() - started)
                if fastest_s > give_up_s:
                    break
            return fastest_s

        fp32_s = fastest_pass_s("fp32", math.inf)
        return "bf16" if fastest_pass_s("bf16", PROBE_GIVE_UP * fp32_s) < PROBE_GAIN * fp32_s else "fp32"


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
