"""Bad inputs of every kind: one line each, the right exit code, in time, and nothing is left behind.

MHIST_TUNE_FUZZ_CASES sets the number of cases, and MHIST_TUNE_FUZZ_SEED chooses others.
"""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import constants

from mhist_tune.cli import main
from tests.support.bad_inputs import Case, cases

N_CASES = int(os.environ.get("MHIST_TUNE_FUZZ_CASES", "640"))
SEED = int(os.environ.get("MHIST_TUNE_FUZZ_SEED", "0"))
N_PARTS = 8
LIMIT_S = 20
MOST_TEXT = 40_000


@dataclass(frozen=True)
class Result:
    """What a command line did."""

    code: object
    out: str
    err: str


class Hangs(BaseException):
    """A command did not end in time."""


def stop(*_: object) -> None:
    raise Hangs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory for one case after the other, without settings from outside."""
    for name in [name for name in os.environ if name.startswith(("MHIST_TUNE_", "AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MHIST_TUNE_MAX_OUTAGE", "0.001")  # a worker does not wait for an address without a database
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # read when the library is imported, as in a process of its own
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    before = signal.signal(signal.SIGALRM, stop)
    yield work
    signal.signal(signal.SIGALRM, before)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def prepare(folder: Path, case: Case) -> set[str]:
    """Empty the folder, put into it what cases name, and return the names."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (folder / "file").write_text("x")
    (folder / "empty").mkdir()
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")
    for name, content in case.files.items():
        (folder / name).write_bytes(content)
    return names_in(folder)


def run(case: Case, data: Path) -> Result:
    """Run a case in this process."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    signal.alarm(LIMIT_S)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([word.replace("{data}", str(data)) for word in case.arguments])
    except SystemExit as left:
        code = left.code
    except Hangs:
        code = f"nothing for {LIMIT_S} s"
    finally:
        signal.alarm(0)
    return Result(code, out.getvalue(), err.getvalue())


def fault(case: Case, result: Result, left: set[str]) -> str | None:
    """Return what is wrong with a result; None if nothing is."""
    text = result.out + result.err
    wanted = {0, 2, 3, 4} | ({1} if case.arguments[0] == "doctor" else set())
    if result.code not in wanted:
        return f"exit code {result.code}: {result.err[-300:]}"
    if "error: unexpected " in result.err or "Traceback" in text:
        return f"not foreseen: {result.err[-300:]}"
    if "SECRET" in text:
        return "shows a password"
    if any(char in text for char in "\x00\x1b\u202e"):
        return "passes on control characters"
    if result.code and "rror: " not in result.err:
        return f"does not say what is wrong: {result.err[-300:]}"
    if result.code and left:
        return f"leaves {left}"
    if result.code and len(result.err) > MOST_TEXT:
        return f"prints {len(result.err)} characters"
    return None


@pytest.mark.parametrize("part", range(N_PARTS))
def test_bad_inputs_end_in_one_line(part: int, folder: Path, generated: Path) -> None:
    """No traceback, no hang, no password and no control character; a refused command leaves nothing."""
    found = []
    for case in cases(SEED, N_CASES)[part::N_PARTS]:
        before = prepare(folder, case)
        result = run(case, generated)
        if wrong := fault(case, result, names_in(folder) - before):
            found.append((case.kind, [word[:80] for word in case.arguments], wrong))

    assert not found


@pytest.mark.parametrize("case", cases(SEED + 1, 3), ids=lambda case: case.kind)
def test_a_process_does_the_same(case: Case, folder: Path, generated: Path) -> None:
    """The command itself behaves as its function does, with the same exit code."""
    prepare(folder, case)
    expected = run(case, generated)
    before = prepare(folder, case)
    words = [word.replace("{data}", str(generated)) for word in case.arguments]
    if any("\0" in word for word in words):
        pytest.skip("no process can be given a NUL")
    done = subprocess.run(
        [sys.executable, "-m", "mhist_tune", *words],
        capture_output=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    assert result.code == expected.code
    assert fault(case, result, names_in(folder) - before) is None
