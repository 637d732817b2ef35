"""A fault of a data set, as it is reported."""

from dataclasses import dataclass

N_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Problem:
    """One fault of the data set and the images that have it.

    Attributes:
        kind: counts, class, column, missing, unreadable, blank, size, label, duplicate-name, group, identical or
            near-identical.
        message: one line for users.
        names: the faulty images.
    """

    kind: str
    message: str
    names: list[str]

    def __str__(self) -> str:
        """Return one line, with the names of a few of the images."""
        return f"{self.kind}: {self.message}{_examples(self.names)}"


def _examples(names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - N_NAMES_SHOWN} more" if len(names) > N_NAMES_SHOWN else ""
    return f": {', '.join(names[:N_NAMES_SHOWN])}{more}"
