"""Tests of mhist_tune.training.memory: what goes back to the machine. What fits a device is tested with the probe."""

from pathlib import Path

import torch

from mhist_tune.training import memory


def resident_bytes() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def test_what_is_free_in_the_middle_of_the_heap_goes_back_to_the_machine() -> None:
    """Freed small tensors stay resident below one that is still there, until memory is freed."""
    n_pieces, n_floats = 4000, 16_000
    pieces = [torch.ones(n_floats) for _ in range(n_pieces)]
    kept = pieces[-1]
    del pieces[:]
    before = resident_bytes()

    memory.free(torch.device("cpu"))

    assert before - resident_bytes() > n_pieces * n_floats * 4 / 2
    assert kept.sum() == n_floats
