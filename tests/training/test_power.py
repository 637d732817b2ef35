"""The mean power of an epoch: from the energy counter of a GPU, and nothing without one."""

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from mhist_tune.training import power


class _Nvml:
    """NVML of a machine with one GPU, "GPU-b": 1,000 J used before, 250 W, and two processes that compute."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.seconds = 0.0
        self.is_supported = True

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != "GPU-b":
            raise self.NVMLError("not found")
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if not self.is_supported:
            raise self.NVMLError("not supported")
        return int(1000 * (1000 + 250 * self.seconds))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[int]:
        return [1, 2]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Nvml]:
    """NVML in place of the real one: no machine of ours has a GPU. torch's device 0 is "GPU-b"."""
    stand_in = _Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", stand_in)
    uuids = {0: "b", 1: "MIG"}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=uuids[index]))
    power._handle.cache_clear()
    yield stand_in
    power._handle.cache_clear()


def test_processes_share_the_power_of_a_gpu(nvml: _Nvml) -> None:
    """Over four seconds the GPU took 1,000 J; two processes have 125 W each."""
    device = torch.device("cuda:0")
    before = power.energy_j(device)
    assert before == 1000
    nvml.seconds = 4
    assert power.mean_w(device, since_j=before, elapsed_s=4) == 125


def test_what_has_no_counter_has_no_power(nvml: _Nvml) -> None:
    """A CPU, a device that NVML does not know by its UUID, and one without a counter measure nothing."""
    assert power.energy_j(torch.device("cpu")) is None
    assert power.energy_j(torch.device("cuda:1")) is None
    nvml.is_supported = False
    assert power.energy_j(torch.device("cuda:0")) is None
    assert power.mean_w(torch.device("cuda:0"), since_j=0, elapsed_s=1) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a GPU")
def test_a_machine_without_a_gpu_measures_nothing() -> None:
    """With the real library, which finds no driver, there is no energy and no error."""
    pytest.importorskip("pynvml")
    power._handle.cache_clear()
    assert power.energy_j(torch.device("cuda:0")) is None


def test_without_the_library_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """`nvidia-ml-py` is optional."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    power._handle.cache_clear()
    assert power.energy_j(torch.device("cuda:0")) is None
    power._handle.cache_clear()
