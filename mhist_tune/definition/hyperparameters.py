"""The hyperparameters of a training run: type, default, legal values and description of each.

A field is described only once, by its annotation and its `_declare` call in `Hyperparameters`. `FIELDS`, the checks and
the parser of study definitions are derived from that. Imports the standard library only.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mhist_tune.definition.field_checks import freeze_problem, options_problem, placement_problem, weights_problem
from mhist_tune.definition.value_checks import cut, problem_of, quoted
from mhist_tune.errors import did_you_mean
from mhist_tune.mhist import N_ANNOTATORS

_MOST = 1_000_000  # of what is counted: epochs and images
PROBED = ("precision", "memory_format", "compile")
"""Fields whose value "auto" is replaced once for a study, by the setting that is fastest on the device; see `probe`."""


@dataclass(frozen=True, slots=True)
class Field:
    """The description of one hyperparameter.

    Attributes:
        name: as in a study definition.
        type: str, int, float, dict or tuple (of int).
        default: the value if a definition leaves the field out.
        doc: description for users, in full sentences; bounds and default are not repeated.
        choices: the legal values of a str field; None if other attributes decide.
        low, high: inclusive bounds of an int or float, or of the items of a tuple; None if there is no bound.
        problem_of: an additional check of a value of the right type; returns the problem or None.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Hyperparameters:
    """All hyperparameters of one training run, checked.

    Raises:
        ValueError: a value is not legal; the message has one line for each problem.
    """

    model: str = _declare(
        "resnet18", 'Name of a timm model ("hf-hub:OWNER/NAME" for one from the hub), or "fcnn", the baseline.'
    )
    model_options: Mapping[str, Any] = _declare(
        {}, "Additional keyword arguments for timm.create_model. fcnn ignores them.", problem_of=options_problem
    )
    weights: str = _declare(
        "pretrained",
        'Initial weights: "pretrained" (downloaded by timm), "random", or the path of a .safetensors file. '
        'fcnn needs "random".',
        problem_of=weights_problem,
    )
    image_size: int = _declare(224, "Side length of the square input images in pixels.", low=8, high=4096)
    epochs: int = _declare(
        40, "Length of the learning rate schedule in epochs; also the most epochs that a run trains.", low=1, high=_MOST
    )
    patience: int = _declare(
        10,
        "A run stops after this many epochs in a row in which the monitored metric did not improve. "
        'No effect in a study with at = "last".',
        low=1,
        high=_MOST,
    )
    monitor: Literal["score", "mean_f1", "f1", "auroc", "loss"] = _declare(
        "score",
        'Validation metric that decides the best epoch and early stopping; "score" is the study\'s score. '
        "A trial's value is the study's score at the best epoch in any case. "
        'No effect in a study with at = "last".',
    )
    freeze: str = _declare(
        "none",
        'Which weights keep their initial values: "none", "all_but_head", "stem", or "firstN" (the stem and the first '
        "N blocks or stages).",
        problem_of=freeze_problem,
    )
    optimizer: Literal["adam", "adamw", "sgd"] = _declare(
        "adamw", "Adam (weight decay as an L2 term), AdamW (decoupled weight decay), or SGD with momentum (L2 term)."
    )
    momentum: float = _declare(0.9, "Momentum of SGD. Adam and AdamW do not use it.", low=0.0, high=0.999)
    learning_rate: float = _declare(
        1e-3, "Learning rate of the first epoch, or of the first one after warm-up.", low=1e-10, high=10.0
    )
    learning_rate_schedule: Literal["exponential", "constant", "cosine"] = _declare(
        "exponential",
        "How the learning rate changes after each epoch: times learning_rate_decay, not at all, or along half a cosine "
        "down to 0 after the last epoch.",
    )
    learning_rate_decay: float = _declare(
        0.91,
        "Factor on the learning rate after each epoch of the exponential schedule. Other schedules do not use it.",
        low=1e-3,
        high=1.0,
    )
    warmup_epochs: int = _declare(
        0,
        "Number of first epochs in which the learning rate rises linearly, before the schedule starts.",
        low=0,
        high=_MOST,
    )
    layer_decay: float = _declare(
        1.0,
        "Factor on the learning rate for each layer group (as timm defines them) further from the head; 1 for the same "
        "learning rate in all layers.",
        low=0.01,
        high=1.0,
    )
    weight_decay: float = _declare(
        0.0,
        "Weight decay of all parameters. With AdamW in float32 it has no effect if learning_rate x weight_decay is "
        "below 3e-8.",
        low=0.0,
    )
    effective_batch_size: int = _declare(32, "Images in one optimizer update.", low=1, high=_MOST)
    micro_batch_size: int = _declare(
        32,
        "Most images in one forward pass; the gradients of ceil(effective / micro) passes are added up. "
        "It changes the results of models with BatchNorm, and which values dropout drops; otherwise only speed and "
        "memory.",
        low=1,
        high=_MOST,
    )
    dropout_placement: str = _declare(
        "none",
        'Where dropout acts: "none", "head", "head+lastK.mlp" (and in the MLPs of the last K blocks of a ViT), '
        '"head+lastK" (and in these whole blocks), or "pos" (after the position embedding of a ViT). "none" and "head" '
        "fit every model.",
        problem_of=placement_problem,
    )
    drop_rate: float = _declare(
        0.5, 'Dropout probability at dropout_placement; not used with "none".', low=0.0, high=0.99
    )
    sampling: Literal["none", "random_over", "random_under", "smote", "adasyn", "adasyn_votes", "tomek"] = _declare(
        "none",
        "How the images of an epoch are drawn. none: every image once. random_over: images of the rarer class are "
        "repeated until both classes have the same number. smote: the same, and the repeats count as new images. "
        "adasyn: as smote, but images with more neighbours of the other class are repeated more often. adasyn_votes: "
        "as smote, but only the images of the rarer class with the closest vote are repeated. random_under: images of "
        "the more frequent class are left out until both have the same number. tomek: Tomek links are removed.",
    )
    augmentation: Literal["none", "flip", "rotate", "flip_rotate", "perspective", "affine", "flip_choice"] = _declare(
        "flip_rotate",
        "Random changes of shape. flip: horizontal and vertical flips. rotate: by up to 180 degrees in either "
        "direction, without cutting corners off. flip_rotate: both. perspective: corners move inwards by up to 50% of "
        "half the image. affine: translation by up to 10%, scale 0.8 to 1.2, shear by up to 10 degrees. flip_choice: "
        "flips, then one of rotation, perspective and affine.",
    )
    flip_prob: float = _declare(
        0.5, "Probability of the horizontal and of the vertical flip, drawn independently.", low=0.0, high=1.0
    )
    augmentation_prob: float = _declare(
        0.5, "Probability that an image is rotated, or warped by perspective or affine.", low=0.0, high=1.0
    )
    augment_scope: Literal["none", "resampled", "all"] = _declare(
        "all",
        "Which images of an epoch are augmented, in shape and stain: none, only the repeats that smote, "
        "adasyn or adasyn_votes added (resampled), or all.",
    )
    stain_jitter: float = _declare(
        0.0,
        "Largest relative change of the amount of haematoxylin and of eosin, and largest shift of it in optical "
        "density; 0 for none.",
        low=0.0,
        high=1.0,
    )
    stain_prob: float = _declare(0.5, "Probability that stain_jitter changes an image.", low=0.0, high=1.0)
    exclude_votes: tuple[int, ...] = _declare(
        (), "Training images with one of these numbers of votes for SSA are excluded.", low=0, high=N_ANNOTATORS
    )
    n_per_class: int = _declare(
        0, "Number of training images of each class, after exclusions; 0 for all.", low=0, high=_MOST
    )
    subset_seed: int = _declare(
        0,
        "Seed that chooses the images of n_per_class. A smaller subset is part of a larger one with the same seed.",
        low=0,
    )
    labels: Literal["majority", "votes"] = _declare(
        "majority",
        "Training target: the class of the majority (0 or 1), or the share of votes for SSA (0..1). "
        "Validation always uses the class.",
    )
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = _declare(
        "auto",
        "Number format of the forward pass. tf32 is fp32 with less precise products, and has an effect on NVIDIA GPUs "
        "only. fp16 also scales the loss. auto chooses the format that is fastest on the device.",
    )
    memory_format: Literal["auto", "contiguous", "channels_last"] = _declare(
        "auto",
        "Order of images and convolution weights in memory. auto chooses the order that is faster on the device.",
    )
    compile: Literal["auto", "off", "on"] = _declare(
        "auto",
        "Whether training uses torch.compile. auto uses it if it is faster; it is tried on a GPU only, and not if "
        "drop_rate is searched, because each rate would be compiled anew.",
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
        """Return all fields as plain JSON values; `from_dict` reverses it."""
        plain = {name: getattr(self, name) for name in FIELDS}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Hyperparameters":
        """Build from the result of `to_dict`. Missing fields get their defaults.

        Raises:
            ValueError: a name is unknown, or a value is not legal; one line for each problem.
        """
        if problems := [str(check(name, None)) for name in values if name not in FIELDS]:
            raise ValueError("\n".join(problems))
        return cls(**values)


def check(name: str, value: object) -> str | None:
    """Return what is wrong with one value of the hyperparameter `name`; None if it is legal.

    >>> check("epochs", 0)
    'must be at least 1, got 0'
    >>> check("drop_rat", 0.5)
    'unknown hyperparameter "drop_rat" (did you mean drop_rate?)'
    """
    field = FIELDS.get(name)
    if field is None:
        return f'unknown hyperparameter "{name}"{did_you_mean(name, FIELDS)}'
    if field.type is float and isinstance(value, float) and not math.isfinite(value):
        return f"must be a number, got {quoted(value)}"
    if problem := problem_of(field.type, value, field.low, field.high):
        return problem
    if field.choices is not None and value not in field.choices:
        return f'must be one of {", ".join(field.choices)}, got "{cut(str(value))}"'
    return field.problem_of(value) if field.problem_of else None


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
