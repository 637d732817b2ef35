"""Says in one line that a record cannot be read."""

import contextlib
from collections.abc import Iterator

from mhist_tune.errors import StorageError


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Say that a record is damaged where the block cannot make sense of it.

    Raises:
        StorageError: the block raised what a text that is no such record leads to.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise StorageError(
            f"the storage holds {what} that cannot be read ({type(error).__name__}: {error})",
            hint="it was changed from outside or damaged; restore a copy of the database",
        ) from error
