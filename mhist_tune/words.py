"""Numbers, intervals, durations and tables as text, in one format everywhere. Imports nothing heavy."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Rows = list[list[str]]
"""The cells of a table, its head first."""


_LONGEST = 1000
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def one_line(text: str, longest: int = _LONGEST) -> str:
    """Return text that fits on one line: control characters are escaped, and a long text loses its middle.

    >>> one_line("a\\nb\\x1b[1m")
    'a\\\\nb\\\\x1b[1m'
    """
    if len(text) > longest:
        tail = longest // 5
        text = f"{text[: longest - tail - 3]}...{text[-tail:]}"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with `digits` decimals, a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def score(value: float | None) -> str:
    """Return a score in 0..1 with four decimals, a dash for None."""
    return "–" if value is None else f"{value:.4f}"


def shortest(value: Any) -> str:
    """Return any value in few characters: a float with four significant digits, a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def interval(ends: Sequence[float] | None, digits: int = 3) -> str:
    """Return `0.900 to 0.950`, a dash for None."""
    return "-" if ends is None else f"{number(ends[0], digits)} to {number(ends[1], digits)}"


def change(estimate: float, ends: Sequence[float] | None) -> str:
    """Return a difference with its interval: `+0.0100 (-0.0050 to +0.0250)`, or `+0.0100 (no interval)`."""
    return f"{estimate:+.4f} " + ("(no interval)" if ends is None else f"({ends[0]:+.4f} to {ends[1]:+.4f})")


def p_value(value: float | None) -> str:
    """Return a p-value (0..1) with three decimals, or `<0.001`, a dash for None."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def utc(seconds: float) -> str:
    """Return a time in seconds since 1970 as `2026-01-31T12:00:00+00:00`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def ordinal(number: int) -> str:
    """Return `first` to `tenth`, then `11th`."""
    return _ORDINALS[number - 1] if number <= len(_ORDINALS) else f"{number}{_suffix(number)}"


def _suffix(number: int) -> str:
    return "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return `1 seed` or `3 seeds`. Without `plural` an s is added."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Return a measured time, given in seconds, with one decimal, in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def rough_duration(seconds: float) -> str:
    """Return an estimated time, given in seconds, in whole seconds, minutes, or hours and minutes."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def settings(probed: Mapping[str, Any]) -> str:
    """Return the settings that a study trains with, followed by the timings that decided them.

    Args:
        probed: as from `probe.measure`.

    >>> bare = {"precision": "fp32", "memory_format": "contiguous", "compile": "off", "images_per_s": 15.04}
    >>> settings({**bare, "device": "a GPU", "n_images": 8, "timings": [bare, {**bare, "precision": "bf16"}]})
    'fp32 contiguous; images/s of 8 at once on a GPU: fp32 contiguous 15.0, bf16 contiguous 15.0'
    """
    text = _setting(probed)
    if limit := probed.get("micro_batch_size"):
        text += f", at most {limit} images at once"
    timings = probed.get("timings", ())
    if not timings:
        return f"{text}; fixed by the definition" if "timings" in probed else text
    rates = ", ".join(f"{_setting(timing)} {_rate(timing['images_per_s'])}" for timing in timings)
    return f"{text}; images/s of {probed['n_images']} at once on {probed['device']}: {rates}"


def text_table(rows: Rows) -> list[str]:
    """Return a table as lines of text, the first column left-aligned, the others right-aligned."""
    return ["  ".join(row) for row in _padded(rows)]


def markdown_table(rows: Rows, *, is_aligned: bool = False) -> list[str]:
    """Return a table as lines of Markdown, the first column left-aligned, the others right-aligned.

    Args:
        rows: the head first.
        is_aligned: whether cells are padded, so that the table can be read as plain text.
    """
    rows = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    cells = _padded(rows) if is_aligned else rows
    first, *others = (max(3, len(cell)) if is_aligned else 3 for cell in cells[0])
    rule = ["-" * first, *("-" * (width - 1) + ":" if is_aligned else "---:" for width in others)]
    return [f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:])]


def _padded(rows: Rows) -> Rows:
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [
        [row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))] for row in rows
    ]


def _setting(probed: Mapping[str, Any]) -> str:
    return f"{probed['precision']} {probed['memory_format']}" + (" compiled" if probed.get("compile") == "on" else "")


def _rate(images_per_s: float | None) -> str:
    return "ruled out" if images_per_s is None else f"{images_per_s:.1f}"
