"""Intervals of metrics: which method each has, and simulated studies that hold the truth as often as they say."""

import numpy as np
import pytest
from scipy import special

from mhist_tune.statistics import summaries
from mhist_tune.statistics.binary_metrics import METRICS, metrics_of
from mhist_tune.statistics.resampling import crossed_bootstrap
from mhist_tune.statistics.summaries import MetricSummary, summary
from tests.statistics.test_resampling import predictions


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


def draw(rng, *, n_groups, chance, share, sizes, n_seeds=10, between=0.6):
    """Labels [n], probabilities [n_seeds, n] and groups [n] of one study; at least ten groups hold each class.

    Args:
        rng: of the draw.
        n_groups: number of groups.
        chance: that a group holds SSA.
        share: of SSA in such a group.
        sizes: smallest and largest number of images of a group.
        n_seeds: number of models.
        between: standard deviation of what images of a group have in common, beside 1 of each image.
    """
    while True:
        of_groups = np.where(rng.random(n_groups) < chance, share, 0.0)
        groups = np.repeat(np.arange(n_groups), rng.integers(sizes[0], sizes[1] + 1, n_groups))
        labels = (rng.random(groups.size) < of_groups[groups]).astype(np.int64)
        if min(len(set(groups[labels == label])) for label in (0, 1)) >= 10:
            break
    item = 2.0 * (labels - 0.5) + rng.normal(size=groups.size) + between * rng.normal(size=n_groups)[groups]
    logits = item + 0.3 * rng.normal(size=(n_seeds, 1)) + 0.5 * rng.normal(size=(n_seeds, groups.size))
    return labels, special.expit(logits), [str(group) for group in groups]


COVERED = ("auroc", "f1", "recall", "specificity", "brier")
DESIGNS = {
    "37 groups of one class, 10 or more with SSA": {
        "n_groups": 37,
        "chance": 0.45,
        "share": 1.0,
        "sizes": (4, 14),
    },
    "37 groups, 10 or more with SSA and HP": {"n_groups": 37, "chance": 0.45, "share": 0.6, "sizes": (4, 14)},
    "12 groups with both classes": {"n_groups": 12, "chance": 1.0, "share": 0.37, "sizes": (15, 30)},
    "25 groups with both classes": {"n_groups": 25, "chance": 1.0, "share": 0.37, "sizes": (6, 18)},
    "100 groups, 1,000 images": {"n_groups": 100, "chance": 0.5, "share": 0.74, "sizes": (5, 15)},
    "40 groups, 12 or so with HP only": {"n_groups": 40, "chance": 0.7, "share": 0.9, "sizes": (4, 14)},
}


def coverage(design, n_studies, names=COVERED):
    """Share of simulated studies whose interval holds the mean over many models of many groups, by metric."""
    rng = np.random.default_rng(0)
    labels, table, _ = draw(rng, **(design | {"n_groups": 4000, "n_seeds": 60}))
    truth = {name: np.mean([metrics_of(labels, row)[name] for row in table]) for name in names}
    n_held = dict.fromkeys(names, 0)
    for _ in range(n_studies):
        labels, table, groups = draw(rng, **design)
        for name, one in summary(labels, table, groups=groups, names=names).items():
            n_held[name] += one.ci95[0] <= truth[name] <= one.ci95[1]
    return {name: count / n_studies for name, count in n_held.items()}


