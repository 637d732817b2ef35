"""Names of devices, and the cores and memory of this machine. Imports nothing heavy."""

import os
from pathlib import Path

from mhist_tune.errors import UsageError

_WORKER_BYTES = 2.7e9  # a little over the peak of ResNet-18 at 224 px in batches of 32: bench.speed.memory
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def parse_devices(text: str, per_device: int | None) -> list[str]:
    """Return one torch device name per worker, for `all`, `cpu`, or indices such as `0,1`.

    Args:
        text: the devices.
        per_device: the number of workers on each device. None means one on a GPU, and on a CPU one per core, as far as
            the memory allows: two workers with one thread each finish more trials than one with two threads.

    Raises:
        UsageError: this machine has no such device.
    """
    n_cuda = 0 if text == "cpu" else _n_cuda()
    if text in ("cpu", "all") and n_cuda == 0:
        return ["cpu"] * (per_device or max(1, min(n_cores(), int(memory_bytes() / _WORKER_BYTES))))
    indices = [str(index) for index in range(n_cuda)] if text == "all" else text.split(",")
    if not all(index.isdecimal() and int(index) < n_cuda for index in indices):
        raise UsageError(
            f"--devices {text}: this machine has {n_cuda} CUDA devices",
            hint="--devices all, --devices cpu or --devices 0,1",
        )
    return [f"cuda:{int(index)}" for index in indices for _ in range(per_device or 1)]


def n_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """Return the bytes of memory of this machine, or of the container around this process if that is less."""
    limit = _CONTAINER_LIMIT.read_text().strip() if _CONTAINER_LIMIT.exists() else "max"
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(machine, int(limit)) if limit.isdecimal() else machine


def _n_cuda() -> int:
    import torch

    return torch.cuda.device_count()
