"""The power that a training takes, by the energy counter of an NVIDIA GPU. Other devices have none.

It needs `nvidia-ml-py`. Whatever fails here costs the measurement, never the training.
"""

import contextlib
import functools
from types import ModuleType
from typing import Any

import torch


def energy_j(device: torch.device) -> float | None:
    """Return the energy in joules that a device has used since its driver was loaded; None if that is not known."""
    if device.type != "cuda" or (found := _handle(device.index or 0)) is None:
        return None
    nvml, handle = found
    with contextlib.suppress(nvml.NVMLError):
        return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    return None


def mean_w(device: torch.device, *, since_j: float, elapsed_s: float) -> float | None:
    """Return this process's share of the mean power in watts; None if it is not known.

    Processes that compute on one device share its power equally.

    Args:
        device: the device.
        since_j: its energy at the beginning.
        elapsed_s: the seconds since then, above 0.
    """
    now_j, found = energy_j(device), _handle(device.index or 0)
    if now_j is None or found is None:
        return None
    nvml, handle = found
    with contextlib.suppress(nvml.NVMLError):
        n_processes = len(nvml.nvmlDeviceGetComputeRunningProcesses(handle))
        return (now_j - since_j) / elapsed_s / max(1, n_processes)
    return None


@functools.cache
def _handle(index: int) -> tuple[ModuleType, Any] | None:
    """Return NVML and its handle of the CUDA device with this index in this process; None without NVML."""
    try:
        import pynvml
    except ImportError:
        return None
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        # By UUID: CUDA_VISIBLE_DEVICES renumbers torch's devices, and NVML's not.
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(index).uuid}")
    return None
