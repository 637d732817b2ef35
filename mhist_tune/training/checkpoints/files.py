"""The operations on checkpoint files, and their implementation for a folder.

Optuna's artifact stores read, write and remove in the same way; `checkpoint_places` uses them for S3. A folder has its
own implementation, because Optuna's may leave a part of a file.
"""

import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import BinaryIO, Protocol

from mhist_tune.errors import DiskFullError
from mhist_tune.writing import replaced

_CHUNK_BYTES = 8 * 2**20


class Files(Protocol):
    """Named files, each whole or absent. A name consists of letters, digits, ``. _ -`` and slashes.

    Each method raises OSError, or StoreUnreachableError if the store is unreachable and may answer later.

    Attributes:
        place: where the files are; the same text on every machine that reaches the same files.
    """

    place: str

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the bytes of each file below a prefix, by name. The prefix ends with a slash, or is empty for all."""

    def read(self, name: str) -> bytes:
        """Return the content of a file, or raise FileNotFoundError."""

    def write(self, name: str, body: BinaryIO) -> None:
        """Write a file durably. An error of reading `body` is raised, and no file stays."""

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens if there is none."""


class Folder:
    """Files in a folder. Several processes, and machines that share the folder, may use it at once.

    A name has one writer at a time, because it contains the token of a lease.
    """

    def __init__(self, path: Path, place: str | None = None) -> None:
        self.path = path
        self.place = place or str(path)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the bytes of each file below a prefix, by name."""
        sizes_by_name = {}
        for folder, _, names in os.walk(self.path / prefix, onerror=_raise_unless_gone):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    sizes_by_name[path.relative_to(self.path).as_posix()] = path.stat().st_size
        return sizes_by_name

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return (self.path / name).read_bytes()

    def write(self, name: str, body: BinaryIO) -> None:
        """Write a file durably."""
        path = self.path / name
        try:
            with (
                replaced(path, is_only_writer=True, is_private=True, is_for_group=True) as partial,
                partial.open("wb") as file,
            ):
                shutil.copyfileobj(body, file, _CHUNK_BYTES)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFullError(f"no space is left for the checkpoint {path}", hint="free some space") from error
            raise

    def remove(self, name: str) -> None:
        """Remove a file, and its folder if it is empty then."""
        path = self.path / name
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
