"""The description of a data set by its user: `dataset.toml` beside the annotation table. It may be missing."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mhist_tune.definition.about import DATA_FACTS, LONGEST, is_line
from mhist_tune.errors import DataError, did_you_mean
from mhist_tune.reading import read_file

NAME = "dataset.toml"
_VOTES = ("real", "simulated")
_FIELDS = (*DATA_FACTS, "votes", "n_annotators")


def read(root: Path) -> dict[str, Any] | None:
    """Return the fields of `root/dataset.toml`; None if there is no such file.

    They are the texts of `DATA_FACTS`, `votes` ("real" or "simulated") and `n_annotators`, each optional.

    Raises:
        DataError: the file cannot be read, or a field is unknown or has a wrong value.
    """
    path = root / NAME
    try:
        fields = tomllib.loads(read_file(path).decode("utf-8-sig"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise DataError(f"cannot read {path}: {reason}") from error
    if found := problems(fields):
        raise DataError(f"{path}: {'; '.join(found)}", hint=f"its fields are {', '.join(_FIELDS)}")
    return fields


def problems(fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the fields of a description, one text each."""
    found = [f"unknown field {name}{did_you_mean(name, _FIELDS)}" for name in fields if name not in _FIELDS]
    found += [
        f"{name} must be a text of at most {LONGEST:,} characters on one line"
        for name in DATA_FACTS
        if name in fields and not is_line(fields[name])
    ]
    if fields.get("votes", "real") not in _VOTES:
        found.append(f"votes must be one of {', '.join(_VOTES)}")
    n_annotators = fields.get("n_annotators", 1)
    if type(n_annotators) is not int or not 1 <= n_annotators <= 1000:
        found.append("n_annotators must be a whole number from 1 to 1000")
    return found
