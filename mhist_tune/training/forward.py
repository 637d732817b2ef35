"""Forward passes of a model, in the run's precision and memory format, and the settings that make them reproducible."""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import deterministic

from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.training import weight_files
from mhist_tune.training.augmentation import normalize_
from mhist_tune.training.models import create_model, input_statistics
from mhist_tune.training.warps import warp

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
EVALUATION_BATCH = {"cpu": (1, 32), "cuda": (4, 64)}
"""By device type: micro-batches in one pass of evaluation, and the smallest number of images in one.

A pass without gradients takes less memory than a pass in training. A GPU is faster with larger passes, a CPU is not.
"""

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The autocast type of each precision that has one; the other precisions compute in float32."""

_RECOMPILE_LIMIT = 1000  # at torch's limit of 8 training would go on uncompiled, with results that differ in last bits


def statistics_on(device: torch.device, hp: Hyperparameters) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of the model's input channels, float32 [3] each, on `device`."""
    mean, std = input_statistics(hp)
    return torch.tensor(mean, device=device), torch.tensor(std, device=device)


def ready(model: nn.Module, hp: Hyperparameters, device: torch.device) -> nn.Module:
    """Move the model to `device`, in the run's memory format, and return it."""
    return model.to(device, memory_format=MEMORY_FORMATS[hp.memory_format])  # type: ignore[call-overload,no-any-return]


def logits_of(model: nn.Module, images: Tensor, hp: Hyperparameters) -> Tensor:
    """Return the logits of normalized images [B, 3, H, W], float32 [B].

    In bf16 and fp16 the head still computes in float32: coarser logits would rank images with ties.
    """
    images = images.contiguous(memory_format=MEMORY_FORMATS[hp.memory_format])
    if hp.precision not in AUTOCAST:
        logits: Tensor = model(images)
        return logits.reshape(-1)
    parts: Any = model
    with torch.autocast(images.device.type, AUTOCAST[hp.precision]):
        features = parts.forward_features(images)
    if isinstance(features, list):  # CoaT's head takes the features of several scales
        return parts.forward_head([scale.float() for scale in features]).reshape(-1)  # type: ignore[no-any-return]
    return parts.forward_head(features.float()).reshape(-1)  # type: ignore[no-any-return]


@functools.cache
def compiled_logits_of() -> Callable[[nn.Module, Tensor, Hyperparameters], Tensor]:
    """Return `logits_of`, compiled. torch keeps the graphs until the process ends.

    Models with the same structure, shapes, precision and dropout rates share a graph. Other hyperparameters may
    differ, so most trials of a worker compile nothing.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = _RECOMPILE_LIMIT
    torch._dynamo.config.accumulated_recompile_limit = _RECOMPILE_LIMIT
    return torch.compile(logits_of, dynamic=False)


class Batched(Protocol):
    """A sequence of images that can be cut into batches: a tensor or an `ImageSet`."""

    def split(self, n: int, /) -> Iterable[Tensor]:
        """Return all images in their order, in batches of at most n."""
        ...


def evaluate(model: nn.Module, images: Batched, hp: Hyperparameters, *, batch_size: int | None = None) -> Tensor:
    """Return the model's logits in evaluation mode, float64 [n] on the model's device.

    Args:
        model: left in evaluation mode.
        images: uint8 [n, 3, H, W], on any device.
        hp: resolved, see `probe.resolve`.
        batch_size: images in one pass; None for the size that `EVALUATION_BATCH` gives.
    """
    device = next(model.parameters()).device
    statistics = statistics_on(device, hp)
    factor, minimum = EVALUATION_BATCH[device.type]
    n_in_pass = batch_size or max(minimum, factor * hp.micro_batch_size)
    model.eval()
    with torch.inference_mode():
        logits = [
            logits_of(model, normalize_(warp(batch.to(device, non_blocking=True), None), *statistics), hp)
            for batch in images.split(n_in_pass)
        ]
        return torch.cat(logits).double()


def probabilities_of(logits: Tensor) -> Tensor:
    """Return sigmoid(logits), clipped to the open interval (0, 1): 0 and 1 would look like classes."""
    limits = torch.finfo(logits.dtype)
    return logits.sigmoid().clamp(limits.tiny, 1 - limits.eps)


@contextmanager
def reproducible(hp: Hyperparameters, device: torch.device) -> Iterator[None]:
    """Run the block with its own random state and, on a GPU, deterministic kernels; restore the old state after it.

    If the model has an operation without a deterministic kernel, torch warns instead of raising. TF32 products are
    used with the precision tf32 only; torch's default is TF32 in convolutions.
    """
    is_cuda = device.type == "cuda"
    was_on = torch.are_deterministic_algorithms_enabled()
    was_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = deterministic  # the module has a property that type checkers do not see
    was_filling = memory.fill_uninitialized_memory
    is_tf32, was_tf32 = hp.precision == "tf32", torch.backends.cuda.matmul.allow_tf32
    with (
        torch.random.fork_rng(devices=[device] if is_cuda else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=is_tf32),
    ):
        torch.backends.cuda.matmul.allow_tf32 = is_tf32
        try:
            if is_cuda:
                # Nothing here reads memory that it did not write, so determinism does not need filled memory. Filling
                # takes 12 to 15% of a step elsewhere (NVIDIA/Megatron-LM#7093, ultralytics/ultralytics#26181).
                memory.fill_uninitialized_memory = False
                torch.use_deterministic_algorithms(True)
                is_strict = _has_deterministic_kernels(_structure(hp), device)
                # With warn_only torch takes the fast backward pass of attention, which is not deterministic.
                torch.use_deterministic_algorithms(True, warn_only=not is_strict)
            yield
        finally:
            torch.use_deterministic_algorithms(was_on, warn_only=was_warning)
            memory.fill_uninitialized_memory = was_filling
            torch.backends.cuda.matmul.allow_tf32 = was_tf32


@functools.cache
def _has_deterministic_kernels(hp: Hyperparameters, device: torch.device) -> bool:
    """Return whether a training step of two images runs while torch refuses kernels that are not deterministic."""
    model = ready(create_model(hp), hp, device).train()
    images = torch.zeros(2, 3, hp.image_size, hp.image_size, device=device)
    try:
        torch.autograd.backward(logits_of(model, images, hp).sum())
    except RuntimeError as error:
        if "determinis" not in str(error).lower():
            raise
        return False
    return True


def _structure(hp: Hyperparameters) -> Hyperparameters:
    """Return only the hyperparameters that decide which kernels run, so that the trials of a study share one answer."""
    return Hyperparameters(
        model=hp.model,
        model_options=weight_files.without(hp).model_options,
        weights="random",
        image_size=hp.image_size,
        precision=hp.precision,
        memory_format=hp.memory_format,
    )
