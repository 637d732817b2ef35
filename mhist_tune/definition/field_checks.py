"""The checks of hyperparameters with a form of their own: weights, dropout placement, frozen layers, model options."""

import json
import re
from collections.abc import Mapping
from typing import Any

from mhist_tune.definition.value_checks import cut, quoted

DROPOUT_PLACEMENT = re.compile(r"none|head|pos|head\+last([1-9][0-9]{0,3})(\.mlp)?")
SHA256_MARK = "#sha256:"
"""Separates the path of a weight file from the SHA-256 (hex) of its content, which may follow."""
_WEIGHT_FILE = re.compile(rf".*\.safetensors({SHA256_MARK}[0-9a-f]{{64}})?", re.DOTALL)
FREEZE = re.compile(r"none|all_but_head|stem|first([1-9][0-9]{0,3})")
_LARGEST_OPTION = 10_000
_DEEPEST_OPTION = 5
_BLOCKS = re.compile("depth|layers|blocks")
_MOST_BLOCKS = 500


def weights_problem(value: str) -> str | None:
    """Return what is wrong with a value of `weights`; None if it is legal."""
    if value in ("pretrained", "random") or _WEIGHT_FILE.fullmatch(value):
        return None
    return f'must be "pretrained", "random" or the path of a .safetensors file, got "{cut(value)}"'


def placement_problem(value: str) -> str | None:
    """Return what is wrong with a value of `dropout_placement`; None if it is legal."""
    if DROPOUT_PLACEMENT.fullmatch(value):
        return None
    return (
        f'must be "none", "head", "head+lastK.mlp", "head+lastK" (K blocks from the end) or "pos", got "{cut(value)}"'
    )


def freeze_problem(value: str) -> str | None:
    """Return what is wrong with a value of `freeze`; None if it is legal."""
    if FREEZE.fullmatch(value):
        return None
    return f'must be "none", "all_but_head", "stem" or "firstN" (the stem and N blocks or stages), got "{cut(value)}"'


def options_problem(value: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a value of `model_options`; None if it is legal."""
    try:
        is_plain = json.loads(json.dumps(dict(value), allow_nan=False)) == dict(value)
    except (TypeError, ValueError, RecursionError):
        is_plain = False
    if not is_plain:
        return f"must hold plain values (text, numbers, true, false, lists, tables), got {quoted(value)}"
    if not isinstance(value.get("checkpoint_path", ""), str):
        return f"checkpoint_path must be the path of a file, got {quoted(value['checkpoint_path'])}"
    return _size_problem(value, _DEEPEST_OPTION)


def _size_problem(value: object, n_levels: int) -> str | None:
    """Return what is too large in an option of a model. A model of a million blocks would be built for hours."""
    if isinstance(value, int | float) and abs(value) > _LARGEST_OPTION:
        return f"holds the number {quoted(value)}, and at most {_LARGEST_OPTION:,} is possible"
    items = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else []
    if items and not n_levels:
        return f"is nested in more than {_DEEPEST_OPTION} levels"
    if len(items) > _LARGEST_OPTION:
        return f"holds a list of {len(items):,} values"
    if isinstance(value, Mapping):
        blocks = (item for name, item in value.items() if _BLOCKS.search(name))
        n_blocks = sum(sum(item) if isinstance(item, list) else item for item in blocks if _is_counts(item))
        if n_blocks > _MOST_BLOCKS:
            return f"asks for {n_blocks:,} blocks, and at most {_MOST_BLOCKS} are possible"
    return next((problem for item in items if (problem := _size_problem(item, n_levels - 1))), None)


def _is_counts(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, list) and all(isinstance(item, int) for item in value))
