"""Standard streams that are closed, full, read in part or of another encoding: no traceback, and the right code."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mhist_tune.storage.database import open_storage

Run = Callable[..., tuple[int, str, str]]

COMMAND = (sys.executable, "-m", "mhist_tune")


@pytest.fixture
def call(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[bytes]"]:
    """A function that runs a command line in a process, by a shell that connects its streams as `{}` says."""
    (tmp_path / "storage").mkdir()
    open_storage(f"sqlite:///{tmp_path}/storage/mhist-tune.db").close()

    def run(how: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
        words = " ".join((*COMMAND, *arguments))
        shell = ["bash", "-o", "pipefail", "-c", how.format(words)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment}
        return subprocess.run(shell, capture_output=True, cwd=tmp_path, env=environment, timeout=120)

    return run


Call = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("{} | true", 0),
        ("{} 2>&1 | true", 0),
        ("{} >&-", 0),
        ("{} 2>&-", 0),
        ("{} >&- 2>&- <&-", 0),
        ("{} 2>/dev/full", 0),
        ("{} >/dev/full", 1),
        ("{} >/dev/full 2>&1", 1),
    ],
)
def test_a_stream_that_fails_gives_no_traceback(call: Call, how: str, code: int) -> None:
    """A reader that has ended is no error, nor is progress that cannot be written. Data that cannot be written is."""
    done = call(how, "studies", "--json")

    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stdout + done.stderr
    assert b"Exception ignored" not in done.stderr
    if how == "{} >/dev/full":
        assert done.stderr.splitlines()[-1] == b"error: cannot write to stdout: No space left on device"


@pytest.mark.parametrize("how", ["{} 2>&-", "{} 2>/dev/full", "{} 2> >(true)"])
def test_a_mistake_has_its_code_without_stderr(call: Call, how: str) -> None:
    """An error that cannot be printed is still an error, with its own exit code."""
    assert call(how, "status", "nothing").returncode == 2


def test_a_closed_stream_is_not_taken_by_a_file(call: Call, tmp_path: Path) -> None:
    """With stdout and stderr closed, what is printed does not end in the database that is opened next."""
    database = tmp_path / "storage" / "mhist-tune.db"
    assert call("{} >&- 2>&- <&-", "studies").returncode == 0

    assert database.read_bytes().startswith(b"SQLite format 3")
    with open_storage(f"sqlite:///{database}", create=False):
        pass


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=["C", "C without UTF-8", "ascii", "latin-1"],
)
def test_any_locale_can_show_everything(call: Call, environment: dict[str, str]) -> None:
    """Characters that an encoding lacks are escaped, also bytes of a name that are no text at all."""
    told = call("{}", "status", "'–€'", **environment)
    undecodable = call("{}", "status", "$'\\xff'", **environment)

    for done in (told, undecodable):
        assert done.returncode == 2
        assert b"error: there is no study" in done.stderr
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("studies",), ("status", "x"), ("doctor",)])
def test_a_removed_working_directory_is_named(call: Call, arguments: tuple[str, ...]) -> None:
    """Help is printed there; a command that needs the directory says that it was removed."""
    done = call("mkdir gone; cd gone; rmdir ../gone; {}", *arguments)

    if arguments[0].startswith("--"):
        assert (done.returncode, done.stderr) == (0, b"")
    else:
        said = b"error: the working directory was removed\n  hint: change into one that exists\n"
        assert (done.returncode, done.stderr) == (2, said)
