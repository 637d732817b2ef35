"""The lock files: what pyproject.toml asks for is in them, with hashes."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
GPU = re.compile(r"torch|torchvision|triton|nvidia-.*|cuda-.*")


def locked(name: str) -> dict[str, str]:
    """Return the versions of a lock file; each has a hash."""
    text = (ROOT / "locks" / name).read_text()
    entries = re.findall(r"^(\S+)==(\S+)(.*)\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE)
    assert len(entries) == len([line for line in text.splitlines() if line and line[0] not in "# "])
    return {canonicalize_name(package): version for package, version, *_ in entries}


def requirements() -> list[Requirement]:
    """Return what the image installs: the dependencies and those of the extras `s3` and `power`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [text for extra in ("s3", "power") for text in project["optional-dependencies"][extra]]
    return [Requirement(text) for text in (*project["dependencies"], *extras)]


@pytest.mark.parametrize("requirement", requirements(), ids=lambda one: one.name)
def test_every_dependency_is_locked(requirement: Requirement) -> None:
    """A dependency that is added or raised in pyproject.toml needs `make locks`."""
    version = locked("cuda.txt").get(canonicalize_name(requirement.name))
    assert version is not None, f"{requirement.name} is not in locks/cuda.txt: run make locks"
    assert requirement.specifier.contains(version), f"{requirement} does not allow {version}: run make locks"


def test_a_cpu_has_the_same_versions_without_the_libraries_of_gpus() -> None:
    """The two files differ in torch, which another index has for CPUs, and in what it needs for GPUs."""
    cuda, cpu = locked("cuda.txt"), locked("cpu.txt")
    assert cpu == {name: version for name, version in cuda.items() if not GPU.fullmatch(name)}
    assert {"torch", "torchvision", "triton", "nvidia-cublas"} <= cuda.keys()


def test_the_image_installs_what_is_locked() -> None:
    """Every installation in the image checks hashes, but that of torch for CPUs and of the package itself."""
    text = (ROOT / "Dockerfile").read_text()
    free = [line for line in re.findall("pip install.*", text) if "--require-hashes" not in line]
    assert [line.split()[-2:] for line in free] == [["torch.txt", "\\"], ["--no-build-isolation", "."]]
    assert locked("build.txt").keys() >= {"hatchling", "packaging", "pathspec", "pluggy"}
