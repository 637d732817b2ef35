"""What a study definition may say, but hardly means: create-study and run show it and refuse nothing."""

from typing import Any

from mhist_tune.definition import StudyDefinition
from mhist_tune.space import Categorical

NO_OP_PRODUCT = 3e-8
"""AdamW multiplies weights by 1 - learning_rate x weight_decay, which is 1 in float32 below this product (2**-25)."""


def advice(definition: StudyDefinition) -> list[str]:
    """Return one line for each thing in the definition that does not do what it seems to."""
    return [*_weight_decay(definition), *_sampling(definition)]


def _weight_decay(definition: StudyDefinition) -> list[str]:
    """Look at each row, or at the ends of the space; a weight decay of exactly 0 is meant."""
    if definition.rows:
        rows = [row for row in _rows(definition) if row["optimizer"] == "adamw" and row["weight_decay"]]
        pairs = [(row["learning_rate"], row["weight_decay"]) for row in rows]
    elif "adamw" in _values(definition, "optimizer"):
        decays = [float(value) for value in _values(definition, "weight_decay") if value]
        pairs = [(min(_values(definition, "learning_rate")), decay) for decay in sorted(decays)[:1]]
    else:
        pairs = []
    return [
        f"learning_rate {rate:g} x weight_decay {decay:g} is below 3e-8: AdamW decays nothing there in "
        "float32; what each epoch really applied is recorded as effective_weight_decay"
        for rate, decay in pairs
        if rate * decay < NO_OP_PRODUCT
    ]


def _sampling(definition: StudyDefinition) -> list[str]:
    samplings, scopes = _values(definition, "sampling"), _values(definition, "augment_scope")
    if definition.rows:  # smote alone reads the scope in this way, so only its rows count
        scopes = [row["augment_scope"] for row in _rows(definition) if row["sampling"] == "smote"]
    scope = next((scope for scope in scopes if scope != "resampled"), None)
    if not {"random_over", "smote"} <= set(samplings) or scope is None:
        return []
    return [f'with augment_scope = "{scope}" smote is random_over: only "resampled" tells new images from old ones']


def _values(definition: StudyDefinition, name: str) -> list[Any]:
    """Return a hyperparameter's fixed value, its choices, the ends of its interval, or the value in each row."""
    dimension = definition.space.get(name)
    if dimension is None:
        return [complete[name] for complete in _rows(definition)]
    return list(dimension.choices) if isinstance(dimension, Categorical) else [dimension.low, dimension.high]


def _rows(definition: StudyDefinition) -> list[dict[str, Any]]:
    """Return all hyperparameters of each row of a table; of a search, those of its default."""
    params = [row.params for row in definition.rows] or [definition.default_params()]
    return [definition.hyperparameters(one).to_dict() for one in params]
