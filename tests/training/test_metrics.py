"""Tests of mhist_tune.training.metrics."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mhist_tune.statistics import auroc
from mhist_tune.statistics.mean_f1 import mean_f1
from mhist_tune.training.metrics import binary_metrics, f1_standard_error


def test_f1_by_hand_with_unequal_classes() -> None:
    """3 TP, 1 FN, 2 FP, 6 TN: a flipped positive class would give another F1."""
    labels = torch.tensor([1.0] * 4 + [0.0] * 8)
    probabilities = torch.tensor([0.9, 0.8, 0.7, 0.2, 0.6, 0.55, 0.4, 0.3, 0.3, 0.2, 0.1, 0.05])

    metrics = binary_metrics(probabilities, labels)

    assert metrics["precision"] == pytest.approx(3 / 5)
    assert metrics["recall"] == pytest.approx(3 / 4)
    assert metrics["specificity"] == pytest.approx(6 / 8)
    assert metrics["accuracy"] == pytest.approx(9 / 12)
    assert metrics["f1"] == pytest.approx(6 / 9)
    assert metrics["f1_standard_error"] == pytest.approx(f1_standard_error(6 / 9, 9))


def test_mean_f1_is_that_of_the_stored_probabilities() -> None:
    """The recorded mean F1 and its standard error are those that a report computes from the stored float64."""
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 2, 50), rng.random(50)

    metrics = binary_metrics(torch.from_numpy(probabilities), torch.from_numpy(labels).double())

    expected = mean_f1(labels, probabilities)
    assert (metrics["mean_f1"], metrics["mean_f1_standard_error"]) == (expected.value, expected.standard_error)


def test_auroc_has_the_standard_error_of_delong() -> None:
    """It is the one that the statistics compute from the same probabilities."""
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 2, 50), rng.random(50)

    metrics = binary_metrics(torch.from_numpy(probabilities), torch.from_numpy(labels))

    assert metrics["auroc_standard_error"] == auroc.standard_error(labels, probabilities)


def test_auroc_is_exact_and_not_the_mean_of_recall_and_specificity() -> None:
    """First trap: AUROC is the ranking's, equal to scikit-learn's, and differs from that of rounded predictions."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    probabilities = 1 / (1 + np.exp(-(rng.normal(size=300) + labels)))

    metrics = binary_metrics(torch.from_numpy(probabilities), torch.from_numpy(labels))

    assert metrics["auroc"] == pytest.approx(roc_auc_score(labels, probabilities), abs=1e-6)
    assert abs(metrics["auroc"] - (metrics["recall"] + metrics["specificity"]) / 2) > 0.02


def test_the_standard_error_of_f1_is_that_of_new_samples() -> None:
    """The standard deviation of F1 over repeated samples of 200 images agrees with the estimate from one sample."""
    rng = np.random.default_rng(0)
    draws, claimed = [], []
    for _ in range(400):
        labels = rng.random(200) < 0.3
        called = np.where(rng.random(200) < 0.2, ~labels, labels)
        tp, n_counted = int((labels & called).sum()), int(labels.sum() + called.sum())
        draws.append(2 * tp / n_counted)
        claimed.append(f1_standard_error(draws[-1], n_counted))

    assert np.mean(claimed) == pytest.approx(np.std(draws), rel=0.08)
    assert math.isnan(f1_standard_error(1.0, 10))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool, torch.float32])
def test_hard_predictions_are_refused(dtype: torch.dtype) -> None:
    """First trap: classes are refused, as integers and as floats of only 0 and 1."""
    with pytest.raises(ValueError, match="no ranking"):
        binary_metrics(torch.tensor([0, 1, 1, 0]).to(dtype), torch.tensor([0, 1, 0, 0]))


@pytest.mark.parametrize("outside", [-0.1, 1.5, float("nan")])
def test_logits_are_refused(outside: float) -> None:
    """Second trap: one value outside 0..1 means logits, which torchmetrics would transform batch by batch."""
    with pytest.raises(ValueError, match="apply a sigmoid first"):
        binary_metrics(torch.tensor([0.2, 0.8, outside]), torch.tensor([0, 1, 1]))


def test_sizes_must_agree() -> None:
    """Vectors of different sizes and empty ones are refused."""
    with pytest.raises(ValueError, match="of the same size"):
        binary_metrics(torch.tensor([0.2, 0.8]), torch.tensor([0]))
    with pytest.raises(ValueError, match="of the same size"):
        binary_metrics(torch.tensor([]), torch.tensor([]))


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_has_no_auroc(label: int) -> None:
    """AUROC is NaN, the others stay numbers."""
    metrics = binary_metrics(torch.tensor([0.2, 0.8, 0.6]), torch.full((3,), label))

    assert math.isnan(metrics.pop("auroc"))
    del metrics["f1_standard_error"], metrics["mean_f1_standard_error"], metrics["auroc_standard_error"]
    assert all(math.isfinite(value) for value in metrics.values())
