"""Tries operations again while the database is unreachable, locked, or on a full disk."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, OperationalError, PendingRollbackError, SQLAlchemyError

from mhist_tune.errors import StorageError
from mhist_tune.storage.faults import is_full, is_refusal

T = TypeVar("T")

_UNINTERRUPTED_S = 2.0  # contention is shorter, so even an interrupted worker can free its slot


def _go_on() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """How a process waits for its database.

    Attributes:
        interrupt: called while an operation waits; it may raise to end the waiting.
        on_full_disk: called once each time that the database's disk becomes full. The operation then waits until there
            is space. Without it a full disk is an error at once.
        retry_s: seconds for which an operation is tried again, unless the caller gives a time.
    """

    interrupt: Callable[[], None] = _go_on
    on_full_disk: Callable[[StorageError], None] | None = None
    retry_s: float = 600.0


class Retries:
    """Calls actions until they succeed.

    Args:
        waiting: how to wait.
        explain: makes the error for users from that of the database.

    Attributes:
        n_interruptions: number of failed attempts because the database was unreachable, locked or full.
    """

    def __init__(self, waiting: Waiting, explain: Callable[[DBAPIError], StorageError]) -> None:
        self.n_interruptions = 0
        self._waiting = waiting
        self._explain = explain
        self._is_disk_full = False

    def call(self, action: Callable[[], T], retry_s: float | None, is_worth_it: Callable[[DBAPIError], bool]) -> T:
        """Call `action` until it succeeds, and return its result.

        Args:
            action: harmless when it runs twice.
            retry_s: seconds for which it is tried, on a full disk too; None for those of `Waiting`, and without a
                limit on a full disk.
            is_worth_it: returns whether another try may succeed after an error.

        Raises:
            StorageError: the time is over, or another try cannot help.
        """
        limit_s = self._waiting.retry_s if retry_s is None else retry_s
        jitter = random.Random()  # training owns the global generator
        started = time.monotonic()
        delay_s = 0.02
        was_full = False
        while True:
            try:
                result = action()
            except Exception as error:
                cause = error if isinstance(error, SQLAlchemyError) else error.__cause__  # Optuna wraps what it catches
                if isinstance(cause, PendingRollbackError):  # its session lost the connection; it has rolled back now
                    cause = OperationalError(None, None, cause, connection_invalidated=True)
                if not isinstance(cause, DBAPIError):
                    raise
                is_endless = False
                if is_full(cause) and self._waiting.on_full_disk is not None:
                    was_full = True
                    self._report_full_disk(cause)
                    is_endless = retry_s is None
                elif not is_worth_it(cause):
                    if is_full(cause) or is_refusal(cause):
                        raise self._explain(cause) from error
                    raise
                self.n_interruptions += 1
                if is_endless:
                    started = time.monotonic()  # the limit counts from the end of the full disk
                waited_s = time.monotonic() - started
                if waited_s + delay_s > limit_s and not is_endless:
                    raise self._explain(cause) from error
                if waited_s >= _UNINTERRUPTED_S or is_endless:
                    self._waiting.interrupt()
            else:
                self._is_disk_full = self._is_disk_full and not was_full
                return result
            time.sleep(delay_s * jitter.uniform(0.5, 1.0))
            delay_s = min(2 * delay_s, 5.0)

    def _report_full_disk(self, error: DBAPIError) -> None:
        if self._waiting.on_full_disk is not None and not self._is_disk_full:
            self._is_disk_full = True
            self._waiting.on_full_disk(self._explain(error))
