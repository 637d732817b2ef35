"""Which images an epoch trains on, in which order, and how they are cut into updates and micro-batches."""

import itertools
import math

import numpy as np
import numpy.typing as npt
from imblearn.over_sampling import RandomOverSampler


def epoch_indices(labels: npt.ArrayLike, sampling: str, *, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the shuffled indices of one epoch.

    Every image occurs at least once. With "random_over" images of the rarer class are drawn again, uniformly with
    replacement, until both classes are equally frequent.

    Args:
        labels: classes of the training images, [n].
        sampling: "none" or "random_over".
        seed: seed of the training run.
        epoch: number of the epoch; each has its own draw.

    Returns:
        int64 indices into `labels`, [n] or [2 x size of the larger class].

    Raises:
        ValueError: if `sampling` is unknown.
    """
    classes = np.asarray(labels)
    indices = np.arange(len(classes), dtype=np.int64)
    rng = np.random.default_rng([seed, epoch])
    if sampling == "random_over":
        # With one class alone there is nothing to balance, and imbalanced-learn would refuse.
        if np.unique(classes).size > 1:
            sampler = RandomOverSampler(random_state=int(rng.integers(2**32)))
            indices = sampler.fit_resample(indices[:, None], classes.astype(np.int64))[0][:, 0]
    elif sampling != "none":
        raise ValueError(f'unknown sampling "{sampling}"')
    return rng.permutation(indices)


def plan_updates(
    n_images: int, *, effective_batch_size: int, micro_batch_size: int, is_coupled: bool
) -> list[list[slice]]:
    """Cut an epoch into optimizer updates, and each update into micro-batches of nearly equal size.

    With `is_coupled` (BatchNorm) no micro-batch holds one image, on which BatchNorm has no statistics: a last update
    of one image joins the one before, and where an odd update does not divide by a micro-batch of two, one
    micro-batch takes three. Otherwise no micro-batch is larger than `micro_batch_size`.
    """
    bounds = [*range(0, n_images, effective_batch_size), n_images]
    if is_coupled and len(bounds) > 2 and bounds[-1] - bounds[-2] == 1:
        del bounds[-2]
    updates = []
    for start, stop in itertools.pairwise(bounds):
        n = stop - start
        n_parts = math.ceil(n / micro_batch_size)
        if is_coupled:
            n_parts = max(1, min(n_parts, n // 2))
        edges = [start + n * part // n_parts for part in range(n_parts + 1)]
        updates.append([slice(first, last) for first, last in itertools.pairwise(edges)])
    return updates
