"""The check of one value of a study definition: declared type and bounds."""

import math
from collections.abc import Mapping
from typing import TypeGuard

from mhist_tune.words import one_line

_LARGEST = 2**63 - 1  # the largest whole number of a database
_LONGEST_QUOTE = 100


def problem_of(kind: type, value: object, low: float | None = None, high: float | None = None) -> str | None:
    """Return what is wrong with a value; None if it is legal.

    Args:
        kind: bool, int, float, str, dict or tuple (of int). A whole number is a valid float, a list a valid tuple.
        value: as TOML or JSON gives it. NaN is outside of all bounds.
        low: the inclusive lower bound of a number, or of the items of a tuple; None if there is no bound.
        high: the inclusive upper bound, likewise.
    """
    if problem := _type_problem(kind, value):
        return problem
    items = value if isinstance(value, list | tuple) else [value] if isinstance(value, int | float) else []
    for item in items:
        if isinstance(item, int) and abs(item) > _LARGEST:
            return f"must be a number of at most {len(str(_LARGEST))} digits"
        if low is not None and not item >= low:
            return f"must be at least {low}, got {item}"
        if high is not None and not item <= high:
            return f"must be at most {high}, got {item}"
    return None


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a finite number that a float can hold, and no truth value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _LARGEST if isinstance(value, int) else math.isfinite(value)


def cut(text: str) -> str:
    """Return a text of a definition as one line, short enough for a message."""
    return one_line(text, _LONGEST_QUOTE)


def quoted(value: object) -> str:
    """Return a value for a message: on one line, and the middle of a long one left out."""
    try:
        return one_line(repr(value), _LONGEST_QUOTE)
    except (ValueError, RecursionError):  # ValueError: a whole number of thousands of digits
        return "a value that is too large to show"


def _type_problem(kind: type, value: object) -> str | None:
    if kind is bool:
        return None if isinstance(value, bool) else f"must be true or false, got {quoted(value)}"
    if kind is str:
        return None if isinstance(value, str) and value else f"must be text, got {quoted(value)}"
    if kind is int:
        return None if _is_int(value) else f"must be a whole number, got {quoted(value)}"
    if kind is float:
        return None if _is_int(value) or isinstance(value, float) else f"must be a number, got {quoted(value)}"
    if kind is tuple:
        is_list = isinstance(value, list | tuple) and all(_is_int(item) for item in value)
        return None if is_list else f"must be a list of whole numbers, got {quoted(value)}"
    return None if isinstance(value, Mapping) else f"must be a table, got {quoted(value)}"


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
