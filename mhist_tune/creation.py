"""Creating a study: everything that can be wrong with it is found before anything is written."""

from pathlib import Path
from typing import Any

from mhist_tune import dataset, models, studies
from mhist_tune.annotations import read_annotations
from mhist_tune.definition import StudyDefinition
from mhist_tune.space import Categorical, Int, Value
from mhist_tune.splits import split_train
from mhist_tune.storage import Storage
from mhist_tune.studies import Study
from mhist_tune.subsets import training_indices


def create(storage: Storage, definition: StudyDefinition, data_root: Path) -> Study:
    """Check the definition against the models and the data, cut the validation split, and store the study.

    The same definition again changes nothing and returns the study.

    Raises:
        UsageError: a model, a dropout placement or the weights are not to be had, a class has too few images to train
            on, or the name is taken.
        DataError: the data set is missing or damaged.
    """
    corners = [definition.hyperparameters(params) for params in _corners(definition)]
    for hp in corners:
        models.check(hp)
    train = read_annotations(data_root, "train")
    train_indices, val_indices = split_train(
        train.votes, train.labels, train.groups, val_fraction=definition.val_fraction, seed=definition.split_seed
    )
    for hp in corners:
        training_indices(
            hp,
            votes=train.votes[train_indices],
            labels=train.labels[train_indices],
            names=[train.names[index] for index in train_indices],
        )
    groups = train.groups or (None,) * len(train.names)
    rows = [
        [name, int(label), int(votes), group]
        for name, label, votes, group in zip(train.names, train.labels, train.votes, groups, strict=True)
    ]
    return studies.create_study(
        storage,
        definition,
        dataset={
            "fingerprint": dataset.fingerprint(data_root),
            "weight_files": {hp.weights: sha256 for hp in corners if (sha256 := models.weights_identity(hp.weights))},
        },
        image_sets={
            "train": [rows[index] for index in train_indices],
            "val": [rows[index] for index in val_indices],
        },
    )


def _corners(definition: StudyDefinition) -> list[dict[str, Any]]:
    """Return a table's rows; of a search, params that together name every choice and the bounds of whole numbers."""
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
