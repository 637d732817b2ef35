"""Parts that decorate a report, such as a figure. If one fails, a text about the failure takes its place."""

from collections.abc import Callable
from typing import TypeVar

from mhist_tune.errors import MhistTuneError

T = TypeVar("T")


def attempt(make: Callable[[], T], instead: Callable[[str], T]) -> T:
    """Return the part that `make` returns or, if it fails, what `instead` makes of the reason.

    The test partition is open when a report is made, so a part that fails must not withhold the others.

    Raises:
        MhistTuneError: `make` raised it. It means that the database or the request is at fault, not the part.
    """
    try:
        return make()
    except MhistTuneError:
        raise
    except Exception as error:
        return instead(f"could not be made ({type(error).__name__}: {error})")


class Failures:
    """Collects a sentence for each part that fails and has no other place for it."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def attempt(self, name: str, make: Callable[[], T]) -> T | None:
        """Return the part that `make` returns or, if it fails, None.

        Args:
            name: of the part, with which the sentence begins.
            make: makes the part.
        """

        def note(reason: str) -> None:
            self.sentences.append(f"{name} {reason}.")

        return attempt(make, note)
