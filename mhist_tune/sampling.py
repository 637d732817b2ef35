"""Which images an epoch trains on, in which order, and how they are cut into updates and micro-batches.

Which images are drawn is decided by imbalanced-learn. What SMOTE and ADASYN would interpolate is an augmented image
here: `smote` repeats images of the rarer class uniformly, `adasyn` in proportion to the share of the other class among
their neighbours, and both count the repeats as new images, which `augment_scope = "resampled"` augments.
imbalanced-learn is loaded where it is asked: it costs a second, and the strategy `none` needs it never.
"""

import hashlib
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

STRATEGIES = ("none", "random_over", "random_under", "smote", "adasyn", "tomek")
USING_FEATURES = ("adasyn", "tomek")

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class EpochDraw:
    """One epoch: int64 indices [m] in their order, and bool [m], whether each is a new image (a repeat to augment)."""

    indices: Int64Array
    is_new: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Sampling:
    """A strategy made ready for its training images; `plan` builds it.

    Attributes:
        strategy: one of STRATEGIES.
        labels: classes of the training images, int64 [n].
        kept: indices of the images that epochs are drawn from: all but those that tomek removed.
        weights: for adasyn, how likely each image of the rarer class is drawn again, [n], summing to 1; None otherwise.
        fallback: why adasyn draws uniformly after all, None where it does not.
        features_sha256: of what neighbours were found by, None where none were looked for.
    """

    strategy: str
    labels: Int64Array
    kept: Int64Array
    weights: npt.NDArray[np.float64] | None = None
    fallback: str | None = None
    features_sha256: str | None = None

    def draw(self, *, seed: int, epoch: int) -> EpochDraw:
        """Return one epoch, shuffled; each epoch of a seed has its own draw.

        With random_over, smote and adasyn every image occurs, and both classes exactly as often as the larger one has
        images; with random_under the smaller class occurs whole and as many of the larger one.
        """
        rng = np.random.default_rng([seed, epoch])
        indices = self.kept
        # With one class alone there is nothing to balance, and imbalanced-learn would refuse.
        if np.unique(self.labels).size > 1:
            if self.weights is not None:
                n_missing = abs(len(self.labels) - 2 * int(self.labels.sum()))
                indices = np.concatenate([indices, rng.choice(len(self.labels), size=n_missing, p=self.weights)])
            elif self.strategy in ("random_over", "smote", "adasyn"):
                from imblearn.over_sampling import RandomOverSampler

                sampler = RandomOverSampler(random_state=int(rng.integers(2**32)))
                indices = sampler.fit_resample(indices[:, None], self.labels)[0][:, 0]
            elif self.strategy == "random_under":
                from imblearn.under_sampling import RandomUnderSampler

                sampler = RandomUnderSampler(random_state=int(rng.integers(2**32)))
                indices = sampler.fit_resample(indices[:, None], self.labels)[0][:, 0]
        # Repeats come after the images that they repeat.
        counts_as_new = self.strategy in ("smote", "adasyn")
        is_new = (np.arange(len(indices)) >= len(self.kept)) & counts_as_new
        order = rng.permutation(len(indices))
        return EpochDraw(indices[order], is_new[order])


def plan(strategy: str, labels: npt.ArrayLike, features: Callable[[], npt.NDArray[np.int64]]) -> Sampling:
    """Make a strategy ready for training images.

    Args:
        strategy: one of STRATEGIES.
        labels: their classes, [n], 0 or 1.
        features: gives what neighbours are found by, [n, F]; called for adasyn and tomek only.

    Raises:
        ValueError: if `strategy` is unknown.
    """
    classes = (np.asarray(labels) > 0.5).astype(np.int64)
    everything = np.arange(len(classes), dtype=np.int64)
    if strategy not in STRATEGIES:
        raise ValueError(f'unknown sampling "{strategy}"')
    if np.unique(classes).size < 2 or strategy not in USING_FEATURES:
        return Sampling(strategy, classes, everything)
    counts = features()
    sha256 = hashlib.sha256(np.ascontiguousarray(counts, dtype="<i8").tobytes()).hexdigest()
    points = counts.astype(np.float64)
    if strategy == "tomek":
        from imblearn.under_sampling import TomekLinks

        cleaner = TomekLinks()
        cleaner.fit_resample(points, classes)
        return Sampling(strategy, classes, np.sort(cleaner.sample_indices_).astype(np.int64), features_sha256=sha256)
    weights, fallback = _adasyn_weights(points, classes)
    return Sampling(strategy, classes, everything, weights, fallback, sha256)


def _adasyn_weights(
    points: npt.NDArray[np.float64], classes: Int64Array
) -> tuple[npt.NDArray[np.float64] | None, str | None]:
    """Return ADASYN's density ratio r_i / sum(r) of the rarer class, 0 elsewhere, or None and why there is none.

    imbalanced-learn decides whether ADASYN applies, and finds the neighbours; it keeps the ratio to itself.
    """
    from imblearn.over_sampling import ADASYN

    n_positive = int(classes.sum())
    if 2 * n_positive == len(classes):
        return None, None
    rarer = int(2 * n_positive < len(classes))
    sampler = ADASYN(random_state=0)
    try:
        sampler.fit_resample(points, classes)
    except (RuntimeError, ValueError) as error:
        return None, f"adasyn draws uniformly: {' '.join(str(error).split())}"
    members = np.flatnonzero(classes == rarer)
    neighbours = sampler.nn_.fit(points).kneighbors(points[members], return_distance=False)[:, 1:]
    weights = np.zeros(len(classes))
    weights[members] = (classes[neighbours] != rarer).mean(axis=1)
    return weights / weights.sum(), None


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
