"""Which images of a training split a run trains on: exclusions by votes, and subsets of equal classes.

Validation and test images are never left out.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mhist_tune.annotations import NEGATIVE_CLASS, POSITIVE_CLASS, Int64Array
from mhist_tune.errors import UsageError
from mhist_tune.hyperparameters import Hyperparameters


def training_indices(
    hp: Hyperparameters, *, votes: npt.ArrayLike, labels: npt.ArrayLike, names: Sequence[str]
) -> Int64Array:
    """Return the sorted indices of the images that a run trains on: without excluded votes, then `n_per_class` each.

    The images of a class are ranked by a hash of their names and `subset_seed`. Smaller subsets therefore lie within
    larger ones, and which images are chosen hardly depends on which others there are.

    Args:
        hp: the run's hyperparameters.
        votes: of all images, [n], 0..7.
        labels: their classes, [n], 0 or 1.
        names: their names, [n].

    Raises:
        UsageError: no image is left, or a class has fewer than `n_per_class`.
    """
    kept = np.flatnonzero(~np.isin(np.asarray(votes), hp.exclude_votes))
    if not kept.size:
        raise UsageError("no training image is left", hint="exclude_votes leaves none")
    if not hp.n_per_class:
        return kept
    classes = np.asarray(labels)[kept]
    chosen = []
    for label, name in enumerate((NEGATIVE_CLASS, POSITIVE_CLASS)):
        members = kept[classes == label]
        if len(members) < hp.n_per_class:
            raise UsageError(
                f"n_per_class = {hp.n_per_class}, but {len(members)} {name} images are left to train on",
                hint="choose fewer, or exclude less",
            )
        ranks = [hashlib.sha256(f"{hp.subset_seed}/{names[index]}".encode()).digest() for index in members]
        chosen.append(members[sorted(range(len(members)), key=ranks.__getitem__)[: hp.n_per_class]])
    return np.sort(np.concatenate(chosen))
