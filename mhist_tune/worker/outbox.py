"""Epochs on their way to the database: in order, from a thread of its own, so that training need not wait for them."""

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

_JOIN_S = 5.0


class Outbox(Generic[T]):
    """Reports one item after the other, in the order in which they came, while the context is open.

    Args:
        report: reports one item. What it raises ends the outbox: items behind it stay unreported.
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
        # While the database is away the thread may be deep in a connect; it is a daemon and reports nothing after that.
        self._thread.join(_JOIN_S)

    @property
    def n_waiting(self) -> int:
        """How many items are not reported yet."""
        return len(self._waiting)

    def put(self, item: T) -> None:
        """Hand over an item."""
        with self._changed:
            self._waiting.append(item)
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what `report` raised, if it did."""
        if self._failure is not None:
            raise self._failure

    def wait(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds until everything is reported; return whether it is, or raise as `check`."""
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
            except BaseException as error:  # whoever trains raises it
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._waiting.popleft()
                self._changed.notify_all()
