"""The validation split and the folds of cross-validation: parts of the train partition, stratified by votes."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mhist_tune.arrays import Int64Array
from mhist_tune.errors import DataError
from mhist_tune.mhist import NEGATIVE_CLASS, POSITIVE_CLASS

Mask: TypeAlias = NDArray[np.bool_]
N_GROUP_ORDERS = 32
"""Number of random orders of the groups that are tried; the split nearest to the target counts is taken."""


def split_train(
    votes: Int64Array, labels: Int64Array, groups: Sequence[str] | None, *, val_fraction: float, seed: int
) -> tuple[Int64Array, Int64Array]:
    """Split n images into (train, validation) indices, each sorted. Every image is in exactly one part.

    Without groups, validation gets ``round(val_fraction * count)`` images of each class, at least one. Within a class,
    each vote count contributes its share, to within one image. A vote count too small for one image shares it with
    neighbouring counts. With groups, every group stays in one part, and the counts are as near as groups allow.

    Args:
        votes: votes for SSA, [n], 0..7.
        labels: classes, [n], 0 or 1.
        groups: the patient or slide of each image, [n], or None.
        val_fraction: share of the validation split, above 0 and below 1.
        seed: decides which images are chosen; the same seed gives the same split.

    Returns:
        int64 indices of the train and of the validation images.

    Raises:
        DataError: a class has too few images or groups to be in both parts.
    """
    rng = np.random.default_rng(seed)
    in_val = (
        _choose_images(votes, labels, val_fraction, rng)
        if groups is None
        else _choose_groups(votes, labels, groups, val_fraction, rng)
    )
    for label, name in enumerate((NEGATIVE_CLASS, POSITIVE_CLASS)):
        if len(np.unique(in_val[labels == label])) < 2:
            raise DataError(
                f"the train partition cannot be split with {name} images in both parts",
                hint="each class needs at least two images, and two groups if there are groups",
            )
    return np.flatnonzero(~in_val), np.flatnonzero(in_val)


def split_folds(
    votes: Int64Array, labels: Int64Array, groups: Sequence[str] | None, *, n_folds: int, seed: int
) -> list[Int64Array]:
    """Return the sorted indices of each fold. Every image is in exactly one fold.

    Each fold is split off the images that remain after the earlier folds, by `split_train`.

    Args:
        votes, labels, groups: as in `split_train`.
        n_folds: at least 2.
        seed: decides which images are chosen.

    Raises:
        DataError: a class has too few images or groups to be in every fold.
    """
    folds, remaining = [], np.arange(len(votes))
    for n_remaining_folds in range(n_folds, 1, -1):
        rest, fold = split_train(
            votes[remaining],
            labels[remaining],
            None if groups is None else [groups[int(index)] for index in remaining],
            val_fraction=1 / n_remaining_folds,
            seed=seed,
        )
        folds.append(remaining[fold])
        remaining = remaining[rest]
    return [*folds, remaining]


def _choose_images(votes: Int64Array, labels: Int64Array, val_fraction: float, rng: np.random.Generator) -> Mask:
    in_val = np.zeros(len(votes), dtype=bool)
    shuffled = rng.permutation(len(votes))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        members = members[np.argsort(votes[members], kind="stable")]
        n_val = max(1, round(val_fraction * len(members)))
        # Evenly spaced positions in the order of votes choose from each vote count in proportion to its size.
        in_val[members[((np.arange(n_val) + 0.5) * len(members) / n_val).astype(int)]] = True
    return in_val


def _choose_groups(
    votes: Int64Array, labels: Int64Array, groups: Sequence[str], val_fraction: float, rng: np.random.Generator
) -> Mask:
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    # One column for each class, each vote count and all images. Division by the root of its total weights each column.
    classes = np.unique(labels)
    columns = [labels == label for label in classes]
    columns += [votes == value for value in np.unique(votes)] + [np.ones(len(votes), dtype=bool)]
    counts = np.zeros((len(names), len(columns)))
    np.add.at(counts, group_of, np.stack(columns, axis=1))
    counts /= np.sqrt(counts.sum(axis=0))
    holds = counts[:, : len(classes)] > 0

    least, chosen = np.inf, np.zeros(len(names), dtype=bool)
    for _ in range(N_GROUP_ORDERS):
        missing = val_fraction * counts.sum(axis=0)
        taken = np.zeros(len(names), dtype=bool)
        for group in rng.permutation(len(names)):
            # Take a group if the counts get nearer, |missing - counts|^2 < |missing|^2, or if it adds a missing class.
            is_nearer = counts[group] @ (counts[group] - 2 * missing) < 0
            if is_nearer or (holds[group] & ~holds[taken].any(axis=0)).any():
                taken[group] = True
                missing -= counts[group]
        distance = float(missing @ missing) if holds[~taken].any(axis=0).all() else np.inf
        if distance <= least:
            least, chosen = distance, taken
    return np.asarray(chosen[group_of])
