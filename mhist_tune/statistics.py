"""Metrics and their intervals, from labels and stored probabilities alone.

Shapes: `n` images, `S` seeds (one model each), `B` bootstrap resamples. Labels are 0 (HP) or 1 (SSA),
probabilities are those of SSA. One weighted, vectorised core serves the point estimates (every weight 1) and the
bootstrap (weight = how often an image was drawn), so the two cannot drift apart.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from mhist_tune.arrays import FloatArray
from mhist_tune.mhist import THRESHOLD

METRICS = (
    "auroc",
    "auprc",
    "f1",
    "precision",
    "recall",
    "specificity",
    "accuracy",
    "balanced_accuracy",
    "log_loss",
    "brier",
    "ece",
)
N_ECE_BINS = 15
# Resamples worked on at a time: bounds memory to a few [block, n] arrays however many resamples are asked for.
_BLOCK = 250


class MetricSummary(TypedDict):
    """One metric over the seeds; `None` stands for undefined, as JSON has no NaN."""

    mean: float | None
    std: float | None
    ci95: list[float] | None
    per_seed: list[float | None]


def metrics_of(labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float = THRESHOLD) -> dict[str, float]:
    """Return every metric of `METRICS` for one model.

    An image is called SSA when its probability is above (not at) the threshold, as torchmetrics does in training.
    `auprc` is average precision, `log_loss` and `brier` are means per image (probabilities clipped to
    [eps, 1 - eps] for the logarithm, as scikit-learn does), `ece` compares the mean probability with the share of
    SSA in 15 bins of equal width. Precision and F1 without a predicted SSA are 0; what needs a class that is
    absent is NaN.

    Args:
        labels: [n], 0 or 1.
        probabilities: [n], in 0..1.
        threshold: in 0..1.

    Raises:
        ValueError: for other shapes, other labels, or numbers that are not probabilities (logits).
    """
    positive, table = checked(labels, np.atleast_1d(np.asarray(probabilities, dtype=np.float64))[None])
    return {name: values[0] for name, values in _metrics_per_seed(positive, table, threshold).items()}


def crossed_bootstrap(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    n_boot: int = 2000,
    seed: int = 0,
    threshold: float = THRESHOLD,
    names: Collection[str] = METRICS,
) -> dict[str, tuple[float, float]]:
    """Return the 95% percentile interval of each metric's mean over seeds, `ece` left out.

    Seeds and images are crossed, not nested: every model saw the same test images. So each resample draws the images
    once for all seeds, and the seeds independently of them (Owen, "The pigeonhole bootstrap", 2007). Resamples in
    which a metric is undefined, for want of one class, are left out of its interval. With one seed the interval
    holds the uncertainty from the images only.

    Args:
        labels: [n], 0 or 1.
        probabilities: [S, n], in 0..1.
        groups: [n], a patient or slide of each image; whole groups are drawn then.
        n_boot: number of resamples.
        seed: of the resampling; the same seed gives the same intervals.
        threshold: as in `metrics_of`.
        names: the metrics that are wanted.

    Raises:
        ValueError: as `metrics_of`.
    """
    positive, table = checked(labels, probabilities)
    rng = np.random.default_rng(seed)
    blocks: list[dict[str, FloatArray]] = []
    for images in image_draws(rng, n_boot, positive.size, groups):
        seeds = seed_draws(rng, len(images), len(table))
        per_seed = _weighted_metrics(positive, table, images, threshold, names)
        blocks.append({name: (values * seeds).sum(axis=1) for name, values in per_seed.items()})
    return {name: percentiles(np.concatenate([block[name] for block in blocks])) for name in blocks[0]}


def summary(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    n_boot: int = 2000,
    seed: int = 0,
    threshold: float = THRESHOLD,
    names: Collection[str] = METRICS,
) -> dict[str, MetricSummary]:
    """Return each metric's mean, standard deviation (ddof = 1) and values over the seeds, with its 95% interval.

    `std` is None for a single seed, `ci95` is None for `ece`, and any undefined number is None.
    Arguments and errors are those of `crossed_bootstrap`.
    """
    positive, table = checked(labels, probabilities)
    per_seed = _metrics_per_seed(positive, table, threshold)
    intervals = crossed_bootstrap(
        positive, table, groups=groups, n_boot=n_boot, seed=seed, threshold=threshold, names=names
    )
    return {name: _summarize(per_seed[name], intervals.get(name)) for name in METRICS if name in names}


def image_draws(rng: np.random.Generator, n_boot: int, n: int, groups: Sequence[str] | None) -> Iterator[FloatArray]:
    """Yield blocks [b, n] of `n_boot` resamples in all: how often each of `n` images (or its whole group) is drawn."""
    # unit[i] is what image i is drawn with: itself, or its group.
    unit = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    n_units = int(unit.max()) + 1
    for start in range(0, n_boot, _BLOCK):
        yield _counts(rng, min(_BLOCK, n_boot - start), n_units)[:, unit]


def seed_draws(rng: np.random.Generator, n_boot: int, n_seeds: int) -> FloatArray:
    """Return [n_boot, n_seeds], the weight of each seed in each resample; a row sums to 1."""
    return _counts(rng, n_boot, n_seeds) / n_seeds


def weighted_auroc(positive: npt.NDArray[np.bool_], table: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the AUROC of each model under each row of image weights, [B, S]; NaN where one class has no weight.

    It is the weight of the pairs of an SSA and an HP image that are ordered rightly, a tied pair counting half.

    Args:
        positive: [n], which images are SSA.
        table: probabilities, [S, n].
        weights: [B, n], at least 0.
    """
    # Images come first, so that one row, an image in all resamples, is moved and added at once.
    of_ssa, of_hp = _by_class(positive, weights)
    areas = []
    for ssa, hp in zip(table[:, positive], table[:, ~positive], strict=True):
        scores, above = _cumulative(ssa, of_ssa)
        higher = np.searchsorted(scores, -hp, side="left")
        not_lower = np.searchsorted(scores, -hp, side="right")
        area = np.einsum("ib,ib->b", of_hp, above[higher])
        if (higher < not_lower).any():
            area = (area + np.einsum("ib,ib->b", of_hp, above[not_lower])) / 2
        areas.append(area)
    return _ratio(np.stack(areas, axis=1), (of_ssa.sum(axis=0) * of_hp.sum(axis=0))[:, None], np.nan)


