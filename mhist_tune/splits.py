"""The validation split and the folds: parts of the train partition, stratified on the votes, stored with the study."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mhist_tune.arrays import Int64Array
from mhist_tune.errors import DataError
from mhist_tune.mhist import NEGATIVE_CLASS, POSITIVE_CLASS

Mask: TypeAlias = NDArray[np.bool_]
N_GROUP_ORDERS = 32
"""Random orders tried to find a split by groups that is near the wanted counts."""


def split_train(
    votes: Int64Array, labels: Int64Array, groups: Sequence[str] | None, *, val_fraction: float, seed: int
) -> tuple[Int64Array, Int64Array]:
    """Return (train, validation) indices, each sorted; together they are every image once.

    Without groups, each class gives ``round(val_fraction * its count)`` images, at least one, and within it each vote
    count gives its share to within one image; where a vote count is too small for an image of its own, neighbouring
    counts of the class share one. With groups, every group stays whole and the counts come as near as groups allow.

    Args:
        votes: votes for SSA, [n], 0..7.
        labels: the class, [n], 0 or 1.
        groups: the patient or slide of each image, or None.
        val_fraction: share of the validation split, above 0 and below 1.
        seed: chooses the images; the same seed gives the same split.

    Raises:
        DataError: a class has too few images, or groups, to be on both sides.
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
                f"the train partition cannot be split with {name} images on both sides",
                hint="each class needs at least two images, and two groups if there are groups",
            )
    return np.flatnonzero(~in_val), np.flatnonzero(in_val)


def split_folds(
    votes: Int64Array, labels: Int64Array, groups: Sequence[str] | None, *, n_folds: int, seed: int
) -> list[Int64Array]:
    """Return the sorted indices of each fold; together they are every image once.

    Each fold is cut from what the earlier ones left, in the way of `split_train`.

    Args:
        votes, labels, groups: as in `split_train`.
        n_folds: at least 2.
        seed: chooses the images.

    Raises:
        DataError: a class has too few images, or groups, to be in every fold.
    """
    folds, left = [], np.arange(len(votes))
    for n_left in range(n_folds, 1, -1):
        rest, fold = split_train(
            votes[left],
            labels[left],
            None if groups is None else [groups[int(index)] for index in left],
            val_fraction=1 / n_left,
            seed=seed,
        )
        folds.append(left[fold])
        left = left[rest]
    return [*folds, left]


def _choose_images(votes: Int64Array, labels: Int64Array, val_fraction: float, rng: np.random.Generator) -> Mask:
    in_val = np.zeros(len(votes), dtype=bool)
    shuffled = rng.permutation(len(votes))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        members = members[np.argsort(votes[members], kind="stable")]
        n_val = max(1, round(val_fraction * len(members)))
        # Evenly spaced picks from images in the order of their votes take from each vote count in proportion.
        in_val[members[((np.arange(n_val) + 0.5) * len(members) / n_val).astype(int)]] = True
    return in_val


def _choose_groups(
    votes: Int64Array, labels: Int64Array, groups: Sequence[str], val_fraction: float, rng: np.random.Generator
) -> Mask:
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    # One column per class, per vote count, and one for all: each asks for its share, relative to its size.
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
            # Take a group that brings the counts nearer, |missing - counts|^2 < |missing|^2, or a class not there yet.
            nearer = counts[group] @ (counts[group] - 2 * missing) < 0
            if nearer or (holds[group] & ~holds[taken].any(axis=0)).any():
                taken[group] = True
                missing -= counts[group]
        distance = float(missing @ missing) if holds[~taken].any(axis=0).all() else np.inf
        if distance <= least:
            least, chosen = distance, taken
    return np.asarray(chosen[group_of])
