"""Where checkpoint files lie: the few things that a store must be able to do, and a folder that does them.

Reading, writing and removing are those of Optuna's artifact stores, which `checkpoint_places` uses for S3. A folder has
its own implementation here, because Optuna's may leave half a file behind.
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
    """Named files, each there whole or not at all; a name is letters, digits, ``. _ -`` and slashes.

    Each method raises OSError, or StoreAwayError where the store may answer later.

    Attributes:
        place: where the files are, the same text on every machine that reaches them there.
    """

    place: str

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the bytes of each file below a prefix (one that ends with a slash, or all for none), by name."""

    def read(self, name: str) -> bytes:
        """Return a file's content, or raise FileNotFoundError."""

    def write(self, name: str, body: BinaryIO) -> None:
        """Write a file, durably before this returns. What reading `body` raises comes through, and nothing stays."""

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens if there is none."""


class Folder:
    """Files in a folder, which several processes, or machines that share it, may use at once.

    A name has one writer at a time: it holds a lease's token.
    """

    def __init__(self, path: Path, place: str | None = None) -> None:
        self.path = path
        self.place = place or str(path)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the bytes of each file below a prefix, by name."""
        found = {}
        for folder, _, names in os.walk(self.path / prefix, onerror=_raise_unless_gone):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    found[path.relative_to(self.path).as_posix()] = path.stat().st_size
        return found

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        return (self.path / name).read_bytes()

    def write(self, name: str, body: BinaryIO) -> None:
        """Write a file, durably before this returns."""
        path = self.path / name
        try:
            with replaced(path, is_only_writer=True) as partial, partial.open("wb") as file:
                shutil.copyfileobj(body, file, _CHUNK_BYTES)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFullError(f"no space is left for the checkpoint {path}", hint="free some space") from error
            raise

    def remove(self, name: str) -> None:
        """Remove a file, and its folder if that is empty then."""
        path = self.path / name
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
