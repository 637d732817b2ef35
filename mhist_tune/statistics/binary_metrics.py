"""Metrics and their confidence intervals, from labels and stored probabilities.

Shapes: `n` images, `S` seeds (one model each), `B` bootstrap resamples. Labels are 0 (HP) or 1 (SSA), probabilities are
those of SSA. The same weighted, vectorised functions compute the point estimates (every weight 1) and the bootstrap
(weight = how often an image was drawn), so the two cannot disagree.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

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
# Resamples computed at a time. It bounds the memory to a few [block, n] arrays, whatever the number of resamples.
_BLOCK = 250


@dataclass(frozen=True)
class MetricSummary:
    """One metric over the seeds. None means undefined, because JSON has no NaN.

    Attributes:
        std: with ddof = 1; None for a single seed.
        ci95: None for `ece`, which resampling biases.
    """

    mean: float | None
    std: float | None
    ci95: tuple[float, float] | None
    per_seed: list[float | None]


def metrics_of(labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float = THRESHOLD) -> dict[str, float]:
    """Return every metric of `METRICS` for one model.

    An image is called SSA if its probability is above (not at) the threshold, as torchmetrics does in training. `auprc`
    is average precision. `log_loss` and `brier` are means per image; for the logarithm, probabilities are clipped to
    [eps, 1 - eps], as scikit-learn does. `ece` compares the mean probability with the share of SSA in 15 bins of equal
    width. Precision and F1 are 0 if no image is called SSA. A metric that needs an absent class is NaN.

    Args:
        labels: [n], 0 or 1.
        probabilities: [n], in 0..1.
        threshold: in 0..1.

    Raises:
        ValueError: the shapes differ, a label is not 0 or 1, or a probability is outside 0..1 (a logit).
    """
    positive, of_one_model = checked(labels, np.atleast_1d(np.asarray(probabilities, dtype=np.float64))[None])
    return {name: values[0] for name, values in _metrics_per_seed(positive, of_one_model, threshold).items()}


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
    """Return the 95% percentile interval of each metric's mean over seeds, except for `ece`.

    Seeds and images are crossed, not nested: every model is tested on the same images. Each resample therefore draws
    the images once for all seeds, and draws the seeds independently (Owen, "The pigeonhole bootstrap", 2007). Resamples
    in which a metric is undefined, because a class is absent, do not count for its interval. With one seed the interval
    includes the uncertainty from the images only.

    Args:
        labels: [n], 0 or 1.
        probabilities: [S, n], in 0..1.
        groups: the patient or slide of each image, [n], to draw whole groups; None to draw images.
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
    for images in image_draws(rng, n_boot, positive.size, groups):
        seeds = seed_draws(rng, len(images), len(per_model))
        per_seed = _weighted_metrics(positive, per_model, images, threshold, names)
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

    `std` is None for a single seed, `ci95` is None for `ece`, and every undefined number is None. Arguments and errors
    are those of `crossed_bootstrap`.
    """
    positive, per_model = checked(labels, probabilities)
    per_seed = _metrics_per_seed(positive, per_model, threshold)
    intervals = crossed_bootstrap(
        positive, per_model, groups=groups, n_boot=n_boot, seed=seed, threshold=threshold, names=names
    )
    return {name: _summarize(per_seed[name], intervals.get(name)) for name in METRICS if name in names}


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


def weighted_auroc(positive: npt.NDArray[np.bool_], probabilities: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the AUROC of each model for each row of image weights, [B, S]; NaN if a class has no weight.

    It is the weighted share of the pairs of an SSA and an HP image that are ordered correctly. A tie counts half.

    Args:
        positive: bool [n], which images are SSA.
        probabilities: [S, n].
        weights: [B, n], at least 0.
    """
    # Images are the first axis: a row, one image in all resamples, is contiguous, so it is read and added fast.
    of_ssa, of_hp = _by_class(positive, weights)
    areas = []
    for ssa, hp in zip(probabilities[:, positive], probabilities[:, ~positive], strict=True):
        scores, above = _cumulative(ssa, of_ssa)
        higher = np.searchsorted(scores, -hp, side="left")
        not_lower = np.searchsorted(scores, -hp, side="right")
        area = np.einsum("ib,ib->b", of_hp, above[higher])
        if (higher < not_lower).any():
            area = (area + np.einsum("ib,ib->b", of_hp, above[not_lower])) / 2
        areas.append(area)
    return _ratio(np.stack(areas, axis=1), (of_ssa.sum(axis=0) * of_hp.sum(axis=0))[:, None], np.nan)


def weighted_f1(
    positive: npt.NDArray[np.bool_], probabilities: FloatArray, weights: FloatArray, threshold: float = THRESHOLD
) -> FloatArray:
    """Return the F1 of each model for each row of image weights, [B, S]; arguments as in `weighted_auroc`."""
    return _weighted_metrics(positive, probabilities, weights, threshold, ("f1",))["f1"]


def percentiles(values: FloatArray) -> tuple[float, float]:
    """Return the 2.5% and 97.5% quantiles of the values that are not NaN; both are NaN if all values are."""
    defined = values[~np.isnan(values)]
    if not defined.size:
        return (np.nan, np.nan)
    low, high = np.quantile(defined, (0.025, 0.975))
    return float(low), float(high)


