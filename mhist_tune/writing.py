"""Files that are written whole or not at all, and folders that a user chose for output."""

import contextlib
import itertools
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from mhist_tune.errors import UsageError

PARTIAL = ".partial"
"""The end of the name of a file that is being written."""


@contextlib.contextmanager
def replaced(
    path: Path, *, is_only_writer: bool = False, is_private: bool = False, is_for_group: bool = False
) -> Iterator[Path]:
    """Yield the path of a file to write; when the block ends, that file replaces `path`.

    A reader sees the old file or the new one, never a part, and a crash of the machine leaves one of them: the file
    and its folder are synced. If the block raises, `path` stays as it is. A killed process leaves the unfinished
    file, whose name ends with `PARTIAL`.

    Args:
        path: the file to replace or create; its folder is created.
        is_only_writer: whether nobody else writes this file at the same time. The unfinished file then has one fixed
            name, so that the next writer overwrites what a killed one left.
        is_private: whether only this user may read the file, and its folder where that is created here.
        is_for_group: whether the user's group may too, as far as the umask allows it; with `is_private`.

    Raises:
        OSError: the file cannot be written.
    """
    if is_private:
        private_folder(path.parent, is_for_group=is_for_group)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ("" if is_only_writer else f".{uuid.uuid4().hex}") + PARTIAL)
    try:
        if is_private:
            partial.unlink(missing_ok=True)  # a killed writer's, which others may be able to read
            private_file(partial, is_for_group=is_for_group)
        yield partial
        _sync(partial)
        partial.replace(path)
        # Some network file systems cannot sync a folder; the file has been synced before.
        with contextlib.suppress(OSError):
            _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def private_folder(folder: Path, *, is_for_group: bool = False) -> None:
    """Create a folder that only this user may enter. An existing one keeps its mode.

    Args:
        folder: its parents are created too, with the same mode.
        is_for_group: whether the user's group may enter it too, as far as the umask allows it.

    Raises:
        OSError: it cannot be created.
    """
    missing = list(itertools.takewhile(lambda parent: not parent.exists(), folder.parents))
    for one in (*reversed(missing), folder):
        one.mkdir(mode=0o770 if is_for_group else 0o700, exist_ok=True)


def private_file(path: Path, *, is_for_group: bool = False) -> None:
    """Create an empty file that only this user may read or write. An existing one keeps its content and its mode.

    Args:
        path: its folder must exist.
        is_for_group: whether the user's group may too, as far as the umask allows it.

    Raises:
        OSError: it cannot be created.
    """
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o660 if is_for_group else 0o600))


@contextlib.contextmanager
def output_folder(folder: Path, what: str, *, hint: str = "choose another folder") -> Iterator[None]:
    """Create the folder that a command writes to; the block writes the files.

    Args:
        folder: the folder.
        what: what is written, for the message, such as "the report".
        hint: the remedy in the error message.

    Raises:
        UsageError: the folder or a file in it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UsageError(f"cannot write {what} into {folder}: {error.strerror}", hint=hint) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
