"""The description of a data set by its user: `dataset.toml` beside the annotation table. It may be missing."""

import tomllib
from pathlib import Path
from typing import Any

from mhist_tune.errors import DataError
from mhist_tune.reading import read_file

NAME = "dataset.toml"
_TEXTS = ("description", "source", "votes")
_VOTES = ("real", "simulated")
_LONGEST = 500


def read(root: Path) -> dict[str, Any] | None:
    """Return the fields of `root/dataset.toml`; None if there is no such file.

    They are `description` and `source` (texts), `votes` ("real" or "simulated") and `n_annotators`, each optional.

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
    problems = [f"unknown field {name}" for name in fields if name not in (*_TEXTS, "n_annotators")]
    problems += [
        f"{name} must be a text of at most {_LONGEST} characters on one line"
        for name in _TEXTS
        if not _is_line(fields.get(name, ""))
    ]
    if fields.get("votes", "real") not in _VOTES:
        problems.append(f"votes must be one of {', '.join(_VOTES)}")
    n_annotators = fields.get("n_annotators", 1)
    if type(n_annotators) is not int or not 1 <= n_annotators <= 1000:
        problems.append("n_annotators must be a whole number from 1 to 1000")
    if problems:
        raise DataError(
            f"{path}: {'; '.join(problems)}", hint="its fields are description, source, votes and n_annotators"
        )
    return fields


def _is_line(text: Any) -> bool:
    return isinstance(text, str) and len(text) <= _LONGEST and (text.isprintable() or not text)
