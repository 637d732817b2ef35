"""Intervals of any statistic: which method each has, and simulated studies that hold the truth as often as they say."""

import numpy as np
import pytest
from scipy import special

from mhist_tune.statistics import net_benefit, operating_points, selective
from mhist_tune.statistics.binary_metrics import weighted_auroc
from mhist_tune.statistics.estimates import Sample
from mhist_tune.statistics.resampling import crossed_bootstrap
from tests.statistics.test_resampling import predictions
from tests.statistics.test_summaries import draw


def auroc_of(labels, table):
    """A statistic for a sample: the AUROC of each seed."""
    return lambda weights: {"auroc": weighted_auroc(labels.astype(bool), table, weights)}


def test_without_groups_an_interval_is_that_of_the_crossed_bootstrap():
    """The same draws of images and seeds give the report's interval of AUROC, but for rounding."""
    labels, table = predictions(n=300)
    drawn = Sample(labels.astype(bool), n_boot=200).resample(auroc_of(labels, table))
    ends = crossed_bootstrap(labels, table, n_boot=200, names=("auroc",))["auroc"]
    assert drawn.summary("auroc").ci95 == pytest.approx(ends, rel=1e-12)


def test_few_groups_of_a_class_have_no_interval():
    """Nine groups with SSA withhold the interval, ten do not."""
    for n_ssa, is_given in ((9, False), (10, True)):
        labels = np.repeat([1] * n_ssa + [0] * 20, 5)
        table = np.clip(labels * 0.3 + np.random.default_rng(0).random((3, labels.size)) * 0.7, 0, 1)
        groups = [str(index // 5) for index in range(labels.size)]
        drawn = Sample(labels.astype(bool), groups, n_boot=50).resample(auroc_of(labels, table))
        assert (drawn.summary("auroc").ci95 is not None) == is_given


def test_copies_within_a_group_add_no_information():
    """Each image copied nine times within its group leaves the interval as wide as it is."""
    labels, table = predictions(n_seeds=2, n=60)
    alone = Sample(labels.astype(bool), [str(index) for index in range(60)])
    copied = Sample(np.repeat(labels, 9).astype(bool), [f"{index // 9}" for index in range(540)])
    first = alone.resample(auroc_of(labels, table)).summary("auroc").ci95
    second = copied.resample(auroc_of(np.repeat(labels, 9), np.repeat(table, 9, axis=1))).summary("auroc").ci95
    assert second == pytest.approx(first, abs=0.01)


def test_no_error_is_no_proof():
    """A statistic of 1 in every resample has Wilson's interval where its number of images is given."""
    positive = np.array([True] * 20 + [False] * 30)
    drawn = Sample(positive, n_boot=50).resample(lambda weights: {"share": np.ones((len(weights), 1))})
    assert drawn.summary("share").ci95 == (1.0, 1.0)
    assert drawn.summary("share", n_trials=20).ci95 == pytest.approx((1 - 0.1611, 1.0), abs=1e-3)


def test_what_is_undefined_has_no_number():
    """A statistic that is NaN for a seed has neither a mean nor an interval."""
    positive = np.array([True, False] * 5)
    drawn = Sample(positive, n_boot=20).resample(
        lambda weights: {"share": np.tile([np.nan, 0.5], (len(weights), 1)), "band": np.full((len(weights), 1, 2), 0.3)}
    )
    found = drawn.summary("share")
    assert (found.mean, found.std, found.ci95, found.per_seed) == (None, None, None, [None, 0.5])
    assert drawn.band("band").mean == [0.3, 0.3]


def independent(rng, *, n, share=0.37, n_seeds=10):
    """Labels [n], probabilities [n_seeds, n], and no groups, of one study of independent images."""
    labels = (rng.random(n) < share).astype(np.int64)
    item = 2.0 * (labels - 0.5) + rng.normal(size=n)
    logits = item + 0.3 * rng.normal(size=(n_seeds, 1)) + 0.5 * rng.normal(size=(n_seeds, n))
    return labels, special.expit(logits), None


DESIGNS = {
    "977 independent images": (independent, {"n": 977}, {"n": 40_000, "n_seeds": 60}),
    "200 independent images": (independent, {"n": 200}, {"n": 40_000, "n_seeds": 60}),
    "37 groups, 10 or more with SSA and HP": (
        draw,
        {"n_groups": 37, "chance": 0.45, "share": 0.6, "sizes": (4, 14)},
        {"n_groups": 4000, "n_seeds": 60},
    ),
    "25 groups with both classes": (
        draw,
        {"n_groups": 25, "chance": 1.0, "share": 0.37, "sizes": (6, 18)},
        {"n_groups": 4000, "n_seeds": 60},
    ),
    "100 groups, 1,000 images": (
        draw,
        {"n_groups": 100, "chance": 0.5, "share": 0.74, "sizes": (5, 15)},
        {"n_groups": 4000, "n_seeds": 60},
    ),
}


def found_in(labels, table, groups, n_boot):
    """Return number and interval of each kind of statistic, by name."""
    sample = Sample(labels.astype(bool), groups, n_boot=n_boot)
    points = operating_points.on_these_images(sample, table)
    found = {
        "sensitivity at 90% specificity": points["specificity", 0.9],
        "specificity at 90% sensitivity": points["sensitivity", 0.9],
    }
    values = operating_points.predictive_values(sample, table, threshold=0.5, prevalences=[0.1])
    found |= {"PPV at 10%": values[0.1][0], "NPV at 10%": values[0.1][1]}
    curve, to_defer = selective.risk_coverage(sample, table)
    found |= {"area under risk-coverage": curve.area, "deferred for 5%": to_defer[0.05]}
    kept, risk = selective.kept_and_wrong(sample, table, 0.25)
    found |= {"deferred at a certainty": kept, "risk at a certainty": risk}
    named = {name: (one.mean, one.ci95) for name, one in found.items()}
    at = selective.COVERAGES.tolist().index(0.8)
    named["risk at 80% coverage"] = (curve.risk.mean[at], (curve.risk.low[at], curve.risk.high[at]))
    benefit = net_benefit.decision_curve(sample, table, None)
    for threshold in (0.2, 0.5):
        at = benefit.thresholds.index(threshold)
        ends = (benefit.model.low[at], benefit.model.high[at])
        named[f"net benefit at {threshold:.0%}"] = (benefit.model.mean[at], ends)
    return named


def coverage(title, n_studies, n_boot=400):
    """Share of simulated studies whose interval holds the mean over many models of many images, by statistic."""
    rng = np.random.default_rng(0)
    make, design, whole = DESIGNS[title]
    labels, table, _ = make(rng, **(design | whole))
    truth = {name: mean for name, (mean, _) in found_in(labels, table, None, 2).items()}
    n_held = dict.fromkeys(truth, 0)
    for _ in range(n_studies):
        for name, (_, ends) in found_in(*make(rng, **design), n_boot).items():
            n_held[name] += ends[0] <= truth[name] <= ends[1]
    return {name: count / n_studies for name, count in n_held.items()}


def test_intervals_of_operating_points_hold_the_truth():
    """Of 15 studies of 200 images nearly all hold the truth, for each kind of statistic."""
    found = coverage("200 independent images", 15, n_boot=100)
    assert all(share >= 0.7 for share in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("title", DESIGNS)
def test_intervals_of_operating_points_cover(title, record_property):
    """Over 1,000 studies of each design the intervals hold the truth in 91% to 99%."""
    found = coverage(title, 1000)
    for name, share in found.items():
        record_property(f"{title}: {name}", share)
    assert all(0.91 <= share <= 0.99 for share in found.values()), found
