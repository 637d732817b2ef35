"""Tries operations again while the database is unreachable, locked, full, read-only, or without a free connection."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, OperationalError, PendingRollbackError, SQLAlchemyError

from mhist_tune.errors import StorageError
from mhist_tune.storage.faults import is_blocked, is_full, is_read_only, is_refusal, is_unreachable

T = TypeVar("T")

_UNINTERRUPTED_S = 2.0  # contention is shorter, so even an interrupted worker can free its slot


def _go_on() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """How a process waits for its database.

    Attributes:
        interrupt: called while an operation waits; it may raise to end the waiting.
        on_blocked: called once each time that the database's disk becomes full, that it accepts no further connection
            or no writes, or that it is unreachable for some seconds. The operation then waits, on a full disk without a
            limit. Without it an operation waits for an unreachable database only, and not when it is opened.
        retry_s: seconds for which an operation is tried again, unless the caller gives a time.
    """

    interrupt: Callable[[], None] = _go_on
    on_blocked: Callable[[StorageError], None] | None = None
    retry_s: float = 600.0


class Retries:
    """Calls actions until they succeed.

    Args:
        waiting: how to wait.
        explain: makes the error for users from that of the database.
        reconnect: closes the connections: after a failover they may lead to a server that accepts no writes.

    Attributes:
        n_interruptions: number of failed attempts because the database was unreachable, locked or blocked.
    """

    def __init__(
        self, waiting: Waiting, explain: Callable[[DBAPIError], StorageError], reconnect: Callable[[], None]
    ) -> None:
        self.n_interruptions = 0
        self._waiting = waiting
        self._explain = explain
        self._reconnect = reconnect
        self._is_blocked = False

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
        was_blocked = False
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
                if is_read_only(cause):
                    self._reconnect()
                if is_blocked(cause) and self._waiting.on_blocked is not None:
                    was_blocked = True
                    self._report_blocked(cause)
                    is_endless = retry_s is None and is_full(cause)
                elif not is_worth_it(cause):
                    if is_blocked(cause) or is_refusal(cause):
                        raise self._explain(cause) from error
                    raise
                self.n_interruptions += 1
                if is_endless:
                    started = time.monotonic()  # the limit counts from the end of the full disk
                waited_s = time.monotonic() - started
                if waited_s >= _UNINTERRUPTED_S and is_unreachable(cause):
                    was_blocked = True
                    self._report_blocked(cause)
                if waited_s + delay_s > limit_s and not is_endless:
                    raise self._explain(cause) from error
                if waited_s >= _UNINTERRUPTED_S or is_endless:
                    self._waiting.interrupt()
            else:
                self._is_blocked = self._is_blocked and not was_blocked
                return result
            time.sleep(delay_s * jitter.uniform(0.5, 1.0))
            delay_s = min(2 * delay_s, 5.0)

    def _report_blocked(self, error: DBAPIError) -> None:
        if self._waiting.on_blocked is not None and not self._is_blocked:
            self._is_blocked = True
            self._waiting.on_blocked(self._explain(error))
