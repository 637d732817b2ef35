import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torchmetrics.functional.classification import binary_calibration_error, binary_f1_score

from mhist_tune.statistics.binary_metrics import METRICS, metrics_of, weighted_auroc


def predictions(n_seeds=5, n=120, *, decimals=16, data_seed=0):
    """Labels [n] and probabilities [n_seeds, n] that share the images' difficulty; few decimals make ties."""
    rng = np.random.default_rng(data_seed)
    labels = (rng.random(n) < 0.37).astype(np.int64)
    shared = 1.5 * (labels - 0.5) + rng.normal(size=n)
    logits = shared + 0.7 * rng.normal(size=(n_seeds, n))
    return labels, np.round(1 / (1 + np.exp(-logits)), decimals)


def scikit_learn(labels, p):
    called = p > 0.5
    return {
        "auroc": reference.roc_auc_score(labels, p),
        "auprc": reference.average_precision_score(labels, p),
        "f1": reference.f1_score(labels, called),
        "precision": reference.precision_score(labels, called),
        "recall": reference.recall_score(labels, called),
        "specificity": reference.recall_score(labels, called, pos_label=0),
        "accuracy": reference.accuracy_score(labels, called),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, called),
        "log_loss": reference.log_loss(labels, p),
        "brier": reference.brier_score_loss(labels, p),
    }


@pytest.mark.parametrize("decimals", [16, 2, 1])
def test_metrics_equal_scikit_learns(decimals):
    """Every metric equals scikit-learn's, with and without tied probabilities; ECE equals torchmetrics'."""
    labels, table = predictions(decimals=decimals)
    for p in table:
        ours = metrics_of(labels, p)
        assert tuple(sorted(ours)) == tuple(sorted(METRICS))
        for name, value in scikit_learn(labels, p).items():
            assert ours[name] == pytest.approx(value, abs=1e-12), name


def test_ece_equals_torchmetrics():
    """The calibration error over 15 bins is the one torchmetrics computes from the same probabilities."""
    labels, table = predictions(n=500)
    theirs = binary_calibration_error(torch.from_numpy(table[0]), torch.from_numpy(labels), n_bins=15, norm="l1")
    assert metrics_of(labels, table[0])["ece"] == pytest.approx(float(theirs), abs=1e-6)


def test_metrics_by_hand_with_unequal_classes():
    """TP 2, FP 1, FN 1, TN 4 give the textbook values, with SSA as the positive class."""
    labels = [1, 1, 1, 0, 0, 0, 0, 0]
    ours = metrics_of(labels, [0.9, 0.8, 0.4, 0.7, 0.3, 0.2, 0.1, 0.1])
    assert ours["precision"] == pytest.approx(2 / 3)
    assert ours["recall"] == pytest.approx(2 / 3)
    assert ours["specificity"] == pytest.approx(4 / 5)
    assert ours["f1"] == pytest.approx(2 / 3)
    assert ours["accuracy"] == pytest.approx(6 / 8)
    assert ours["auroc"] == pytest.approx(14 / 15), "one of 15 pairs is ordered wrongly"


def test_threshold_itself_counts_as_hp():
    """A probability exactly at the threshold is not called SSA, as in torchmetrics during training."""
    labels, p = [1, 1, 0, 0], [0.5, 0.9, 0.5, 0.1]
    theirs = binary_f1_score(torch.tensor(p), torch.tensor(labels))
    assert metrics_of(labels, p)["f1"] == pytest.approx(float(theirs))
    assert metrics_of(labels, p, threshold=0.4)["recall"] == 1.0


def test_log_loss_is_a_mean_per_image_and_finite_at_certainty():
    """Copying every image does not change the loss. Probabilities of 0 and 1 give scikit-learn's loss, not infinity."""
    labels, p = [1, 0, 1], [0.2, 0.4, 0.9]
    by_hand = -(np.log(0.2) + np.log(0.6) + np.log(0.9)) / 3
    assert metrics_of(labels, p)["log_loss"] == pytest.approx(by_hand)
    assert metrics_of(labels * 7, p * 7)["log_loss"] == pytest.approx(by_hand)
    certain = [0.0, 0.4, 1.0]
    assert metrics_of(labels, certain)["log_loss"] == pytest.approx(reference.log_loss(labels, certain))


def test_no_predicted_positive_gives_zero_and_an_absent_class_gives_nan():
    """Precision and F1 without a predicted SSA are 0; AUROC, AUPRC and recall without an SSA image are NaN."""
    none_called = metrics_of([1, 0, 0], [0.1, 0.2, 0.3])
    assert none_called["precision"] == none_called["f1"] == 0.0
    no_ssa = metrics_of([0, 0, 0], [0.1, 0.9, 0.3])
    assert all(np.isnan(no_ssa[name]) for name in ("auroc", "auprc", "recall", "balanced_accuracy"))
    assert no_ssa["specificity"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("labels", "probabilities", "problem"),
    [
        ([0, 1], [0.2, 3.0], "logits"),
        ([0, 1], [0.2, float("nan")], "0..1"),
        ([0, 2], [0.2, 0.3], "labels must be 0 or 1"),
        ([0, 1, 1], [0.2, 0.3], r"\[S, n\]"),
        ([], [], r"\[S, n\]"),
    ],
)
def test_what_is_not_a_probability_is_refused(labels, probabilities, problem):
    """Logits, NaN, other labels and other shapes raise, rather than give a number."""
    with pytest.raises(ValueError, match=problem):
        metrics_of(labels, probabilities)


def test_weighted_auroc_counts_an_image_as_often_as_it_was_drawn():
    """A row of weights gives scikit-learn's AUROC with these sample weights; without one class it is NaN."""
    labels, table = predictions(n=50, decimals=1)
    weights = np.random.default_rng(0).integers(0, 3, size=(4, 50)).astype(float)
    weights[3, labels == 1] = 0
    ours = weighted_auroc(labels == 1, table, weights)
    for values, row in zip(ours[:3], weights[:3], strict=True):
        assert values == pytest.approx([reference.roc_auc_score(labels, p, sample_weight=row) for p in table])
    assert np.isnan(ours[3]).all()
