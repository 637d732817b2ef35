"""A thread that writes epochs to the database in order while training goes on."""

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

_JOIN_S = 5.0


class Outbox(Generic[T]):
    """Reports items in the order of `put`, one after the other, in a thread that runs while the context is open.

    Args:
        report: reports one item. If it raises, the thread ends and the items behind it are not reported.
    """

    def __init__(self, report: Callable[[T], None]) -> None:
        self._report = report
        self._waiting: deque[T] = deque()
        self._failure: BaseException | None = None
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def __enter__(self) -> "Outbox[T]":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        # While the database is unreachable the thread may be inside a connect. As a daemon it reports nothing later.
        self._thread.join(_JOIN_S)

    @property
    def n_waiting(self) -> int:
        """The number of items that are not reported yet."""
        return len(self._waiting)

    def put(self, item: T) -> None:
        """Add an item to be reported."""
        with self._changed:
            self._waiting.append(item)
            self._changed.notify_all()

    def check(self) -> None:
        """Raise the error that `report` raised, if there is one."""
        if self._failure is not None:
            raise self._failure

    def wait(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds until every item is reported. Return whether it is; raises as `check` does."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or self._failure is not None, timeout_s)
        self.check()
        return not self._waiting

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return
                item = self._waiting[0]
            try:
                self._report(item)
            except BaseException as error:  # `check` raises it in the training thread
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._waiting.popleft()
                self._changed.notify_all()
