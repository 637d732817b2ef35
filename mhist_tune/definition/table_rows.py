"""The `[[row]]` entries of a study definition: a table of chosen configurations instead of a search.

Each row names some hyperparameters; the others come from `[fixed]` or their defaults. `label` names the row, in the
words of the source if the table is copied. `reported` holds the numbers of that source.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mhist_tune.definition import space as spaces
from mhist_tune.definition.hyperparameters import FIELDS, PROBED, Hyperparameters, check
from mhist_tune.definition.value_checks import is_number, quoted

REPORTED = re.compile(r"best_epoch|(train|val|test|retrained)_[a-z0-9_]+")
"""The name of a reported number: the images it was measured on, or the model, then the metric."""

PER_STUDY = ("image_size", *PROBED)
"""Fields with one value for the whole study: images are decoded for one size, and the device is probed once."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table.

    Attributes:
        label: the name of the row; unique.
        params: hyperparameters, JSON-safe. In a complete definition all rows name the same fields.
        reported: numbers measured elsewhere, by name; see `REPORTED`.
    """

    label: str
    params: Mapping[str, Any]
    reported: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the `[[row]]` entry that `read` reads back."""
        return {"label": self.label, **self.params, "reported": dict(self.reported)}


def read(entries: object, problems: list[str]) -> list[TableRow]:
    """Return the rows as they are written, and append a text for each problem to `problems`."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        problems.append("row must be written as tables, each under [[row]]")
        return []
    rows = [_row(number, entry, problems) for number, entry in enumerate(entries, 1)]
    labels = [row.label for row in rows]
    problems += [
        f'[[row]] {i}: an earlier row is "{label}" too' for i, label in enumerate(labels, 1) if label in labels[: i - 1]
    ]
    return rows


def complete(rows: list[TableRow], fixed: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[TableRow, ...]]:
    """Complete every row to the fields that any row names, and `fixed` to all other fields.

    Raises:
        ValueError: values that do not fit together, one problem per line, with the row's number.
    """
    named = {name for row in rows for name in row.params}
    filled, problems = [], []
    for number, row in enumerate(rows, 1):
        try:
            filled.append(Hyperparameters.from_dict({**fixed, **row.params}).to_dict())
        except ValueError as error:
            problems += [f"[[row]] {number}: {line}" for line in str(error).splitlines()]
    if problems:
        raise ValueError("\n".join(problems))
    complete_rows = tuple(
        TableRow(row.label, {name: values[name] for name in FIELDS if name in named}, row.reported)
        for row, values in zip(rows, filled, strict=True)
    )
    return {name: value for name, value in filled[0].items() if name not in named}, complete_rows


def _row(number: int, entry: dict[str, Any], problems: list[str]) -> TableRow:
    where = f"[[row]] {number}:"
    params = {name: value for name, value in entry.items() if name not in ("label", "reported")}
    for name, value in params.items():
        if name in PER_STUDY:
            problems.append(f"{where} {name}: has one value for the whole study; put it in [fixed]")
        elif problem := check(name, value):
            problems.append(f"{where} {name}: {problem}" if name in FIELDS else f"{where} {problem}")
    label = entry.get("label", ", ".join(f"{name} {_text(value)}" for name, value in params.items()))
    if not isinstance(label, str) or not label:
        problems.append(f"{where} label must be text, got {quoted(label)}; a row without fields needs one")
    return TableRow(
        _text(label),
        {name: spaces.normalize(name, value) for name, value in params.items()},
        _reported(where, entry.get("reported", {}), problems),
    )


def _reported(where: str, numbers: object, problems: list[str]) -> dict[str, float]:
    if not isinstance(numbers, dict):
        problems.append(f"{where} reported must be a table such as {{ val_f1 = 0.7 }}, got {quoted(numbers)}")
        return {}
    for name, value in numbers.items():
        if not REPORTED.fullmatch(name):
            problems.append(
                f"{where} reported {name}: a name is best_epoch, or starts with train_, val_, test_ or retrained_"
            )
        elif not is_number(value):
            problems.append(f"{where} reported {name}: must be a number, got {quoted(value)}")
    return numbers


def _text(value: object) -> str:
    try:
        return str(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits, which is refused elsewhere
        return quoted(value)
