import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torchmetrics.functional.classification import binary_calibration_error, binary_f1_score

from mhist_tune.statistics.binary_metrics import (
    METRICS,
    MetricSummary,
    crossed_bootstrap,
    metrics_of,
    summary,
    weighted_auroc,
)


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


def test_bootstrap_equals_a_plain_loop_over_resampled_rows():
    """The vectorised intervals are those of a loop that copies rows of a table, up to Monte Carlo error."""
    labels, table = predictions(n_seeds=3, n=200, decimals=2)
    rng = np.random.default_rng(1)
    means = []
    for _ in range(1000):
        images = rng.integers(labels.size, size=labels.size)
        seeds = rng.integers(3, size=3)
        drawn = [metrics_of(labels[images], table[seed, images]) for seed in seeds]
        means.append({name: np.mean([one[name] for one in drawn]) for name in METRICS})
    ours = crossed_bootstrap(labels, table, n_boot=4000)
    assert set(ours) == set(METRICS) - {"ece"}
    for name, (low, high) in ours.items():
        plain = np.quantile([one[name] for one in means], (0.025, 0.975))
        assert (low, high) == pytest.approx(plain, abs=0.12 * (high - low)), name


def test_images_are_resampled_once_for_all_seeds():
    """Ten copies of one model are as uncertain as that model: the seeds do not average the images' noise away."""
    labels, table = predictions(n_seeds=1, n=150)
    one = crossed_bootstrap(labels, table, n_boot=3000)["auroc"]
    ten = crossed_bootstrap(labels, np.repeat(table, 10, axis=0), n_boot=3000)["auroc"]
    assert ten[1] - ten[0] == pytest.approx(one[1] - one[0], rel=0.1)


def test_seeds_are_resampled_too():
    """Seeds that differ widen the interval beyond what the images alone give: (high - low)/3.92 near their SE."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 2000)
    table = np.stack([np.clip(labels * share + rng.random(4000) * (1 - share), 0, 1) for share in (0.1, 0.3, 0.5)])
    values = [metrics_of(labels, p)["brier"] for p in table]
    low, high = crossed_bootstrap(labels, table, n_boot=2000)["brier"]
    assert (high - low) > 2 * np.std(values) / np.sqrt(3)


def test_whole_groups_are_resampled():
    """Images copied within their group add no information: the interval stays, where single images would narrow it."""
    labels, table = predictions(n_seeds=2, n=60)
    copied, groups = np.repeat(labels, 9), [f"slide{i // 9}" for i in range(540)]
    wide = np.repeat(table, 9, axis=1)
    low, high = crossed_bootstrap(labels, table, n_boot=3000)["auroc"]
    grouped = crossed_bootstrap(copied, wide, groups=groups, n_boot=3000)["auroc"]
    single = crossed_bootstrap(copied, wide, n_boot=3000)["auroc"]
    assert grouped == pytest.approx((low, high), abs=0.02)
    assert single[1] - single[0] < 0.5 * (grouped[1] - grouped[0])


def test_the_same_seed_gives_the_same_intervals():
    """Intervals are repeatable, and another bootstrap seed moves them a little."""
    labels, table = predictions()
    again = crossed_bootstrap(labels, table, seed=3, n_boot=300)
    assert crossed_bootstrap(labels, table, seed=3, n_boot=300) == again
    assert crossed_bootstrap(labels, table, seed=4, n_boot=300) != again


def test_resamples_of_one_class_are_left_out():
    """With two SSA images many resamples hold none; the interval comes from the others and is finite."""
    labels = np.array([1, 1, 0, 0, 0, 0])
    low, high = crossed_bootstrap(labels, [[0.9, 0.4, 0.5, 0.1, 0.2, 0.3]], n_boot=500)["auroc"]
    assert 0 <= low <= high <= 1


def test_summary_has_mean_sample_deviation_interval_and_values():
    """Mean and ddof=1 deviation are those of the per-seed values; only ECE has no interval."""
    labels, table = predictions()
    result = summary(labels, table, n_boot=200)
    assert tuple(result) == METRICS
    for name, one in result.items():
        assert one.per_seed == pytest.approx([metrics_of(labels, p)[name] for p in table])
        assert one.mean == pytest.approx(np.mean(one.per_seed))
        assert one.std == pytest.approx(np.std(one.per_seed, ddof=1))
        assert (one.ci95 is None) == (name == "ece")


def test_summary_of_chosen_metrics_is_a_part_of_the_whole():
    """Asked for two metrics it returns these two, with the numbers that the whole summary gives them."""
    labels, table = predictions(n=60)
    whole = summary(labels, table, n_boot=50)
    for names in (("brier", "ece"), ("auroc", "f1")):
        assert summary(labels, table, n_boot=50, names=names) == {name: whole[name] for name in names}


def test_summary_of_one_seed_and_of_one_class_has_none_for_the_undefined():
    """One seed has no deviation; without SSA images AUROC is None everywhere, not NaN, which JSON lacks."""
    single = summary([1, 0, 1, 0], [[0.9, 0.2, 0.4, 0.6]], n_boot=50)["accuracy"]
    assert single.std is None
    assert single.mean == 0.5
    absent = summary([0, 0], [[0.9, 0.2], [0.1, 0.2]], n_boot=50)["auroc"]
    assert absent == MetricSummary(mean=None, std=None, ci95=None, per_seed=[None, None])


def test_weighted_auroc_counts_an_image_as_often_as_it_was_drawn():
    """A row of weights gives scikit-learn's AUROC with these sample weights; without one class it is NaN."""
    labels, table = predictions(n=50, decimals=1)
    weights = np.random.default_rng(0).integers(0, 3, size=(4, 50)).astype(float)
    weights[3, labels == 1] = 0
    ours = weighted_auroc(labels == 1, table, weights)
    for values, row in zip(ours[:3], weights[:3], strict=True):
        assert values == pytest.approx([reference.roc_auc_score(labels, p, sample_weight=row) for p in table])
    assert np.isnan(ours[3]).all()


@pytest.mark.slow
def test_intervals_cover_the_true_mean(record_property):
    """Over 1,000 simulated studies of ten seeds and 300 images the intervals hold the truth in 92% to 98%."""
    rng = np.random.default_rng(0)

    def draw(n_seeds, n):
        labels = (rng.random(n) < 0.37).astype(np.int64)
        item = 2.0 * (labels - 0.5) + rng.normal(size=n)
        shift = 0.3 * rng.normal(size=(n_seeds, 1))
        return labels, 1 / (1 + np.exp(-(item + shift + 0.5 * rng.normal(size=(n_seeds, n)))))

    labels, table = draw(200, 20_000)
    of_each = [metrics_of(labels, p) for p in table]
    hits = dict.fromkeys(("auroc", "f1", "recall"), 0)
    for study in range(1000):
        intervals = crossed_bootstrap(*draw(10, 300), n_boot=400, seed=study, names=hits)
        for name in hits:
            low, high = intervals[name]
            hits[name] += bool(low <= np.mean([one[name] for one in of_each]) <= high)
    for name, n_hits in hits.items():
        record_property(f"coverage of {name}", n_hits / 1000)
    assert all(0.92 <= n_hits / 1000 <= 0.98 for n_hits in hits.values()), hits
