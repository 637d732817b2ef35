"""The images of the training split that a run trains on: excluded vote counts, subsets with equal classes.

Validation and test images are never excluded.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mhist_tune.arrays import Int64Array
from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.errors import UsageError
from mhist_tune.mhist import NEGATIVE_CLASS, POSITIVE_CLASS


def training_indices(
    hp: Hyperparameters, *, votes: npt.ArrayLike, labels: npt.ArrayLike, names: Sequence[str]
) -> Int64Array:
    """Return the sorted indices of the images that a run trains on.

    Images with `hp.exclude_votes` are excluded first. Of the rest, `hp.n_per_class` of each class are chosen (0 for
    all). The images of a class are ranked by a hash of `hp.subset_seed` and their name. A smaller subset is therefore
    part of a larger one, and adding images to the data set changes a subset little.

    Args:
        hp: the run's hyperparameters.
        votes: votes for SSA of all n images, [n], 0..7.
        labels: classes, [n], 0 or 1.
        names: file names, [n].

    Returns:
        int64 indices, ascending.

    Raises:
        UsageError: no image is left, or a class has fewer than `n_per_class`.
    """
    kept = np.flatnonzero(~np.isin(np.asarray(votes), hp.exclude_votes))
    if not kept.size:
        raise UsageError("no training image is left", hint="exclude_votes excludes all of them: remove a number")
    if not hp.n_per_class:
        return kept
    classes = np.asarray(labels)[kept]
    chosen = []
    for label, name in enumerate((NEGATIVE_CLASS, POSITIVE_CLASS)):
        members = kept[classes == label]
        if len(members) < hp.n_per_class:
            raise UsageError(
                f"n_per_class = {hp.n_per_class}, but {len(members)} {name} images are left to train on",
                hint="lower n_per_class, or exclude fewer votes",
            )
        ranks = [hashlib.sha256(f"{hp.subset_seed}/{names[index]}".encode()).digest() for index in members]
        chosen.append(members[sorted(range(len(members)), key=ranks.__getitem__)[: hp.n_per_class]])
    return np.sort(np.concatenate(chosen))