def test_intervals_of_groups_hold_the_truth():
    """Of 150 studies of 37 groups about 95% hold the true AUROC and recall; percentiles of whole groups held 88%."""
    found = coverage(DESIGNS["37 groups of one class, 10 or more with SSA"], 150, ("auroc", "recall"))
    assert all(0.91 <= share <= 0.99 for share in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("title", DESIGNS)
def test_intervals_of_groups_cover(title, record_property):
    """Over 2,000 studies of each design the intervals of five metrics hold the truth in 93% to 97%."""
    found = coverage(DESIGNS[title], 2000)
    for name, share in found.items():
        record_property(f"{title}: {name}", float(share))
    assert all(0.93 <= share <= 0.97 for share in found.values()), found


def test_without_groups_intervals_are_those_of_the_bootstrap():
    """Independent images keep the percentiles of the crossed bootstrap, to the last bit."""
    labels, table = predictions(n=400)
    found = summary(labels, table, n_boot=200)
    for name, ends in crossed_bootstrap(labels, table, n_boot=200).items():
        assert found[name].ci95 == ends, name


def test_with_groups_of_one_image_intervals_are_nearly_those_of_the_bootstrap():
    """A jackknife over single images and the bootstrap of images agree within a tenth of the width."""
    labels, table = predictions(n=500)
    found = summary(labels, table, groups=[str(index) for index in range(500)])
    for name, (low, high) in crossed_bootstrap(labels, table).items():
        assert found[name].ci95 == pytest.approx((low, high), abs=0.12 * (high - low)), name


def test_copies_within_a_group_add_no_information():
    """Each image copied nine times within its group leaves the interval as it is, and has a design effect of nine."""
    labels, table = predictions(n_seeds=2, n=60)
    groups = [f"slide{index // 9}" for index in range(540)]
    copied, wide = np.repeat(labels, 9), np.repeat(table, 9, axis=1)
    alone = summary(labels, table, groups=[str(index) for index in range(60)])
    for name, one in summary(copied, wide, groups=groups).items():
        if name in ("auroc", "auprc", "balanced_accuracy", "brier", "log_loss"):
            assert one.ci95 == pytest.approx(alone[name].ci95, abs=0.01), name
    effect = summaries.design_effects(copied, wide, groups)["auroc"]
    assert effect.design_effect == pytest.approx(9, rel=0.05)
    assert effect.n_effective == pytest.approx(60, rel=0.05)
    recall = summaries.design_effects(copied, wide, groups)["recall"]
    assert recall.n_images == 9 * labels.sum()


def test_few_groups_of_a_class_have_no_interval():
    """Nine groups with SSA among 37 withhold what depends on SSA; specificity depends on HP alone and stays."""
    labels = np.repeat([1] * 9 + [0] * 28, 8)
    groups = [str(index // 8) for index in range(296)]
    table = np.clip(labels * 0.3 + np.random.default_rng(0).random((3, 296)) * 0.7, 0, 1)
    found = summary(labels, table, groups=groups)
    assert [name for name, one in found.items() if one.ci95] == ["specificity"]
    assert set(summaries.withheld(labels, groups)) == set(METRICS) - {"ece", "specificity"}
    assert summaries.withheld(labels, None) == []
    ten = np.repeat([1] * 10 + [0] * 27, 8)
    assert all(one.ci95 for name, one in summary(ten, table, groups=groups).items() if name != "ece")


def test_no_error_is_no_proof():
    """Perfect and useless models have intervals with a width: Wilson's of the images of the class."""
    labels = np.array([0] * 30 + [1] * 20)
    table = np.where(labels == 1, 0.9, 0.1)[None]
    found = summary(labels, table, n_boot=50)
    assert found["specificity"].ci95 == pytest.approx((1 - 0.1135, 1.0), abs=1e-3)
    assert found["recall"].ci95 == pytest.approx((1 - 0.1611, 1.0), abs=1e-3)
    assert found["auroc"].ci95 == pytest.approx((1 - 0.1611, 1.0), abs=1e-3)
    never = summary(labels, np.full((1, 50), 0.1), n_boot=50)
    low, high = never["f1"].ci95
    assert never["f1"].mean == low == 0
    assert 0.2 < high < 0.35
    assert never["precision"].ci95 == (0.0, 1.0)


def test_one_error_in_one_seed_is_not_more_certain_than_none():
    """One of 300 calls wrong bounds the error rate of 30 images no more tightly than no wrong call does."""
    labels = np.array([0] * 30 + [1] * 300)
    table = np.repeat(np.where(labels == 1, 0.9, 0.1)[None], 10, axis=0)
    without = summary(labels, table, n_boot=50)["specificity"].ci95[0]
    table[0, 0] = 0.9
    assert summary(labels, table, n_boot=50)["specificity"].ci95[0] == pytest.approx(without, abs=0.015)
    assert without < 0.9


def test_supposed_design_effects_widen_the_part_of_the_images():
    """Of one model the logit interval widens by the square root of the effect; of differing seeds, by less."""
    labels, table = predictions(n_seeds=1, n=400)
    found = summary(labels, table, n_boot=300)
    supposed = summaries.sensitivity(labels, table, found)["auroc"]
    there = special.logit([*found["auroc"].ci95, *supposed["2"]]) - special.logit(found["auroc"].mean)
    assert there[2:] == pytest.approx(np.sqrt(2) * there[:2])
    shifted = special.expit(special.logit(np.repeat(table, 5, axis=0)) + np.linspace(-2, 2, 5)[:, None])
    uneven = summary(labels, shifted, n_boot=300)
    supposed = summaries.sensitivity(labels, shifted, uneven)["recall"]
    widths = [np.ptp(special.logit(ends)) for ends in (uneven["recall"].ci95, supposed["2"])]
    assert widths[0] < widths[1] < 1.2 * widths[0]


def test_a_design_effect_restores_the_width_that_unknown_slides_need():
    """Images of 100 slides counted as independent, widened by their design effect, are as wide as groups give."""
    rng = np.random.default_rng(1)
    labels, table, groups = draw(rng, **DESIGNS["100 groups, 1,000 images"], between=1.0)
    effect = summaries.design_effects(labels, table, groups)["auroc"].design_effect
    assert 1.5 < effect < 8
    known = summary(labels, table, groups=groups, names=("auroc",))["auroc"]
    unknown = summary(labels, table, names=("auroc",))
    supposed = summaries.sensitivity(labels, table, unknown)["auroc"]
    widths = {float(name): np.ptp(special.logit(ends)) for name, ends in supposed.items()}
    nearest = min(widths, key=lambda one: abs(one - effect))
    assert widths[nearest] * np.sqrt(effect / nearest) == pytest.approx(np.ptp(special.logit(known.ci95)), rel=0.15)
