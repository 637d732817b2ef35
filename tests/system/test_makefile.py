"""The Makefile: its help, and one clear line where an installation cannot work."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True)


def test_help_is_the_default() -> None:
    """`make` alone lists every target and does nothing."""
    result = make()
    assert result.returncode == 0
    listed = [line.split()[1] for line in result.stdout.splitlines()]
    wanted = (
        "help demo setup test fuzz chaos test-browser compose-test locks sbom check bench bench-gpu bench-search clean"
    )
    assert listed == wanted.split()


@pytest.mark.parametrize(
    ("missing", "hint"),
    [("sys.version_info", "make PYTHON=python3.12 setup"), ("ensurepip", "apt install python3-venv")],
)
def test_unfit_python_is_one_line(tmp_path: Path, missing: str, hint: str) -> None:
    """A Python that is too old, or Debian's without python3-venv, is named with the remedy; nothing is made."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$2" in *{missing}*) exit 1;; esac\n')
    python.chmod(0o755)
    result = make("setup", f"PYTHON={python}", f"VENV={tmp_path}/venv")
    errors = [line for line in result.stderr.splitlines() if not line.startswith("make:")]
    assert result.returncode == 2
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert errors[0].endswith(f"hint: {hint}")
    assert not (tmp_path / "venv").exists()


def test_tests_are_checked_first() -> None:
    """`make test` includes every check and then runs pytest on everything."""
    lines = [line.split("bin/")[-1] for line in make("--dry-run", "--assume-old=setup", "test").stdout.splitlines()]
    wanted = ["ruff format --check", "ruff check", "mypy", "lint-imports", "check-jsonschema", "kubernetes-validate"]
    wanted += ["hadolint", "shellcheck", "python -m pytest"]
    found = [next((one for one in wanted if line == one or line.startswith(f"{one} ")), None) for line in lines]
    assert [one for one in found if one is not None] == wanted
