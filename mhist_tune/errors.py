"""The errors that mhist-tune raises for its user, as one tree with exit codes.

MhistTuneError              exit 1   a run failed
├── DeviceError                      the device failed; a new process may be able to use it
├── UnexpectedError                  an error that nobody foresaw; its traceback is in a file
├── UsageError              exit 2   the command or the study definition is wrong
│   ├── DefinitionError              all problems of one definition at once
│   ├── StudyNotFoundError
│   └── StudyExistsError             the name is taken by another definition
├── DataError               exit 3   the data set is missing, damaged or another one
└── StorageError            exit 4   the database or the storage folder cannot be used
    ├── DiskFullError                no space is left for a checkpoint
    ├── StoreUnreachableError        the checkpoint store does not answer
    └── NoStorageError               nothing is there yet
"""

import difflib
from collections.abc import Iterable
from typing import Any

from mhist_tune.words import one_line

_N_PROBLEMS = 100  # as many as are shown
_LONGEST_NAME = 100  # finding a similar name takes the square of its length


class MhistTuneError(Exception):
    """Base of all errors that are shown to the user without a traceback.

    Both texts are shown on one line each, see `one_line`: they may quote what a user wrote.

    Args:
        message: what went wrong and where, without a full stop and without secrets.
        hint: how to fix it, one line; None if no remedy is known.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(one_line(message))
        self.hint = None if hint is None else one_line(hint)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a pipe carry the error whatever the parameters of its class are."""
        return Exception.__new__, (type(self), *self.args), vars(self)


class DeviceError(MhistTuneError):
    """The device failed or its memory ran out, whatever the trial. A new process may be able to continue."""


class UnexpectedError(MhistTuneError):
    """An error that nobody foresaw. `tracebacks.unexpected` makes it of any exception."""


class UsageError(MhistTuneError):
    """The command line or a study definition asks for something that does not exist."""

    exit_code = 2


class DefinitionError(UsageError):
    """A study definition has problems. The message lists them, one on each line.

    Args:
        source: the file, or what else the message should name.
        problems: one text for each problem.
    """

    def __init__(self, source: str, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        n = len(self.problems)
        head = f"{source} has {n} problem{'s' if n != 1 else ''}:"
        super().__init__(head)
        shown = [f"  {one_line(problem)}" for problem in self.problems[:_N_PROBLEMS]]
        rest = [f"  and {n - _N_PROBLEMS} more"] if n > _N_PROBLEMS else []
        self.args = ("\n".join([str(self), *shown, *rest]),)


class StudyNotFoundError(UsageError):
    """The storage has no study of that name."""


class StudyExistsError(UsageError):
    """A study of that name exists with another definition."""


class DataError(MhistTuneError):
    """The data set is missing, damaged, or not the one that the study was created with."""

    exit_code = 3


class StorageError(MhistTuneError):
    """The database or the storage folder cannot be reached or written."""

    exit_code = 4


class DiskFullError(StorageError):
    """The disk or the budget for checkpoints is full. Space may become free later."""


class StoreUnreachableError(StorageError):
    """The checkpoint store is unreachable. It may answer later."""


class NoStorageError(StorageError):
    """The database does not exist yet, or does not contain mhist-tune's tables."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean X?)" with the most similar known name; an empty string if none is similar."""
    near = difflib.get_close_matches(name, list(known), n=1) if len(name) <= _LONGEST_NAME else []
    return f" (did you mean {near[0]}?)" if near else ""
