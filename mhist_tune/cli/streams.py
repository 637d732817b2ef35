"""The standard streams of the command line. They may be closed, full, or of an encoding that lacks a character.

What is said on stderr never ends the work that it is about. Data that cannot be written to stdout is an error, but for
a reader that has ended, as with `| head`.
"""

import codecs
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from mhist_tune.errors import MhistTuneError


class OutputEnded(Exception):
    """Nobody reads stdout any more. click has an exit code of its own for a broken pipe, so this is another class."""


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Replace stdout and stderr by streams that cope, until the block ends."""
    _open_missing()
    before = sys.stdout, sys.stderr
    for stream in before:
        _write_everything(stream)
    # The classes have what a text stream has, from the stream that they stand for.
    sys.stdout, sys.stderr = cast(TextIO, _Output(sys.stdout)), cast(TextIO, _Progress(sys.stderr))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            _end(stream)


def discard(stream: TextIO) -> None:
    """Send all that is still written to a stream nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Progress:
    """A text stream whose writes do not fail."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it was closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Output:
    """A text stream whose failed writes are errors for the user."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _explained():
            return self._stream.write(text)

    def flush(self) -> None:
        with _explained():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise OutputEnded from error
    except OSError as error:
        raise MhistTuneError(f"cannot write to stdout: {error.strerror}") from error


def _open_missing() -> None:
    """Open the standard streams that the caller closed. A file that is opened would take their numbers."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # until the process ends


def _write_everything(stream: TextIO) -> None:
    """Let a stream escape the characters that it cannot encode. One of ASCII becomes UTF-8, as click has it."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        is_ascii = codecs.lookup(stream.encoding).name == "ascii"
        reconfigure(encoding="utf-8" if is_ascii else None, errors="backslashreplace")


def _end(stream: TextIO) -> None:
    """Write what is left. Where that fails, drop it, so that the interpreter does not try again and complain."""
    try:
        stream.flush()
    except (OSError, ValueError):
        discard(stream)
