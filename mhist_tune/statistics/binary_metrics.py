"""Metrics of binary classifiers, from labels and stored probabilities.

Shapes: `n` images, `S` seeds (one model each), `B` rows of weights. Labels are 0 (HP) or 1 (SSA), probabilities are
those of SSA. The same weighted, vectorised functions compute the point estimates (every weight 1), the bootstrap
(weight = how often an image was drawn) and the jackknife (weight 0 = left out), so they cannot disagree.
"""

from collections.abc import Collection, Mapping

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
    return {name: values[0] for name, values in metrics_per_seed(positive, of_one_model, threshold).items()}


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
    return weighted_metrics(positive, probabilities, weights, threshold, ("f1",))["f1"]


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


def metrics_per_seed(
    positive: npt.NDArray[np.bool_], probabilities: FloatArray, threshold: float
) -> Mapping[str, list[float]]:
    """Return every metric of each model; arguments as of `weighted_auroc` and `metrics_of`."""
    weighted = weighted_metrics(positive, probabilities, np.ones((1, positive.size)), threshold, METRICS)
    per_seed = {name: [float(value) for value in values[0]] for name, values in weighted.items()}
    return {**per_seed, "ece": [_calibration_error(positive, of_model) for of_model in probabilities]}


def weighted_metrics(
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
