"""Advice on a valid study definition with settings that have no effect or mislead. create-study and run print it."""

from typing import Any

from mhist_tune.definition.hyperparameters import FIELDS
from mhist_tune.definition.space import Categorical
from mhist_tune.definition.study_file import StudyDefinition

NO_OP_PRODUCT = 3e-8
"""AdamW multiplies the weights by 1 - learning_rate x weight_decay. Below this product (2**-25) float32 gives 1."""


def advice(definition: StudyDefinition) -> list[str]:
    """Return one line of text for each such setting in the definition; empty if there is none."""
    return [*_weight_decay(definition), *_sampling(definition), *_early_stopping(definition), *_score(definition)]


def _weight_decay(definition: StudyDefinition) -> list[str]:
    """Check each row, or the smallest values in the space. A weight decay of exactly 0 is intended: no advice."""
    if definition.rows:
        rows = [row for row in _rows(definition) if row["optimizer"] == "adamw" and row["weight_decay"]]
        pairs = [(row["learning_rate"], row["weight_decay"]) for row in rows]
    elif "adamw" in _values(definition, "optimizer"):
        decays = [float(value) for value in _values(definition, "weight_decay") if value]
        pairs = [(min(_values(definition, "learning_rate")), decay) for decay in sorted(decays)[:1]]
    else:
        pairs = []
    return [
        f"learning_rate {rate:g} x weight_decay {decay:g} is below 3e-8: there AdamW decays no weight in "
        "float32; the decay that each epoch applied is recorded as effective_weight_decay"
        for rate, decay in pairs
        if rate * decay < NO_OP_PRODUCT
    ]


def _sampling(definition: StudyDefinition) -> list[str]:
    samplings, scopes = _values(definition, "sampling"), _values(definition, "augment_scope")
    if definition.rows:  # only the scope of smote's rows matters
        scopes = [row["augment_scope"] for row in _rows(definition) if row["sampling"] == "smote"]
    scope = next((scope for scope in scopes if scope != "resampled"), None)
    if not {"random_over", "smote"} <= set(samplings) or scope is None:
        return []
    return [f'with augment_scope = "{scope}" smote equals random_over: only "resampled" treats new images differently']


def _early_stopping(definition: StudyDefinition) -> list[str]:
    if definition.at == "best":
        return []
    changed = [name for name in ("patience", "monitor") if set(_values(definition, name)) != {FIELDS[name].default}]
    return [f'{name} has no effect with at = "last": every trial trains all its epochs' for name in changed]


def _score(definition: StudyDefinition) -> list[str]:
    if definition.score != "auroc" or "random" not in _values(definition, "weights"):
        return []
    return [
        'score = "auroc" is a poor guide for models from random weights, whose AUROC in the first epochs says little '
        'about the last one; use score = "mean_f1"'
    ]


def _values(definition: StudyDefinition, name: str) -> list[Any]:
    """Return a hyperparameter's fixed value, its choices, the bounds of its interval, or its value in each row."""
    dimension = definition.space.get(name)
    if dimension is None:
        return [row[name] for row in _rows(definition)]
    return list(dimension.choices) if isinstance(dimension, Categorical) else [dimension.low, dimension.high]


def _rows(definition: StudyDefinition) -> list[dict[str, Any]]:
    """Return all hyperparameters of each row of a table; for a search, those of its default."""
    params_of_rows = [row.params for row in definition.rows] or [definition.default_params()]
    return [definition.hyperparameters(params).to_dict() for params in params_of_rows]