def weighted_f1(positive: npt.NDArray[np.bool_], table: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the F1 at 0.5 of each model under each row of image weights, [B, S]; arguments as of `weighted_auroc`."""
    return _weighted_metrics(positive, table, weights, THRESHOLD, ("f1",))["f1"]


def percentiles(values: FloatArray) -> tuple[float, float]:
    """Return the 2.5% and 97.5% quantiles of the values that are defined; NaN twice if none is."""
    defined = values[~np.isnan(values)]
    if not defined.size:
        return (np.nan, np.nan)
    low, high = np.quantile(defined, (0.025, 0.975))
    return float(low), float(high)


def checked(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Return which images are SSA [n], and the probabilities [S, n].

    Raises:
        ValueError: as `metrics_of`.
    """
    known = np.asarray(labels)
    table = np.asarray(probabilities, dtype=np.float64)
    if known.ndim != 1 or known.size == 0 or table.ndim != 2 or table.shape[1] != known.size or not table.size:
        raise ValueError(f"labels must be [n] and probabilities [S, n], got {known.shape} and {table.shape}")
    if not np.isin(known, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not ((table >= 0) & (table <= 1)).all():
        raise ValueError("probabilities must lie in 0..1 (are these logits?)")
    return known.astype(np.bool_), table


def _metrics_per_seed(
    positive: npt.NDArray[np.bool_], table: FloatArray, threshold: float
) -> Mapping[str, list[float]]:
    weighted = _weighted_metrics(positive, table, np.ones((1, positive.size)), threshold, METRICS)
    per_seed = {name: [float(value) for value in values[0]] for name, values in weighted.items()}
    return {**per_seed, "ece": [_calibration_error(positive, row) for row in table]}


def _weighted_metrics(
    positive: npt.NDArray[np.bool_], table: FloatArray, weights: FloatArray, threshold: float, names: Collection[str]
) -> dict[str, FloatArray]:
    """Return [B, S] of the named metrics but `ece`, for `weights` [B, n] >= 0 of the images, the same for all seeds."""
    called = table > threshold
    tp = weights @ (called & positive).T.astype(np.float64)
    fp = weights @ (called & ~positive).T.astype(np.float64)
    n_positive = weights @ positive.astype(np.float64)[:, None]
    n_negative = weights @ (~positive).astype(np.float64)[:, None]
    n_all = n_positive + n_negative
    tn = n_negative - fp
    recall = _ratio(tp, n_positive, np.nan)
    specificity = _ratio(tn, n_negative, np.nan)
    eps = np.finfo(np.float64).eps
    of_truth = np.clip(np.where(positive, table, 1 - table), eps, 1 - eps)
    found = {
        "f1": _ratio(2 * tp, tp + fp + n_positive, 0.0),
        "precision": _ratio(tp, tp + fp, 0.0),
        "recall": recall,
        "specificity": specificity,
        "accuracy": (tp + tn) / n_all,
        "balanced_accuracy": (recall + specificity) / 2,
        "log_loss": weights @ -np.log(of_truth).T / n_all,
        "brier": weights @ np.square(table - positive).T / n_all,
    }
    # The sorting metrics take nearly all of the time.
    if "auroc" in names:
        found["auroc"] = weighted_auroc(positive, table, weights)
    if "auprc" in names:
        found["auprc"] = _weighted_average_precision(positive, table, weights)
    return {name: values for name, values in found.items() if name in names}


def _weighted_average_precision(positive: npt.NDArray[np.bool_], table: FloatArray, weights: FloatArray) -> FloatArray:
    """Return [B, S]: the mean precision at the SSA images' scores, without interpolation, as scikit-learn has it."""
    of_ssa, of_hp = _by_class(positive, weights)
    gains = []
    for ssa, hp in zip(table[:, positive], table[:, ~positive], strict=True):
        scores, above = _cumulative(ssa, of_ssa)
        other_scores, other_above = _cumulative(hp, of_hp)
        tp = above[np.searchsorted(scores, scores, side="right")]
        fp = other_above[np.searchsorted(other_scores, scores, side="right")]
        gains.append((np.diff(above, axis=0) * _ratio(tp, tp + fp, 0.0)).sum(axis=0))
    return _ratio(np.stack(gains, axis=1), of_ssa.sum(axis=0)[:, None], np.nan)


def _by_class(positive: npt.NDArray[np.bool_], weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the weights of the SSA and of the HP images, images first: [P, B] and [n - P, B]."""
    return np.ascontiguousarray(weights[:, positive].T), np.ascontiguousarray(weights[:, ~positive].T)


def _cumulative(probabilities: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the negated probabilities in rising order [k], and [k + 1, B] what the first 0, 1 .. k of them weigh."""
    order = np.argsort(-probabilities, kind="stable")
    above = np.zeros((len(order) + 1, weights.shape[1]))
    np.cumsum(weights[order], axis=0, out=above[1:])
    return -probabilities[order], above


def _calibration_error(positive: npt.NDArray[np.bool_], probabilities: FloatArray) -> float:
    """Expected calibration error, L1, over bins of equal width (Naeini et al., AAAI 2015), of P(SSA)."""
    bins = np.minimum((probabilities * N_ECE_BINS).astype(np.int64), N_ECE_BINS - 1)
    gaps = np.bincount(bins, weights=probabilities - positive, minlength=N_ECE_BINS)
    return float(np.abs(gaps).sum() / positive.size)


def _ratio(numerator: FloatArray, denominator: FloatArray, undefined: float) -> FloatArray:
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    quotient: FloatArray = np.full(shape, undefined)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _counts(rng: np.random.Generator, n_draws: int, n_units: int) -> FloatArray:
    """Return [n_draws, n_units]: how often each unit is drawn when as many as there are are drawn with replacement."""
    drawn = rng.integers(n_units, size=(n_draws, n_units)) + np.arange(n_draws)[:, None] * n_units
    return np.bincount(drawn.ravel(), minlength=n_draws * n_units).reshape(n_draws, n_units).astype(np.float64)


def _summarize(per_seed: Sequence[float], interval: tuple[float, float] | None) -> MetricSummary:
    values = np.asarray(per_seed)
    defined = not np.isnan(values).any()
    return {
        "mean": float(values.mean()) if defined else None,
        "std": float(values.std(ddof=1)) if defined and values.size > 1 else None,
        "ci95": list(interval) if interval is not None and defined else None,
        "per_seed": [None if np.isnan(value) else float(value) for value in values],
    }
