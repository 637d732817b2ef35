"""Reading what a user named: regular files, and nothing that never ends."""

import os
from pathlib import Path

import pytest

from mhist_tune import reading


def test_a_file_and_a_link_to_it_are_read(tmp_path: Path) -> None:
    """A symbolic link to a regular file is as good as the file."""
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert reading.read_file(tmp_path / "file") == reading.read_file(tmp_path / "link") == b"content"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pipe", "not a regular file"),
        ("device", "not a regular file"),
        ("folder", "Is a directory"),
        ("loop", "Too many levels"),
        ("absent", "No such file"),
        ("nul\0", "null byte"),
        ("x" * 300, "name too long"),
        ("huge", "File too large"),
    ],
)
def test_anything_else_is_refused_at_once(tmp_path: Path, kind: str, message: str) -> None:
    """A pipe without a writer, an endless device and a sparse terabyte are errors, not waits."""
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(2**40)
    with pytest.raises(OSError, match=message):
        reading.read_file(path)
