"""Creates a study. Every mistake in its definition is found before anything is written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mhist_tune.arrays import Int64Array
from mhist_tune.data import cache, description
from mhist_tune.data.annotations import Annotations, class_counts, read_annotations
from mhist_tune.data.check import require_sound
from mhist_tune.data.pin import test_pin
from mhist_tune.data.splits import split_folds, split_train
from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.definition.space import Categorical, Int, Value
from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.errors import UsageError
from mhist_tune.seeds import derive_seed
from mhist_tune.storage import studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.payloads import fold_set, inner_set
from mhist_tune.storage.studies import Study
from mhist_tune.training import models, weight_files
from mhist_tune.training.subsets import training_indices

_OF_THE_MODEL = (
    *("model", "model_options", "weights", "image_size", "freeze", "dropout_placement"),
    *("micro_batch_size", "effective_batch_size"),
)
_OF_THE_SUBSET = ("exclude_votes", "n_per_class", "subset_seed")
"""The hyperparameters that decide whether a model can be built, and which images are trained on."""


@dataclass(frozen=True)
class PreparedStudy:
    """A study that can be created.

    Attributes:
        image_sets: the rows [name, label, votes, group or None] of the parts of the validation split and of each fold,
            by the name of the part.
        weight_files: the SHA-256 of each weight file.
        warnings: what the user should know of the data set, one line each.
        n_test: the numbers of SSA and of HP images of the test partition, counted in the table.
    """

    image_sets: dict[str, list[list[Any]]]
    weight_files: dict[str, str]
    warnings: list[str]
    n_test: tuple[int, int]


def prepare(definition: StudyDefinition, data_root: Path) -> PreparedStudy:
    """Check the definition against the models and the data, and cut the validation split and folds.

    Raises:
        UsageError: a model, a dropout placement or weights are not available, or a class has too few images to
            train on.
        DataError: the data set is missing or damaged.
    """
    corners = [definition.hyperparameters(params) for params in _corners(definition)]
    for hp in _distinct(corners, _OF_THE_MODEL):
        models.check(hp)
    warnings = require_sound(data_root)
    train = read_annotations(data_root, "train")
    train_indices, val_indices = split_train(
        train.votes, train.labels, train.groups, val_fraction=definition.val_fraction, seed=definition.split_seed
    )
    parts = {"train": train_indices, "val": val_indices} | _folds(definition, train)
    for indices in _trained_on(parts, definition, len(train.names)):
        for hp in _distinct(corners, _OF_THE_SUBSET):
            chosen = training_indices(
                hp,
                votes=train.votes[indices],
                labels=train.labels[indices],
                names=[train.names[index] for index in indices],
            )
            if len(np.unique(train.labels[indices][chosen])) < 2:
                raise UsageError("all images to train on are of one class", hint="exclude fewer votes")
    groups = train.groups or (None,) * len(train.names)
    rows = [
        [name, int(label), int(votes), group]
        for name, label, votes, group in zip(train.names, train.labels, train.votes, groups, strict=True)
    ]
    files = dict.fromkeys(name for hp in corners for name in weight_files.names(hp))
    return PreparedStudy(
        {name: [rows[index] for index in indices] for name, indices in parts.items()},
        {name: weight_files.sha256_of(name) for name in files},
        warnings,
        class_counts(data_root, "test"),
    )


def create(storage: Storage, definition: StudyDefinition, data_root: Path) -> Study:
    """Check the definition against the models and the data, cut the validation split and folds, and store the study.

    A second call with the same definition changes nothing and returns the study.

    Raises:
        UsageError: as in `prepare`, or the name is taken.
        DataError: the data set is missing or damaged.
    """
    return checked(definition, data_root)(storage)


def checked(
    definition: StudyDefinition, data_root: Path, settings: Mapping[str, Any] | None = None
) -> Callable[[Storage], Study]:
    """Do all of `create` that needs no storage, and return a function that stores the study.

    A storage that does not exist yet is thus made after everything was checked.

    Args:
        definition: of the study.
        data_root: its images.
        settings: that the study has from the beginning, JSON.

    Raises:
        UsageError: as in `prepare`.
        DataError: the data set is missing or damaged.
    """
    return store(definition, data_root, prepare(definition, data_root), settings)


def store(
    definition: StudyDefinition,
    data_root: Path,
    prepared: PreparedStudy,
    settings: Mapping[str, Any] | None = None,
) -> Callable[[Storage], Study]:
    """Return a function that stores a prepared study; arguments as of `checked`.

    Raises:
        DataError: the data set is missing or damaged.
    """
    test = test_pin(data_root)
    dataset = {
        "fingerprint": cache.fingerprint(data_root),
        "test_rows_sha256": test.rows if test else None,
        "test_sizes_sha256": test.sizes if test else None,
        "weight_files": prepared.weight_files,
        "warnings": prepared.warnings,
        "description": description.read(data_root),
    }
    return partial(
        studies.create_study,
        definition=definition,
        dataset=dataset,
        image_sets=prepared.image_sets,
        settings=settings or {},
    )


def _distinct(corners: Sequence[Hyperparameters], names: Sequence[str]) -> list[Hyperparameters]:
    """Return one of the runs for each combination of values of some hyperparameters."""
    return list({repr([getattr(hp, name) for name in names]): hp for hp in corners}.values())


def _folds(definition: StudyDefinition, train: Annotations) -> dict[str, Int64Array]:
    """Return the folds of `[confirm]` and, with `at = "best"`, the validation part of their inner splits.

    They are indices by the name of the image set.
    Their seeds differ from that of the validation split: the images that chose a finalist do not score it.
    """
    if not definition.confirm:
        return {}
    seed, n_folds = definition.split_seed, definition.confirm["n_folds"]
    indices: dict[str, Int64Array] = {}
    folds = split_folds(train.votes, train.labels, train.groups, n_folds=n_folds, seed=derive_seed(seed, "folds"))
    for fold, in_fold in enumerate(folds):
        indices[fold_set(fold)] = in_fold
        if definition.at == "last":
            continue
        outside = np.setdiff1d(np.arange(len(train.names)), in_fold)
        _, inner = split_train(
            train.votes[outside],
            train.labels[outside],
            None if train.groups is None else [train.groups[index] for index in outside],
            val_fraction=definition.val_fraction,
            seed=derive_seed(seed, "inner", fold),
        )
        indices[inner_set(fold)] = outside[inner]
    return indices


def _trained_on(parts: Mapping[str, Int64Array], definition: StudyDefinition, n_images: int) -> list[Int64Array]:
    """Return the training images, as indices, of the search and of each fold's smallest training."""
    n_folds = definition.confirm["n_folds"] if definition.confirm else 0
    sets = [[fold_set(fold), inner_set(fold)] for fold in range(n_folds)]
    left_out = [np.concatenate([parts[name] for name in names if name in parts]) for names in sets]
    return [parts["train"], *(np.setdiff1d(np.arange(n_images), indices) for indices in left_out)]


def _corners(definition: StudyDefinition) -> list[dict[str, Any]]:
    """Return the params of a table's rows. For a search, return params that cover every choice and integer bound."""
    if definition.rows:
        return [dict(row.params) for row in definition.rows]
    default = definition.default_params()
    corners = [default]
    for name, dimension in definition.space.items():
        values: tuple[Value, ...] = ()
        if isinstance(dimension, Categorical):
            values = dimension.choices
        elif isinstance(dimension, Int):
            values = (dimension.low, dimension.high)
        corners += [{**default, name: value} for value in values if value != default[name]]
    return corners
