"""What a worker says while it works, and how it hears that it should stop."""

import threading
from collections.abc import Mapping
from typing import Any, Protocol


class Emit(Protocol):
    """Receives what happens, as an event's name and its fields; the command line decides how to show it."""

    def __call__(self, event: str, /, **fields: Any) -> None:
        """Take one event."""


class Interrupted(Exception):
    """The worker was asked to stop by a signal; its slot has been freed."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by signal {signum}")
        self.signum = signum


class StopRequest:
    """A signal's wish to stop, heard between two training steps and while the database is away."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.signum = 0

    def set(self, signum: int) -> None:
        """Ask to stop."""
        self.signum = signum
        self._event.set()

    def check(self) -> None:
        """Raise Interrupted if a stop was asked for."""
        if self._event.is_set():
            raise Interrupted(self.signum)

    def wait(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` seconds, and raise Interrupted as soon as a stop is asked for."""
        self._event.wait(timeout_s)
        self.check()


def format_event(event: str, fields: Mapping[str, Any]) -> str:
    """Return one line of key=value pairs; floats with four significant digits, text with spaces quoted."""
    parts = []
    for name, value in {"event": event, **fields}.items():
        if value is None:
            continue
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        parts.append(f'{name}="{text}"' if " " in text else f"{name}={text}")
    return " ".join(parts)
