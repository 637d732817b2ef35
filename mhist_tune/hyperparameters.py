"""What one training run is made of: every hyperparameter with its default, its legal values and one sentence.

The annotations and `_declare` calls of `Hyperparameters` are the only place where a field is described; `FIELDS`, the
checks and everything that parses a study definition are derived from them. Standard library only.
"""

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mhist_tune.errors import did_you_mean
from mhist_tune.mhist import N_ANNOTATORS

DROPOUT_PLACEMENT = re.compile(r"none|head|pos|head\+last([1-9]\d*)(\.mlp)?")
FREEZE = re.compile(r"none|all_but_head|stem|first([1-9]\d*)")
PROBED = ("precision", "memory_format", "compile")
"""Fields whose "auto" is settled once for a study, by timing them on the device; see `probe`."""


@dataclass(frozen=True, slots=True)
class Field:
    """How one hyperparameter may look.

    Attributes:
        name: as in a study definition.
        type: str, int, float, dict or tuple (of int).
        default: used where a definition leaves the field out.
        doc: one sentence for people.
        choices: the legal values of a str field, None if it is free.
        low, high: inclusive bounds of an int or float field (of the items of a tuple), None if there is none.
        problem_of: a further check of a value that has the right type; returns the problem or None.
    """

    name: str
    type: type
    default: object
    doc: str
    choices: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None
    problem_of: Callable[[Any], str | None] | None = None


def _declare(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    problem_of: Callable[[Any], str | None] | None = None,
) -> Any:
    metadata = {"doc": doc, "low": low, "high": high, "problem_of": problem_of}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata, hash=False)
    return dataclasses.field(default=default, metadata=metadata)


def _weights_problem(value: str) -> str | None:
    if value in ("pretrained", "random") or value.endswith(".safetensors"):
        return None
    return f'must be "pretrained", "random" or the path of a .safetensors file, got "{value}"'


def _placement_problem(value: str) -> str | None:
    if DROPOUT_PLACEMENT.fullmatch(value):
        return None
    return f'must be "none", "head", "head+lastK.mlp", "head+lastK" (K blocks from the end) or "pos", got "{value}"'


def _freeze_problem(value: str) -> str | None:
    if FREEZE.fullmatch(value):
        return None
    return f'must be "none", "all_but_head", "stem" or "firstN" (the stem and N blocks or stages), got "{value}"'


