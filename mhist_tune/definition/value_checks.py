"""The check of one value of a study definition: declared type and bounds."""

from collections.abc import Mapping


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
        if low is not None and not item >= low:
            return f"must be at least {low}, got {item}"
        if high is not None and not item <= high:
            return f"must be at most {high}, got {item}"
    return None


def _type_problem(kind: type, value: object) -> str | None:
    if kind is bool:
        return None if isinstance(value, bool) else f"must be true or false, got {value!r}"
    if kind is str:
        return None if isinstance(value, str) and value else f"must be text, got {value!r}"
    if kind is int:
        return None if _is_int(value) else f"must be a whole number, got {value!r}"
    if kind is float:
        return None if _is_int(value) or isinstance(value, float) else f"must be a number, got {value!r}"
    if kind is tuple:
        is_list = isinstance(value, list | tuple) and all(_is_int(item) for item in value)
        return None if is_list else f"must be a list of whole numbers, got {value!r}"
    return None if isinstance(value, Mapping) else f"must be a table, got {value!r}"


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
