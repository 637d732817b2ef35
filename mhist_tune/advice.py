"""What a study definition may say, but hardly means: create-study shows it and refuses nothing."""

from typing import Any

from mhist_tune.definition import StudyDefinition
from mhist_tune.space import Categorical

NO_OP_PRODUCT = 3e-8
"""AdamW multiplies weights by 1 - learning_rate x weight_decay, which is 1 in float32 below this product (2**-25)."""


def advice(definition: StudyDefinition) -> list[str]:
    """Return one line for each thing in the definition that does not do what it seems to."""
    return [*_weight_decay(definition), *_sampling(definition)]


def _weight_decay(definition: StudyDefinition) -> list[str]:
    """Look at the ends of the space; a weight decay of exactly 0 is meant."""
    if "adamw" not in _values(definition, "optimizer"):
        return []
    rates = [float(value) for value in _values(definition, "learning_rate")]
    decays = [float(value) for value in _values(definition, "weight_decay") if value]
    if not decays or min(rates) * min(decays) >= NO_OP_PRODUCT:
        return []
    return [
        f"learning_rate {min(rates):g} x weight_decay {min(decays):g} is below 3e-8: AdamW decays nothing there in "
        "float32; what each epoch really applied is recorded as effective_weight_decay"
    ]


def _sampling(definition: StudyDefinition) -> list[str]:
    samplings, scopes = _values(definition, "sampling"), _values(definition, "augment_scope")
    if not {"random_over", "smote"} <= set(samplings) or set(scopes) == {"resampled"}:
        return []
    scope = next(scope for scope in scopes if scope != "resampled")
    return [f'with augment_scope = "{scope}" smote is random_over: only "resampled" tells new images from old ones']


def _values(definition: StudyDefinition, name: str) -> list[Any]:
    """Return the fixed value of a hyperparameter, its choices, or the ends of its interval."""
    dimension = definition.space.get(name)
    if dimension is None:
        return [definition.hyperparameters(definition.default_params()).to_dict()[name]]
    return list(dimension.choices) if isinstance(dimension, Categorical) else [dimension.low, dimension.high]