def _options_problem(value: Mapping[str, Any]) -> str | None:
    try:
        is_plain = json.loads(json.dumps(dict(value), allow_nan=False)) == dict(value)
    except (TypeError, ValueError):
        is_plain = False
    return None if is_plain else f"must hold plain values (text, numbers, true, false, lists, tables), got {value!r}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Hyperparameters:
    """One training run, complete and checked.

    Raises:
        ValueError: with every problem, one per line, if a value is not legal.
    """

    model: str = _declare("resnet18", 'A timm model by name ("hf-hub:..." included), or "fcnn".')
    model_options: Mapping[str, Any] = _declare(
        {}, "Further keyword arguments for timm.create_model.", problem_of=_options_problem
    )
    weights: str = _declare(
        "pretrained",
        'Where the weights start: "pretrained" (timm\'s download), "random", or a .safetensors file.',
        problem_of=_weights_problem,
    )
    image_size: int = _declare(224, "Side of the square input in pixels.", low=8, high=4096)
    epochs: int = _declare(40, "Length of the schedule; the most epochs that a run trains.", low=1)
    patience: int = _declare(10, "Epochs without a better monitored value after which a run stops.", low=1)
    monitor: Literal["f1", "auroc", "loss"] = _declare(
        "f1", "Validation metric that chooses the best epoch and stops early; a trial's value stays that epoch's F1."
    )
    freeze: str = _declare(
        "none",
        "Which weights stay as they start: none, all_but_head, stem, firstN (stem and first N blocks or stages).",
        problem_of=_freeze_problem,
    )
    optimizer: Literal["adam", "adamw", "sgd"] = _declare(
        "adamw", "Adam (weight decay as an L2 term), AdamW (decoupled) or SGD with momentum (L2)."
    )
    momentum: float = _declare(0.9, "Momentum of SGD; Adam and AdamW do not use it.", low=0.0, high=0.999)
    learning_rate: float = _declare(1e-3, "Learning rate of the first epoch.", low=1e-10, high=10.0)
    learning_rate_schedule: Literal["exponential", "constant", "cosine"] = _declare(
        "exponential", "How the learning rate moves from epoch to epoch."
    )
    learning_rate_decay: float = _declare(0.91, "Factor per epoch of the exponential schedule.", low=1e-3, high=1.0)
    warmup_epochs: int = _declare(
        0, "Epochs in which the learning rate rises linearly before the schedule begins.", low=0
    )
    layer_decay: float = _declare(
        1.0,
        "Factor on the learning rate for each layer further from the head (timm's layer groups).",
        low=0.01,
        high=1.0,
    )
    weight_decay: float = _declare(
        0.0,
        "Weight decay of all parameters. AdamW decays nothing in float32 where learning_rate x weight_decay < 3e-8.",
        low=0.0,
    )
    effective_batch_size: int = _declare(32, "Images in one optimizer update.", low=1)
    micro_batch_size: int = _declare(
        32,
        "Most images in one forward pass; gradients accumulate over ceil(effective / micro) passes. "
        "Part of the method for models with BatchNorm, only a resource without.",
        low=1,
    )
    dropout_placement: str = _declare(
        "none",
        "Where drop_rate acts: none, head, head+lastK.mlp, head+lastK (the last K blocks of a ViT), pos.",
        problem_of=_placement_problem,
    )
    drop_rate: float = _declare(0.5, "Dropout probability at dropout_placement.", low=0.0, high=0.99)
    sampling: Literal["none", "random_over", "random_under", "smote", "adasyn", "tomek"] = _declare(
        "none",
        "How an epoch is drawn: every image once; the rarer class repeated until both are equal (random_over; smote, "
        "whose repeats count as new images; adasyn, which prefers difficult ones); the commoner class thinned to equal "
        "counts (random_under) or cleared of Tomek links (tomek).",
    )
    augmentation: Literal["none", "flip", "rotate", "flip_rotate", "perspective", "affine", "flip_choice"] = _declare(
        "flip_rotate",
        "Horizontal and vertical flips, rotation by up to 180 degrees without cut corners, both, perspective, affine "
        "(translation, shear, scale), or flips and then one of rotation, perspective, affine.",
    )
    flip_prob: float = _declare(0.5, "Probability of each flip.", low=0.0, high=1.0)
    augmentation_prob: float = _declare(
        0.5, "Probability of the rotation, perspective or affine warp.", low=0.0, high=1.0
    )
    augment_scope: Literal["none", "resampled", "all"] = _declare(
        "all", "Which images of an epoch are augmented: none, the new ones of smote and adasyn, or all."
    )
    stain_jitter: float = _declare(
        0.0, "Largest relative change, and shift in optical density, of each H&E stain; 0 for none.", low=0.0, high=1.0
    )
    stain_prob: float = _declare(0.5, "Probability of the stain jitter.", low=0.0, high=1.0)
    exclude_votes: tuple[int, ...] = _declare(
        (), "Training images with these numbers of SSA votes are left out.", low=0, high=N_ANNOTATORS
    )
    n_per_class: int = _declare(0, "Training images of each class after exclusions; 0 for all.", low=0)
    subset_seed: int = _declare(
        0, "Chooses the images of n_per_class; smaller subsets lie within larger ones of the same seed.", low=0
    )
    labels: Literal["majority", "votes"] = _declare(
        "majority", "What training aims at: the majority's class, or the share of votes for SSA. Validation: the class."
    )
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = _declare(
        "auto",
        "Number format of the forward pass: tf32 is fp32 with short products on an NVIDIA GPU and fp32 elsewhere, fp16 "
        "scales the loss. auto takes the fastest one of the device.",
    )
    memory_format: Literal["auto", "contiguous", "channels_last"] = _declare(
        "auto", "Order of the images and convolution weights in memory; auto takes the faster one of the device."
    )
    compile: Literal["auto", "off", "on"] = _declare(
        "auto",
        "Training through torch.compile; auto takes it where it is faster, but tries it on a GPU only, and never where "
        "drop_rate is searched, since each rate would be compiled anew.",
    )

    def __post_init__(self) -> None:
        problems = []
        for name, field in FIELDS.items():
            value = getattr(self, name)
            if problem := check(name, value):
                problems.append(f"{name}: {problem}")
            elif field.type is not str:
                object.__setattr__(self, name, field.type(value))
        if problems:
            raise ValueError("\n".join(problems))

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain JSON values; `from_dict` gives the same object back."""
        plain = {name: getattr(self, name) for name in FIELDS}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Hyperparameters":
        """Build from `to_dict`'s form; fields left out take their defaults.

        Raises:
            ValueError: for an unknown name or an illegal value.
        """
        if problems := [str(check(name, None)) for name in values if name not in FIELDS]:
            raise ValueError("\n".join(problems))
        return cls(**values)


def check(name: str, value: object) -> str | None:
    """Return what is wrong with one value, or None.

    >>> check("epochs", 0)
    'must be at least 1, got 0'
    >>> check("drop_rat", 0.5)
    'unknown hyperparameter "drop_rat" (did you mean drop_rate?)'
    """
    field = FIELDS.get(name)
    if field is None:
        return f'unknown hyperparameter "{name}"{did_you_mean(name, FIELDS)}'
    if problem := _type_problem(field.type, value):
        return problem
    if field.choices is not None and value not in field.choices:
        return f'must be one of {", ".join(field.choices)}, got "{value}"'
    items: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    for item in items:
        if field.low is not None and item < field.low:
            return f"must be at least {field.low}, got {item}"
        if field.high is not None and item > field.high:
            return f"must be at most {field.high}, got {item}"
    return field.problem_of(value) if field.problem_of else None


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _type_problem(expected: type, value: object) -> str | None:
    """Compare with the declared type; whole numbers pass as floats, lists as tuples, never the reverse."""
    if expected is str:
        return None if isinstance(value, str) and value else f"must be text, got {value!r}"
    if expected is int:
        return None if _is_int(value) else f"must be a whole number, got {value!r}"
    if expected is float:
        is_number = _is_int(value) or isinstance(value, float)
        return None if is_number and math.isfinite(value) else f"must be a number, got {value!r}"  # type: ignore[arg-type]
    if expected is tuple:
        is_list = isinstance(value, list | tuple) and all(_is_int(item) for item in value)
        return None if is_list else f"must be a list of whole numbers, got {value!r}"
    return None if isinstance(value, Mapping) else f"must be a table, got {value!r}"


def _describe(field: "dataclasses.Field[Any]", annotation: Any) -> Field:
    origin = typing.get_origin(annotation)
    choices = typing.get_args(annotation) if origin is Literal else None
    kind = str if choices else {tuple: tuple, Mapping: dict}.get(origin, annotation)
    default = field.default if field.default is not dataclasses.MISSING else {}
    return Field(name=field.name, type=kind, default=default, choices=choices, **field.metadata)


def _describe_all() -> Mapping[str, Field]:
    annotations = typing.get_type_hints(Hyperparameters)
    fields = dataclasses.fields(Hyperparameters)
    return types.MappingProxyType({field.name: _describe(field, annotations[field.name]) for field in fields})


FIELDS: Mapping[str, Field] = _describe_all()
