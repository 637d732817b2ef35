"""Regular files that a user named. A pipe, a device or a folder is refused, because reading one may never end."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

MAX_BYTES = 2**30
"""The size of the largest file that is read at once. An image or a table of this size is a mistake."""


def open_file(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    Raises:
        OSError: there is no such file, it cannot be read, or it is no regular file.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for somebody who writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    try:
        _require_regular(path, os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_file(path: Path) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: as `open_file`, or the file exceeds `MAX_BYTES`.
    """
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read()


def _require_regular(path: Path, found: os.stat_result) -> None:
    """Raise OSError if `found`, what is known of the file at `path`, is not that of a regular file."""
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
