"""Memory that ran out: how it is recognized, and what would have fitted."""

import ctypes
import dataclasses
import gc

import torch

from mhist_tune.forward import ready, reproducible
from mhist_tune.hyperparameters import Hyperparameters
from mhist_tune.models import create_model, has_batch_norm
from mhist_tune.step import Stepper

# torch has an error of its own kind only for its GPU allocator; the CPU's, CUDA's and cuBLAS's tell by their text.
_MARKS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE_BYTES = 2**25  # handed back: larger ones are few, and kept in pieces they made a worker's peak 0.2 GB higher
_KEPT_BYTES = 2**30


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that the device or the machine has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error).lower() for mark in _MARKS)


def device_fault(error: BaseException) -> str | None:
    """Return what is wrong with the device or its memory, if that is what the error says; no trial is to blame."""
    if is_out_of_memory(error):
        return "has no memory left"
    return "failed" if isinstance(error, torch.AcceleratorError) else None


def free(device: torch.device) -> None:
    """Give back what nothing refers to any more: to the device, and where that is a CPU, to the machine."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def keep_freed() -> None:
    """Let glibc keep the memory of most freed tensors, which it would hand back and fault in again in every step."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def is_coupled(hp: Hyperparameters) -> bool:
    """Say whether the micro-batch is part of the method, since the model has BatchNorm."""
    return has_batch_norm(create_model(dataclasses.replace(hp, weights="random")))


def fitting_micro_batch_size(hp: Hyperparameters, device: torch.device, n_images: int) -> int | None:
    """Return the largest of 1, 1/2, 1/4, ... of `n_images` with which a real update fits; None if none does."""
    while n_images:
        try:
            _update_once(hp, n_images, device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return n_images
        free(device)
        n_images //= 2
    return None


def _update_once(hp: Hyperparameters, n_images: int, device: torch.device) -> None:
    hp = dataclasses.replace(hp, compile="off")  # which takes no less memory, and no minutes
    with reproducible(hp, device):
        model = ready(create_model(dataclasses.replace(hp, weights="random")), hp, device)
        # In evaluation mode BatchNorm takes one image as well, and what is kept for the gradient is the same.
        model.train(n_images > 1)
        images = torch.zeros(n_images, 3, hp.image_size, hp.image_size, device=device)
        stepper = Stepper(model, hp)
        stepper.add(images, torch.zeros(n_images, device=device), n_images)
        stepper.optimizer.step()  # fp16's scaler might leave it out, and with it the memory of the moments
