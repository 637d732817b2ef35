"""What a power cut leaves of an SQLite storage: what was written before the last fsync of each file, nothing else."""

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.storage import studies
from mhist_tune.storage.database import open_storage
from tests.conftest import IMAGE_SETS

N_EPOCHS = 5
SCRIPT = Path(__file__).parents[1] / "support" / "announcing_writer.py"
_CALL = re.compile(
    r'(pwrite64|fdatasync|fsync|ftruncate|write)\((\d+)<([^>]*)>(?:, "([^"]*)"(\.\.\.)?)?(?:, (\d+))?(?:, (\d+))?\)'
)


@pytest.fixture
def trace(tmp_path: Path, make_definition: Callable[..., StudyDefinition]) -> tuple[Path, list[str]]:
    """The folder of a storage before epochs were recorded there, and the system calls of recording them."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    url = f"sqlite:///{tmp_path}/storage/mhist-tune.db"
    with open_storage(url) as storage:
        studies.create_study(
            storage, make_definition(n_trials=1, lease_s=600), dataset={"fingerprint": "f"}, image_sets=IMAGE_SETS
        )
    shutil.copytree(tmp_path / "storage", tmp_path / "before")
    calls = "trace=pwrite64,fdatasync,fsync,ftruncate,write"
    strace = ["strace", "-y", "-xx", "-s", "1000000", "-e", calls, "-o", str(tmp_path / "calls")]
    done = subprocess.run(
        [*strace, sys.executable, str(SCRIPT), url, str(N_EPOCHS)],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    if "PTRACE_TRACEME" in done.stderr:
        pytest.skip("this user may not trace processes")
    assert done.returncode == 0, done.stderr
    return tmp_path / "before", (tmp_path / "calls").read_text().splitlines()


def decoded(text: str) -> bytes:
    """Return the bytes that strace wrote as hexadecimal escapes."""
    return bytes.fromhex(text.replace("\\x", ""))


def n_epochs_in(folder: Path) -> int:
    """Return the number of recorded epochs that SQLite finds in a folder."""
    with closing(sqlite3.connect(folder / "mhist-tune.db")) as connection:
        [n] = connection.execute("SELECT count(*) FROM mhist_epochs").fetchone()
        return int(n)


def test_an_epoch_is_durable_when_it_is_announced(trace: tuple[Path, list[str]], tmp_path: Path) -> None:
    """The power is cut at each announcement: the storage that is left holds every announced epoch."""
    before, calls = trace
    written = {path.name: bytearray(path.read_bytes()) for path in before.iterdir() if path.is_file()}
    durable = {name: bytes(content) for name, content in written.items()}
    found = []
    for line in calls:
        match = _CALL.match(line)
        if match is None:
            continue
        call, descriptor, hexadecimal, data, cut, first, second = match.groups()
        assert cut is None, "strace shortened what was written"
        name = Path(decoded(hexadecimal).decode()).name
        if call == "write" and descriptor == "2":
            left = tmp_path / f"left-{len(found)}"
            left.mkdir()
            for file, content in durable.items():
                (left / file).write_bytes(content)
            found.append(n_epochs_in(left))
        elif name.startswith("mhist-tune.db") and not name.endswith("-shm"):
            content = written.setdefault(name, bytearray())
            if call == "pwrite64":
                offset = int(second)
                content.extend(bytes(max(0, offset + int(first) - len(content))))
                content[offset : offset + int(first)] = decoded(data)
            elif call == "ftruncate":
                del content[int(first) :]
            else:
                durable[name] = bytes(content)

    assert found == list(range(1, N_EPOCHS + 1))
