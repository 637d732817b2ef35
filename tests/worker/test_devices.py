"""Names of devices, and the number of workers on each."""

from pathlib import Path

import pytest

from mhist_tune.worker import devices


@pytest.fixture
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU."""
    monkeypatch.setattr(devices, "n_cores", lambda: 16)
    monkeypatch.setattr(devices, "_n_cuda", lambda: 0)


@pytest.mark.parametrize(("gigabytes", "n_workers"), [(64, 16), (10, 3), (1, 1)])
@pytest.mark.parametrize("text", ["cpu", "all"])
def test_a_cpu_has_a_worker_for_each_core_that_memory_allows(
    sixteen_cores: None, monkeypatch: pytest.MonkeyPatch, text: str, gigabytes: int, n_workers: int
) -> None:
    """Sixteen cores run sixteen workers if there are 2.7 GB for each, and at least one worker."""
    monkeypatch.setattr(devices, "memory_bytes", lambda: int(gigabytes * 1e9))

    assert devices.parse_devices(text, None) == ["cpu"] * n_workers
    assert devices.parse_devices(text, 3) == ["cpu"] * 3


def test_a_container_has_less_memory_than_its_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The container's limit is the memory; `max` means no limit."""
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(devices, "_CONTAINER_LIMIT", limit)
    whole = devices.memory_bytes()
    limit.write_text("123456789\n")
    assert devices.memory_bytes() == 123456789 < whole
    limit.write_text("max\n")
    assert devices.memory_bytes() == whole
