"""Resamples of images, of whole groups of images, and of seeds, and the crossed bootstrap.

Shapes: `n` images, `S` seeds (one model each), `B` bootstrap resamples.
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from mhist_tune.arrays import FloatArray
from mhist_tune.mhist import THRESHOLD
from mhist_tune.statistics.binary_metrics import METRICS, checked, weighted_metrics

# Resamples computed at a time. It bounds the memory to a few [block, n] arrays, whatever the number of resamples.
_BLOCK = 250


def crossed_bootstrap(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    n_boot: int = 2000,
    seed: int = 0,
    threshold: float = THRESHOLD,
    names: Collection[str] = METRICS,
) -> dict[str, tuple[float, float]]:
    """Return the 95% percentile interval of each metric's mean over seeds, except for `ece`.

    Seeds and images are crossed, not nested: every model is tested on the same images. Each resample therefore draws
    the images once for all seeds, and draws the seeds independently (Owen, "The pigeonhole bootstrap", 2007). Resamples
    in which a metric is undefined, because a class is absent, do not count for its interval. With one seed the interval
    includes the uncertainty from the images only. Images count as independent. With few groups a percentile interval
    would be too narrow even if whole groups were drawn; `summaries.summary` has a jackknife for groups.

    Args:
        labels: [n], 0 or 1.
        probabilities: [S, n], in 0..1.
        n_boot: number of resamples.
        seed: of the resampling; the same seed gives the same intervals.
        threshold: as in `metrics_of`.
        names: the metrics to compute.

    Raises:
        ValueError: as `metrics_of`.
    """
    positive, per_model = checked(labels, probabilities)
    rng = np.random.default_rng(seed)
    blocks: list[dict[str, FloatArray]] = []
    for images in image_draws(rng, n_boot, positive.size, None):
        seeds = seed_draws(rng, len(images), len(per_model))
        per_seed = weighted_metrics(positive, per_model, images, threshold, names)
        blocks.append({name: (values * seeds).sum(axis=1) for name, values in per_seed.items()})
    return {name: percentiles(np.concatenate([block[name] for block in blocks])) for name in blocks[0]}


def image_draws(rng: np.random.Generator, n_boot: int, n: int, groups: Sequence[str] | None) -> Iterator[FloatArray]:
    """Yield `n_boot` resamples of the images or of whole groups, in blocks [b, n]: how often each image is drawn."""
    # unit_of[i] is the unit that image i is drawn with: the image itself, or its group.
    unit_of = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    n_units = int(unit_of.max()) + 1
    for start in range(0, n_boot, _BLOCK):
        yield _counts(rng, min(_BLOCK, n_boot - start), n_units)[:, unit_of]


def seed_draws(rng: np.random.Generator, n_boot: int, n_seeds: int) -> FloatArray:
    """Return the weight of each seed in each resample, [n_boot, n_seeds]; each row has the sum 1."""
    return _counts(rng, n_boot, n_seeds) / n_seeds


def percentiles(values: FloatArray) -> tuple[float, float]:
    """Return the 2.5% and 97.5% quantiles of the values that are not NaN; both are NaN if all values are."""
    defined = values[~np.isnan(values)]
    if not defined.size:
        return (np.nan, np.nan)
    low, high = np.quantile(defined, (0.025, 0.975))
    return float(low), float(high)


def _counts(rng: np.random.Generator, n_draws: int, n_units: int) -> FloatArray:
    """Draw `n_units` units with replacement, `n_draws` times; return the counts of each unit, [n_draws, n_units]."""
    drawn = rng.integers(n_units, size=(n_draws, n_units)) + np.arange(n_draws)[:, None] * n_units
    return np.bincount(drawn.ravel(), minlength=n_draws * n_units).reshape(n_draws, n_units).astype(np.float64)
