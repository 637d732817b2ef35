"""Changes of a definition's tables before they are checked: overrides of the command line, paths of weight files.

The tables are as TOML gives them. Faulty ones stay as they are, and `schema` reports them.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def value_of(text: str) -> Any:
    """Return the value of an override, read as TOML; the text itself if it is not one TOML value."""
    try:
        tables = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return tables["value"] if len(tables) == 1 else text


def fix(tables: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Move hyperparameters into `[fixed]`, in place, with the given values."""
    for table in [tables.get("space"), *_entries(tables, "start"), *_entries(tables, "row")]:
        if isinstance(table, dict):
            for name in values:
                table.pop(name, None)
    fixed = tables.setdefault("fixed", {})
    if isinstance(fixed, dict):
        fixed.update(values)


def resolve_weight_files(tables: Mapping[str, Any], folder: Path) -> None:
    """Make the paths of weight files absolute, in place. Those in a definition start from its folder."""
    for table in [tables.get("fixed"), *_entries(tables, "row")]:
        if not isinstance(table, dict):
            continue
        if "weights" in table:
            table["weights"] = absolute(table["weights"], folder)
        options = table.get("model_options")
        if isinstance(options, dict) and isinstance(options.get("checkpoint_path"), str):
            options["checkpoint_path"] = str(folder.resolve() / options["checkpoint_path"])


def absolute(weights: Any, folder: Path) -> Any:
    """Return the value of `weights` with an absolute path; words and faulty values stay as they are."""
    is_path = isinstance(weights, str) and ".safetensors" in weights
    return str(folder.resolve() / weights) if is_path else weights


def replace_in_rows(tables: dict[str, Any], weights: str) -> bool:
    """Replace pretrained weights, given or by default, by `weights` in `[fixed]` and all rows, in place.

    Return False, with nothing replaced, if no row has `weights`.
    """
    rows = [row for row in _entries(tables, "row") if "weights" in row]
    fixed = tables.setdefault("fixed", {})
    for table in [fixed, *rows] if rows and isinstance(fixed, dict) else rows:
        if table.get("weights", "pretrained") == "pretrained":
            table["weights"] = weights
    return bool(rows)


def _entries(tables: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    entries = tables.get(name)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
