"""One pass of a model over images: in the run's precision, with or without training, always reproducible."""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import deterministic

from mhist_tune.augment import normalize_
from mhist_tune.hyperparameters import Hyperparameters
from mhist_tune.models import create_model, input_statistics
from mhist_tune.warps import warp

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
EVALUATION_BATCH = {"cpu": (1, 32), "cuda": (4, 64)}
"""Micro-batches in one pass of evaluation, and the fewest images in one.

Without gradients that takes less memory than a pass in training. A GPU is fed better by more; a CPU gains nothing.
"""

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What the passes of coarser number formats compute in; the others compute in float32."""

_RECOMPILE_LIMIT = 1000  # torch's own, 8, would then train on uncompiled, with other last bits


def statistics_on(device: torch.device, hp: Hyperparameters) -> tuple[Tensor, Tensor]:
    """Return the model's input mean and standard deviation, [3] each, on a device."""
    mean, std = input_statistics(hp)
    return torch.tensor(mean, device=device), torch.tensor(std, device=device)


def ready(model: nn.Module, hp: Hyperparameters, device: torch.device) -> nn.Module:
    """Return the model on a device, in the run's memory format."""
    return model.to(device, memory_format=MEMORY_FORMATS[hp.memory_format])  # type: ignore[call-overload,no-any-return]


def logits_of(model: nn.Module, images: Tensor, hp: Hyperparameters) -> Tensor:
    """Return float32 logits [B]. In bf16 and fp16 the head stays in float32, whose logits rank images without ties."""
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
    """Return `logits_of`, compiled. torch keeps the graphs for the process.

    A graph is used again by every model with the same structure, shapes, precision and dropout rates, so that the
    trials of a worker share it; whatever else of the hyperparameters differs.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = _RECOMPILE_LIMIT
    torch._dynamo.config.accumulated_recompile_limit = _RECOMPILE_LIMIT
    return torch.compile(logits_of, dynamic=False)


class Batched(Protocol):
    """Images that come in batches: a tensor of them, or a data set's."""

    def split(self, n: int, /) -> Iterable[Tensor]:
        """Return all images in their order, up to n at a time."""
        ...


def evaluate(model: nn.Module, images: Batched, hp: Hyperparameters, *, batch_size: int | None = None) -> Tensor:
    """Return logits in evaluation mode, float64 [n] on the model's device.

    Args:
        model: left in evaluation mode.
        images: uint8 [n, 3, H, W], on the model's device or elsewhere.
        hp: resolved, see `probe.resolve`.
        batch_size: images in one pass; a multiple of the micro-batch if None.
    """
    device = next(model.parameters()).device
    statistics = statistics_on(device, hp)
    factor, fewest = EVALUATION_BATCH[device.type]
    n_in_pass = batch_size or max(fewest, factor * hp.micro_batch_size)
    model.eval()
    with torch.inference_mode():
        logits = [
            logits_of(model, normalize_(warp(batch.to(device, non_blocking=True), None), *statistics), hp)
            for batch in images.split(n_in_pass)
        ]
        return torch.cat(logits).double()


def probabilities_of(logits: Tensor) -> Tensor:
    """Return sigmoid(logits), kept inside the open interval so that no probability looks like a class."""
    limits = torch.finfo(logits.dtype)
    return logits.sigmoid().clamp(limits.tiny, 1 - limits.eps)


@contextmanager
def reproducible(hp: Hyperparameters, device: torch.device) -> Iterator[None]:
    """Give the block its own random state and, on a GPU, deterministic kernels; the process gets its own back.

    Where the model has a step that no deterministic kernel does, torch warns of it instead. Products of float32 numbers
    are those of TF32 in the precision tf32 alone; torch's default is TF32 in convolutions.
    """
    is_cuda = device.type == "cuda"
    was_on = torch.are_deterministic_algorithms_enabled()
    was_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = deterministic  # a module with a property, which type checkers do not see
    was_filling = memory.fill_uninitialized_memory
    is_tf32, was_tf32 = hp.precision == "tf32", torch.backends.cuda.matmul.allow_tf32
    with (
        torch.random.fork_rng(devices=[device] if is_cuda else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=is_tf32),
    ):
        torch.backends.cuda.matmul.allow_tf32 = is_tf32
        try:
            if is_cuda:
                # Nothing here reads memory that it did not write. Filling it costs others 12 to 15% of a step, and
                # determinism does not rest on it (NVIDIA/Megatron-LM#7093, ultralytics/ultralytics#26181).
                memory.fill_uninitialized_memory = False
                torch.use_deterministic_algorithms(True)
                is_strict = _has_deterministic_kernels(_structure(hp), device)
                # Merely warning, torch takes the fast backward pass of attention, which is not deterministic.
                torch.use_deterministic_algorithms(True, warn_only=not is_strict)
            yield
        finally:
            torch.use_deterministic_algorithms(was_on, warn_only=was_warning)
            memory.fill_uninitialized_memory = was_filling
            torch.backends.cuda.matmul.allow_tf32 = was_tf32


@functools.cache
def _has_deterministic_kernels(hp: Hyperparameters, device: torch.device) -> bool:
    """Tell whether a training step of two images passes where torch refuses kernels that are not deterministic."""
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
    """Return what of a run says which kernels it needs, so that the trials of a study ask once."""
    return Hyperparameters(
        model=hp.model,
        model_options=hp.model_options,
        weights="random",
        image_size=hp.image_size,
        precision=hp.precision,
        memory_format=hp.memory_format,
    )
