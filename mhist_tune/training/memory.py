"""Running out of memory: recognizing it, finding the micro-batch that fits, and returning freed memory."""

import ctypes
import dataclasses
import gc

import torch

from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.training import weight_files
from mhist_tune.training.forward import ready, reproducible
from mhist_tune.training.models import create_model, has_batch_norm
from mhist_tune.training.step import Stepper

# Only torch's GPU allocator raises OutOfMemoryError. Errors of the CPU allocator, CUDA and cuBLAS are recognized by
# their message.
_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE_BYTES = 2**25  # larger blocks go back to the system: keeping them raised a worker's peak by 0.2 GB
_KEPT_BYTES = 2**30


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that the device or the machine has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _MESSAGES)


def device_fault(error: BaseException) -> str | None:
    """Return what is wrong with the device as the end of a sentence; None if the error is not the device's fault."""
    if is_out_of_memory(error):
        return "has no memory left"
    return "failed" if isinstance(error, torch.AcceleratorError) else None


def free(device: torch.device) -> None:
    """Return unused memory to the device; for a CPU, to the operating system."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def keep_freed() -> None:
    """Make glibc keep the memory of freed tensors up to 32 MB.

    By default glibc returns it to the system, and every training step pays for page faults again.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def is_coupled(hp: Hyperparameters) -> bool:
    """Return whether the micro-batch size changes results, because the model has BatchNorm that is not frozen."""
    return has_batch_norm(create_model(weight_files.without(hp)))


def fitting_micro_batch_size(hp: Hyperparameters, device: torch.device, n_images: int) -> int | None:
    """Return the largest of n_images, n_images // 2, n_images // 4, ... whose training step fits into memory.

    Each size is tried with a real update. None if not even one image fits.
    """
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
    hp = dataclasses.replace(hp, compile="off")  # takes at least as much memory as compiled, but no minutes to compile
    with reproducible(hp, device):
        model = ready(create_model(weight_files.without(hp)), hp, device)
        # BatchNorm refuses a single image in training mode. Evaluation mode keeps the same tensors for the gradient.
        model.train(n_images > 1)
        images = torch.zeros(n_images, 3, hp.image_size, hp.image_size, device=device)
        stepper = Stepper(model, hp)
        stepper.add(images, torch.zeros(n_images, device=device), n_images)
        stepper.optimizer.step()  # directly: fp16's scaler may skip it, and then the moments take no memory
