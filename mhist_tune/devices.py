"""What a worker is told before it starts, and the devices of this machine; light, so that whoever starts workers is."""

import os
from dataclasses import dataclass
from pathlib import Path

from mhist_tune.errors import UsageError
from mhist_tune.stages import Stage

_WORKER_BYTES = 2.7e9  # a little over the peak of ResNet-18 at 224 px in batches of 32: bench.speed.memory
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker needs to know; picklable, since every device has a process of its own.

    Attributes:
        study: the study to serve; None for every study that has slots.
        stages: the stages to serve; None for all, see `worker.WORK`.
        wait: stay for more when no slot is left.
        checkpoints: where training states are kept, see `open_checkpoints`; None for the storage folder.
        checkpoints_gb: how many GB they may take; None for no limit.
    """

    storage_url: str
    data_root: Path
    study: str | None = None
    stages: tuple[Stage, ...] | None = None
    wait: bool = False
    checkpoints: str | None = None
    checkpoints_gb: float | None = None


def parse_devices(text: str, per_device: int | None) -> list[str]:
    """Return one torch device name per worker, for `all`, `cpu`, or indices such as `0,1`.

    Args:
        text: the devices.
        per_device: workers on each; None for one on a GPU, and on a CPU for one per core, within memory: there two
            one-thread workers finish more trials than one with two threads.

    Raises:
        UsageError: no such device on this machine.
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
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """Return the memory of this machine, or of the container around this process."""
    limit = _CONTAINER_LIMIT.read_text().strip() if _CONTAINER_LIMIT.exists() else "max"
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(machine, int(limit)) if limit.isdecimal() else machine


def _n_cuda() -> int:
    import torch

    return torch.cuda.device_count()
