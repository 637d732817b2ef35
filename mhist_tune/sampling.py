"""Which images an epoch trains on, and in which order."""

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
    classes = np.asarray(labels).astype(np.int64)
    indices = np.arange(len(classes), dtype=np.int64)
    rng = np.random.default_rng([seed, epoch])
    if sampling == "random_over":
        # With one class alone there is nothing to balance, and imbalanced-learn would refuse.
        if np.unique(classes).size > 1:
            sampler = RandomOverSampler(random_state=int(rng.integers(2**32)))
            indices = sampler.fit_resample(indices[:, None], classes)[0][:, 0]
    elif sampling != "none":
        raise ValueError(f'unknown sampling "{sampling}"')
    return rng.permutation(indices)