def checked(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Return which images are SSA, bool [n], and the probabilities, float64 [S, n], after checking both.

    Raises:
        ValueError: as `metrics_of`.
    """
    classes = np.asarray(labels)
    values = np.asarray(probabilities, dtype=np.float64)
    if classes.ndim != 1 or classes.size == 0 or values.ndim != 2 or values.shape[1] != classes.size or not values.size:
        raise ValueError(f"labels must be [n] and probabilities [S, n], got {classes.shape} and {values.shape}")
    if not np.isin(classes, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("probabilities must be in 0..1 (are these logits?)")
    return classes.astype(np.bool_), values


def _metrics_per_seed(
    positive: npt.NDArray[np.bool_], probabilities: FloatArray, threshold: float
) -> Mapping[str, list[float]]:
    weighted = _weighted_metrics(positive, probabilities, np.ones((1, positive.size)), threshold, METRICS)
    per_seed = {name: [float(value) for value in values[0]] for name, values in weighted.items()}
    return {**per_seed, "ece": [_calibration_error(positive, of_model) for of_model in probabilities]}


def _weighted_metrics(
    positive: npt.NDArray[np.bool_],
    probabilities: FloatArray,
    weights: FloatArray,
    threshold: float,
    names: Collection[str],
) -> dict[str, FloatArray]:
    """Return each named metric except `ece`, [B, S]; arguments as in `weighted_auroc` and `metrics_of`."""
    called = probabilities > threshold
    tp = weights @ (called & positive).T.astype(np.float64)
    fp = weights @ (called & ~positive).T.astype(np.float64)
    n_positive = weights @ positive.astype(np.float64)[:, None]
    n_negative = weights @ (~positive).astype(np.float64)[:, None]
    n_all = n_positive + n_negative
    tn = n_negative - fp
    recall = _ratio(tp, n_positive, np.nan)
    specificity = _ratio(tn, n_negative, np.nan)
    eps = np.finfo(np.float64).eps
    of_truth = np.clip(np.where(positive, probabilities, 1 - probabilities), eps, 1 - eps)
    metrics = {
        "f1": _ratio(2 * tp, tp + fp + n_positive, 0.0),
        "precision": _ratio(tp, tp + fp, 0.0),
        "recall": recall,
        "specificity": specificity,
        "accuracy": (tp + tn) / n_all,
        "balanced_accuracy": (recall + specificity) / 2,
        "log_loss": weights @ -np.log(of_truth).T / n_all,
        "brier": weights @ np.square(probabilities - positive).T / n_all,
    }
    # These two sort the images, which takes nearly all of the time.
    if "auroc" in names:
        metrics["auroc"] = weighted_auroc(positive, probabilities, weights)
    if "auprc" in names:
        metrics["auprc"] = _weighted_average_precision(positive, probabilities, weights)
    return {name: values for name, values in metrics.items() if name in names}


def _weighted_average_precision(
    positive: npt.NDArray[np.bool_], probabilities: FloatArray, weights: FloatArray
) -> FloatArray:
    """Return the average precision, [B, S]: the mean precision at the SSA images, as in scikit-learn."""
    of_ssa, of_hp = _by_class(positive, weights)
    gains = []
    for ssa, hp in zip(probabilities[:, positive], probabilities[:, ~positive], strict=True):
        scores, above = _cumulative(ssa, of_ssa)
        other_scores, other_above = _cumulative(hp, of_hp)
        tp = above[np.searchsorted(scores, scores, side="right")]
        fp = other_above[np.searchsorted(other_scores, scores, side="right")]
        gains.append((np.diff(above, axis=0) * _ratio(tp, tp + fp, 0.0)).sum(axis=0))
    return _ratio(np.stack(gains, axis=1), of_ssa.sum(axis=0)[:, None], np.nan)


def _by_class(positive: npt.NDArray[np.bool_], weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the weights of the P SSA images, [P, B], and of the HP images, [n - P, B]; images are the first axis."""
    return np.ascontiguousarray(weights[:, positive].T), np.ascontiguousarray(weights[:, ~positive].T)


def _cumulative(probabilities: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the negated probabilities in ascending order, [k], and the total weight of the first 0..k, [k + 1, B]."""
    order = np.argsort(-probabilities, kind="stable")
    above = np.zeros((len(order) + 1, weights.shape[1]))
    np.cumsum(weights[order], axis=0, out=above[1:])
    return -probabilities[order], above


def _calibration_error(positive: npt.NDArray[np.bool_], probabilities: FloatArray) -> float:
    """Return the expected calibration error (L1) of P(SSA) over bins of equal width (Naeini et al., AAAI 2015)."""
    bins = np.minimum((probabilities * N_ECE_BINS).astype(np.int64), N_ECE_BINS - 1)
    gaps = np.bincount(bins, weights=probabilities - positive, minlength=N_ECE_BINS)
    return float(np.abs(gaps).sum() / positive.size)


def _ratio(numerator: FloatArray, denominator: FloatArray, undefined: float) -> FloatArray:
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    quotient: FloatArray = np.full(shape, undefined)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _counts(rng: np.random.Generator, n_draws: int, n_units: int) -> FloatArray:
    """Draw `n_units` units with replacement, `n_draws` times; return the counts of each unit, [n_draws, n_units]."""
    drawn = rng.integers(n_units, size=(n_draws, n_units)) + np.arange(n_draws)[:, None] * n_units
    return np.bincount(drawn.ravel(), minlength=n_draws * n_units).reshape(n_draws, n_units).astype(np.float64)


def _summarize(per_seed: Sequence[float], interval: tuple[float, float] | None) -> MetricSummary:
    values = np.asarray(per_seed)
    is_defined = not np.isnan(values).any()
    return MetricSummary(
        mean=float(values.mean()) if is_defined else None,
        std=float(values.std(ddof=1)) if is_defined and values.size > 1 else None,
        ci95=interval if is_defined else None,
        per_seed=[None if np.isnan(value) else float(value) for value in values],
    )
