"""The images of an epoch in their order, and how they are cut into updates and micro-batches.

imbalanced-learn decides which images are drawn. SMOTE and ADASYN would interpolate new samples; here the new samples
are augmented repeats. `smote` repeats images of the rarer class uniformly. `adasyn` repeats them in proportion to the
share of the other class among their neighbours. `adasyn_votes` repeats those with the closest vote uniformly. All three
mark the repeats as new, and `augment_scope = "resampled"` augments only new images. imbalanced-learn is imported where
it is used: that takes a second, and `none` never needs it.
"""

import hashlib
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mhist_tune.arrays import Int64Array
from mhist_tune.mhist import N_ANNOTATORS

STRATEGIES = ("none", "random_over", "random_under", "smote", "adasyn", "adasyn_votes", "tomek")
USING_FEATURES = ("adasyn", "tomek")


@dataclass(frozen=True, eq=False)
class EpochDraw:
    """The m images of one epoch.

    Attributes:
        indices: int64 [m], indices of the training images in the order of the epoch.
        is_new: bool [m], whether an image is a repeat that smote, adasyn or adasyn_votes added.
    """

    indices: Int64Array
    is_new: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Sampling:
    """A strategy prepared for n training images; `prepare` builds it.

    Attributes:
        strategy: one of STRATEGIES.
        labels: classes of the training images, int64 [n].
        kept: int64, indices of the images that epochs are drawn from: all but those that tomek removed.
        weights: for adasyn and adasyn_votes, the probability with which each image is drawn as a repeat, [n], sum 1;
            None otherwise.
        fallback: why adasyn draws uniformly; None if it does not.
        features_sha256: SHA-256 (hex) of the features that neighbours were found by; None if none were needed.
    """

    strategy: str
    labels: Int64Array
    kept: Int64Array
    weights: npt.NDArray[np.float64] | None = None
    fallback: str | None = None
    features_sha256: str | None = None

    def draw(self, *, seed: int, epoch: int) -> EpochDraw:
        """Draw one epoch and shuffle it. The draw depends on `seed` and `epoch` only.

        With random_over, smote, adasyn and adasyn_votes every image occurs, and each class has as many images as the
        larger class.
        With random_under each class has as many images as the smaller class, of which every image occurs.
        """
        rng = np.random.default_rng([seed, epoch])
        indices = self.kept
        # A single class cannot be balanced: imbalanced-learn would raise ValueError.
        if np.unique(self.labels).size > 1:
            if self.weights is not None:
                n_missing = abs(len(self.labels) - 2 * int(self.labels.sum()))
                indices = np.concatenate([indices, rng.choice(len(self.labels), size=n_missing, p=self.weights)])
            elif self.strategy in ("random_over", "smote", "adasyn", "adasyn_votes"):
                from imblearn.over_sampling import RandomOverSampler

                sampler = RandomOverSampler(random_state=int(rng.integers(2**32)))
                indices = sampler.fit_resample(indices[:, None], self.labels)[0][:, 0]
            elif self.strategy == "random_under":
                from imblearn.under_sampling import RandomUnderSampler

                sampler = RandomUnderSampler(random_state=int(rng.integers(2**32)))
                indices = sampler.fit_resample(indices[:, None], self.labels)[0][:, 0]
        # The repeats follow all the original images.
        are_repeats_new = self.strategy in ("smote", "adasyn", "adasyn_votes")
        is_new = (np.arange(len(indices)) >= len(self.kept)) & are_repeats_new
        order = rng.permutation(len(indices))
        return EpochDraw(indices[order], is_new[order])


def prepare(
    strategy: str, labels: npt.ArrayLike, votes: npt.ArrayLike, features: Callable[[], npt.NDArray[np.int64]]
) -> Sampling:
    """Prepare a strategy for n training images: remove Tomek links, or compute the weights of the repeats.

    Args:
        strategy: one of STRATEGIES.
        labels: classes of the training images, [n], 0 or 1.
        votes: votes for SSA, [n], 0..7.
        features: returns the features that neighbours are found by, [n, F]; called for adasyn and tomek only.

    Raises:
        ValueError: `strategy` is unknown.
    """
    classes = (np.asarray(labels) > 0.5).astype(np.int64)
    all_indices = np.arange(len(classes), dtype=np.int64)
    if strategy not in STRATEGIES:
        raise ValueError(f'unknown sampling "{strategy}"')
    if strategy == "adasyn_votes":
        return Sampling(strategy, classes, all_indices, _closest_votes(np.asarray(votes), classes))
    if np.unique(classes).size < 2 or strategy not in USING_FEATURES:
        return Sampling(strategy, classes, all_indices)
    counts = features()
    sha256 = hashlib.sha256(np.ascontiguousarray(counts, dtype="<i8").tobytes()).hexdigest()
    points = counts.astype(np.float64)
    if strategy == "tomek":
        from imblearn.under_sampling import TomekLinks

        cleaner = TomekLinks()
        cleaner.fit_resample(points, classes)
        return Sampling(strategy, classes, np.sort(cleaner.sample_indices_).astype(np.int64), features_sha256=sha256)
    weights, fallback = _adasyn_weights(points, classes)
    return Sampling(strategy, classes, all_indices, weights, fallback, sha256)


def _closest_votes(votes: Int64Array, classes: Int64Array) -> npt.NDArray[np.float64] | None:
    """Return equal weights for the images of the rarer class with the closest vote; None if no class is rarer.

    Args:
        votes: votes for SSA, [n], 0..7.
        classes: int64 [n], 0 or 1.
    """
    n_positive = int(classes.sum())
    if n_positive in (0, len(classes)) or 2 * n_positive == len(classes):
        return None
    is_rarer = classes == int(2 * n_positive < len(classes))
    margins = np.abs(2 * votes - N_ANNOTATORS)
    is_drawn = is_rarer & (margins == margins[is_rarer].min())
    weights: npt.NDArray[np.float64] = is_drawn / is_drawn.sum()
    return weights


def _adasyn_weights(
    points: npt.NDArray[np.float64], classes: Int64Array
) -> tuple[npt.NDArray[np.float64] | None, str | None]:
    """Return ADASYN's density ratios r_i / sum(r), 0 for the larger class; or None and the reason, if there is one.

    r_i is the share of the other class among the nearest neighbours of image i (He et al., 2008). imbalanced-learn
    decides whether ADASYN applies and finds the neighbours, but does not return the ratios.

    Args:
        points: features, [n, F].
        classes: int64 [n], 0 or 1.
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


def cut_updates(
    n_images: int, *, effective_batch_size: int, micro_batch_size: int, is_coupled: bool
) -> list[list[slice]]:
    """Cut an epoch into optimizer updates, and each update into micro-batches of nearly equal size.

    With `is_coupled` no micro-batch holds a single image, because BatchNorm needs the statistics of at least two. A
    last update of one image is merged into the one before. If an odd update is cut into micro-batches of two, one of
    them has three images. Without `is_coupled` no micro-batch exceeds `micro_batch_size`.

    Args:
        n_images: images in the epoch.
        effective_batch_size: images in one update.
        micro_batch_size: most images in one micro-batch.
        is_coupled: whether the images of a micro-batch affect each other.

    Returns:
        For each update, the slices of the epoch that its micro-batches take.
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
