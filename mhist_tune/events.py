"""The events that a worker reports, and the request to stop it."""

import threading
from collections.abc import Mapping
from typing import Any, Protocol

from mhist_tune.words import one_line


class Emit(Protocol):
    """Receives events, each with a name and fields. The command line decides how to show them."""

    def __call__(self, event: str, /, **fields: Any) -> None:
        """Receive one event."""


class Interrupted(Exception):
    """A signal asked the worker to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by signal {signum}")
        self.signum = signum


class StopRequest:
    """A request to stop, made by a signal. The worker checks it between training steps and while it waits."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.signum = 0

    def set(self, signum: int) -> None:
        """Ask the worker to stop, because of signal `signum`."""
        self.signum = signum
        self._event.set()

    def check(self) -> None:
        """Raise Interrupted if a stop was requested."""
        if self._event.is_set():
            raise Interrupted(self.signum)

    def wait(self, timeout_s: float) -> None:
        """Wait `timeout_s` seconds; raise Interrupted as soon as a stop is requested."""
        self._event.wait(timeout_s)
        self.check()


def format_event(event: str, fields: Mapping[str, Any]) -> str:
    """Return an event as one line of key=value pairs.

    Floats have four significant digits, text with spaces is quoted, and fields that are None are left out. Control
    characters are escaped, and a long text loses its middle.
    """
    parts = []
    for name, value in {"event": event, **fields}.items():
        if value is None:
            continue
        text = f"{value:.4g}" if isinstance(value, float) else one_line(str(value))
        parts.append(f'{name}="{text}"' if " " in text else f"{name}={text}")
    return " ".join(parts)
