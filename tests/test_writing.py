"""Files that are written whole or not at all."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from mhist_tune.errors import UsageError
from mhist_tune.writing import PARTIAL, output_folder, replaced


def write_and_die(path: Path, place: str) -> None:
    """Replace a file, and kill this process in the middle of its content or right before it is renamed."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if place == "rename":
        Path.replace = die  # type: ignore[method-assign, assignment]
    with replaced(path, is_only_writer=True) as partial, partial.open("wb") as file:
        file.write(b"new")
        file.flush()
        if place == "content":
            die()


@pytest.mark.parametrize("place", ["content", "rename"])
def test_a_crash_leaves_the_old_file_whole(place: str, tmp_path: Path) -> None:
    """A process that is killed while it writes, or before the rename, changes nothing; the next one clears up."""
    path = tmp_path / "file"
    path.write_bytes(b"old and longer")
    process = multiprocessing.get_context("fork").Process(target=write_and_die, args=(path, place))
    process.start()
    process.join()

    assert process.exitcode == -signal.SIGKILL
    assert path.read_bytes() == b"old and longer"
    assert [left.name for left in tmp_path.iterdir() if left != path] == [f"file{PARTIAL}"]

    with replaced(path, is_only_writer=True) as partial:
        partial.write_bytes(b"next")
    assert path.read_bytes() == b"next"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """Where the writing raises, the error comes through, the old file stays, and no unfinished one does."""
    path = tmp_path / "new folder" / "file"
    with replaced(path) as partial:
        partial.write_text("old")
    with pytest.raises(ZeroDivisionError), replaced(path) as partial:
        partial.write_text("new")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    """Two that write one file at a time have an unfinished file each; the last one to end stays, whole."""
    path = tmp_path / "file"
    with replaced(path) as first:
        first.write_text("first")
        with replaced(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_synced_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash of the machine may lose what was not synced: first the content, then the name."""
    path = tmp_path / "file"
    synced = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink(), path.exists()))

    monkeypatch.setattr(os, "fsync", noted)
    with replaced(path, is_only_writer=True) as partial:
        partial.write_text("content")

    assert synced == [(partial, False), (tmp_path, True)]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The message names what was to be written, the folder and the reason."""
    (tmp_path / "taken").write_text("")
    with (
        pytest.raises(UsageError, match=r"cannot write the report into .*taken: File exists") as caught,
        output_folder(tmp_path / "taken", "the report", hint="choose another"),
    ):
        pass
    assert caught.value.hint == "choose another"


def test_private_files_are_for_this_user_alone(tmp_path: Path) -> None:
    """Whatever the umask, and whatever mode a killed writer left; an existing folder keeps its mode."""
    (tmp_path / "file.partial").write_text("left by a killed writer")
    (tmp_path / "file.partial").chmod(0o666)
    before = os.umask(0)
    try:
        for path in (tmp_path / "file", tmp_path / "new" / "file"):
            with replaced(path, is_only_writer=True, is_private=True) as partial:
                assert partial.stat().st_mode & 0o777 == 0o600
                partial.write_text("secret")
            assert path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
