"""The rungs of the pruner `promotion` for which a definition gives no epoch."""

from collections.abc import Mapping
from typing import Any

from mhist_tune.definition.space import Categorical, Dimension

LEFT_OUT = 0
"""Stands for a key that a definition leaves out, until `complete` has filled it in."""

FIRST = 0.06
"""The first rung by default, as a share of the epochs."""


def complete(pruner: Mapping[str, Any], fixed: Mapping[str, Any], space: Mapping[str, Dimension]) -> dict[str, Any]:
    """Return a pruner's table with its first rung and the highest epoch of a rung.

    By default the first rung is at about 6% of the epochs, and none is above a third of them: a later one saves little
    and leaves few complete trials. A definition that gives the first rung but no highest one has rungs up to the last
    epoch. Definitions from before `max_resource` existed have that form, so they keep their rungs.

    Args:
        pruner: its options, of which `min_resource` and `max_resource` may be `LEFT_OUT`.
        fixed: the fixed hyperparameters.
        space: the searched ones. If `epochs` is among them, its largest value counts.

    >>> complete({"name": "promotion", "min_resource": LEFT_OUT, "max_resource": LEFT_OUT}, {"epochs": 50}, {})
    {'name': 'promotion', 'min_resource': 3, 'max_resource': 16}
    """
    if pruner["name"] != "promotion":
        return dict(pruner)
    searched = space.get("epochs")
    values = searched.choices if isinstance(searched, Categorical) else (searched.high,) if searched else ()
    n_epochs = max((int(value) for value in values), default=fixed.get("epochs", 1))
    first, last = pruner["min_resource"], pruner["max_resource"]
    if last == LEFT_OUT:
        last = n_epochs if first != LEFT_OUT else max(1, n_epochs // 3)
    if first == LEFT_OUT:
        first = max(1, round(FIRST * n_epochs))
    return {**pruner, "min_resource": first, "max_resource": last}
