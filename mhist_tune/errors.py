"""Everything that mhist-tune raises for its user, in one tree.

MhistTuneError              exit 1   a run failed
├── DeviceError                      the device failed; a new process may be able to use it
├── UsageError              exit 2   the command or the study definition is wrong
│   ├── DefinitionError              all problems of one definition at once
│   ├── StudyNotFoundError
│   └── StudyExistsError             the name is taken by another definition
├── DataError               exit 3   the data set is missing, damaged or another one
└── StorageError            exit 4   the database or the storage folder cannot be used
    ├── DiskFullError                no space is left for a checkpoint
    ├── StoreAwayError               the checkpoint store does not answer
    └── NoStorageError               nothing is there yet
"""

import difflib
from collections.abc import Iterable


class MhistTuneError(Exception):
    """One clear line (what, where) and, if there is one, a remedy.

    Args:
        message: what went wrong, without a full stop and without a secret in it.
        hint: what to do about it, one line.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class DeviceError(MhistTuneError):
    """The device failed, or its memory ran out; no trial is to blame, and a new process may be able to go on."""


class UsageError(MhistTuneError):
    """The command line or a study definition asks for something that does not exist."""

    exit_code = 2


class DefinitionError(UsageError):
    """A study definition has problems; all of them are listed, each on its own line."""

    def __init__(self, source: str, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        n = len(self.problems)
        head = f"{source} has {n} problem{'s' if n != 1 else ''}:"
        super().__init__("\n".join([head, *(f"  {problem}" for problem in self.problems)]))


class StudyNotFoundError(UsageError):
    """No study of that name is in the storage."""


class StudyExistsError(UsageError):
    """A study of that name exists with another definition."""


class DataError(MhistTuneError):
    """The data set is missing, damaged, or not the one that the study was created with."""

    exit_code = 3


class StorageError(MhistTuneError):
    """The database or the storage folder cannot be reached or written."""

    exit_code = 4


class DiskFullError(StorageError):
    """No space is left for checkpoints, or none in their budget; some may be made."""


class StoreAwayError(StorageError):
    """The store of the checkpoints does not answer; it may again."""


class NoStorageError(StorageError):
    """There is no database yet, or one without our tables."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean X?)"`` for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
