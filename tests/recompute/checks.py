"""Compares printed numbers with expected ones, and keeps what differs."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.recompute.records import Records

Expected = float | int | str | None | tuple[float, float]
"""A number, with a tolerance where it comes from random resamples, or a text."""


class Check(Records):
    """The numbers of one report: how many were recomputed, and which could not be."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.problems: list[str] = []
        self.n_checked = 0

    def sentences(self, title: str, lines: Sequence[str], rules: "dict[str, Rule]") -> None:
        """Check each line with a digit by the first rule whose pattern is the whole line."""
        for line in lines:
            text = line.removeprefix("- ").strip()
            if not re.search(r"\d", text):
                continue
            found = next(
                ((rule, match) for pattern, rule in rules.items() if (match := re.fullmatch(pattern, text))), None
            )
            if found is None:
                self.problems.append(f"{title}: not recomputed: {text}")
                continue
            rule, match = found
            expected = list(rule(self, match))
            if len(expected) != len(match.groups()):
                self.problems.append(f"{title}: {len(expected)} values for {match.groups()}")
                continue
            for printed, value in zip(match.groups(), expected, strict=True):
                self.number(f"{title}: {text[:60]}", printed, *(value if isinstance(value, tuple) else (value,)))

    def number(self, where: str, printed: str | None, expected: "float | str | None", tolerance: float = 0.0) -> None:
        """Compare a printed number with the expected one: in each digit, or within a tolerance beside it."""
        if printed is None:
            return
        self.n_checked += 1
        if isinstance(expected, str) or expected is None:
            if printed != ("-" if expected is None else expected):
                self.problems.append(f"{where}: printed {printed}, expected {expected}")
            return
        digits = printed.rstrip("%").replace(",", "").rstrip(".")
        scale = 100 if printed.endswith("%") else 1
        try:
            value = float(digits) / scale
        except ValueError:
            self.problems.append(f"{where}: printed {printed}, expected {expected}")
            return
        last = 10.0 ** -len(digits.partition(".")[2]) / scale
        if abs(value - expected) > 0.5 * last * (1 + 1e-6) + 1e-9 + tolerance:
            self.problems.append(f"{where}: printed {printed}, expected {expected:.6g}")

    def ends(self, where: str, printed: str, found: tuple[float, float, float] | None) -> None:
        """Compare a printed interval with its ends and their tolerance."""
        if found is None or printed in ("-", ""):
            self.number(where, printed, None if found is None else f"{found[0]} to {found[1]}")
            return
        for text, end in zip(printed.split(" to "), found[:2], strict=True):
            self.number(where, text, end, found[2])


Rule = Callable[[Check, re.Match[str]], Iterable[Expected]]
TableRule = Callable[[Check, list[dict[str, str]]], None]
