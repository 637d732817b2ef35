import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import f1_score, roc_auc_score

from mhist_tune.statistics import descriptive, paired


def scores(rng, aurocs, *, shared=0.0, own=0.5, n=(360, 617), n_seeds=10):
    """Labels and for each model probabilities [n_seeds, n], binormal with the given true AUROCs.

    An image's score has variance 1: `shared` of it is common to all models, `own` to the seeds of one model, and the
    rest belongs to one seed.
    """
    labels = np.repeat([1, 0], n)
    common = rng.normal(size=sum(n))
    models = []
    for auroc in aurocs:
        item = np.sqrt(shared) * common + np.sqrt(own) * rng.normal(size=sum(n))
        noise = np.sqrt(1 - shared - own) * rng.normal(size=(n_seeds, sum(n)))
        models.append(norm.cdf(np.sqrt(2) * norm.ppf(auroc) * labels + item + noise))
    return labels, models


def test_the_difference_is_that_of_the_seed_means():
    """The estimate is the difference of scikit-learn's AUROCs averaged over seeds, whose numbers may differ."""
    labels, (first, second) = scores(np.random.default_rng(0), (0.9, 0.8), n=(40, 60))
    (found,) = paired.auroc_differences(labels, [first, second[:3]], n_boot=50)
    means = [np.mean([roc_auc_score(labels, p) for p in model]) for model in (first, second[:3])]
    assert found.estimate == pytest.approx(means[0] - means[1])
    assert found.ci95 == pytest.approx((found.estimate - 1.96 * found.se, found.estimate + 1.96 * found.se), abs=1e-4)
    assert found.detectable == pytest.approx((1.96 + 0.8416) * found.se, rel=1e-3)


def test_of_single_models_the_standard_error_is_delongs():
    """With one seed each only images are resampled, paired, and the standard error is the analytic one."""
    labels, (first, second) = scores(np.random.default_rng(1), (0.9, 0.86), shared=0.6, own=0.2)
    (found,) = paired.auroc_differences(labels, [first[:1], second[:1]], n_boot=4000)
    assert found.se == pytest.approx(descriptive.delong(labels, first[0], second[0]).se, rel=0.06)


def test_pairing_removes_what_models_share():
    """Models that share an image's difficulty are told apart with a smaller error than independent ones."""
    errors = []
    for shared in (0.0, 0.6):
        labels, models = scores(np.random.default_rng(2), (0.9, 0.9), shared=shared, own=0.65 - shared)
        errors.append(paired.auroc_differences(labels, models, n_boot=500)[0].se)
    assert errors[1] < 0.6 * errors[0]


def test_seeds_widen_the_interval():
    """Seeds of unequal quality add to the standard error, of either model."""
    labels, (first, second) = scores(np.random.default_rng(3), (0.9, 0.9), shared=0.6, own=0.3, n=(400, 600))
    uneven = np.concatenate([first[:5], 0.5 * first[5:] + 0.5 * np.random.default_rng(0).random((5, 1000))])
    calm = paired.auroc_differences(labels, [first, second], n_boot=500)[0].se
    assert paired.auroc_differences(labels, [uneven, second], n_boot=500)[0].se > 1.5 * calm
    assert paired.auroc_differences(labels, [second, uneven], n_boot=500)[0].se > 1.5 * calm


def test_the_standard_error_counts_what_belongs_to_an_image_and_a_seed_once():
    """Over studies the mean squared standard error is the variance of the differences; resamples alone give more."""
    rng = np.random.default_rng(6)
    found = [
        paired.auroc_differences(*scores(rng, (0.9, 0.9), shared=0.3, own=0.1, n=(60, 90)), n_boot=100, seed=study)[0]
        for study in range(150)
    ]
    ratio = np.mean([one.se**2 for one in found]) / np.var([one.estimate for one in found])
    assert ratio == pytest.approx(1, abs=0.25)


def test_an_f1_difference_is_that_of_the_seed_means_and_its_interval_covers():
    """The estimate is that of scikit-learn's F1, and of models that are equal 95% of the intervals hold 0."""
    rng = np.random.default_rng(6)
    n_studies, n_covered = 200, 0
    for study in range(n_studies):
        labels, models = scores(rng, (0.9, 0.9), shared=0.3, own=0.1, n=(60, 90))
        (found,) = paired.f1_differences(labels, models, n_boot=100, seed=study)
        n_covered += found.ci95[0] <= 0 <= found.ci95[1]
    means = [np.mean([f1_score(labels, row > 0.5) for row in model]) for model in models]
    assert found.estimate == pytest.approx(means[0] - means[1])
    assert n_covered / n_studies == pytest.approx(0.95, abs=0.035)


def test_copies_within_a_group_add_no_information():
    """Images copied within their group leave the standard error, where single images would halve it."""
    labels, models = scores(np.random.default_rng(4), (0.9, 0.8), n=(30, 50))
    groups = [f"slide{i // 6}" for i in range(480)]
    copied = [np.repeat(model, 6, axis=1) for model in models]
    plain = paired.auroc_differences(labels, models, groups=[str(i) for i in range(80)])[0]
    grouped = paired.auroc_differences(np.repeat(labels, 6), copied, groups=groups)[0]
    single = paired.auroc_differences(np.repeat(labels, 6), copied, n_boot=500)[0]
    assert grouped.se == pytest.approx(plain.se)
    assert grouped.df == pytest.approx(plain.df)
    assert single.se < 0.7 * grouped.se


def test_with_groups_of_one_image_the_error_is_that_of_the_bootstrap():
    """The jackknife over single images and the bootstrap of images and seeds give the same standard error."""
    labels, models = scores(np.random.default_rng(7), (0.9, 0.85), shared=0.4, own=0.3, n=(150, 250))
    alone = paired.auroc_differences(labels, models, groups=[str(i) for i in range(400)])[0]
    assert alone.se == pytest.approx(paired.auroc_differences(labels, models)[0].se, rel=0.08)


def test_too_few_groups_are_not_tested():
    """Four groups give the difference alone: no standard error, interval, p-value or smallest difference."""
    labels, models = scores(np.random.default_rng(4), (0.9, 0.8), n=(40, 40))
    (found,) = paired.auroc_differences(labels, models, groups=[str(i % 4) for i in range(80)])
    assert (found.se, found.ci95, found.p_value, found.detectable) == (None, None, None, None)
    assert found.estimate > 0
    assert paired.holm([found]) == [paired.Adjusted(None, None)]


def test_pairs_come_in_the_order_of_the_models():
    """Three models give first-second, first-third, second-third, and differences that add up."""
    labels, models = scores(np.random.default_rng(5), (0.9, 0.85, 0.8), n=(40, 60))
    found = paired.auroc_differences(labels, models, n_boot=50)
    assert [(one.first, one.second) for one in found] == [(0, 1), (0, 2), (1, 2)]
    assert found[0].estimate + found[2].estimate == pytest.approx(found[1].estimate)


def difference(p_value, estimate=0.02):
    """A difference with that p-value."""
    return paired.Difference(0, 1, estimate, estimate / norm.isf(p_value / 2), np.inf)


def test_holm_by_hand():
    """0.01, 0.04, 0.03 become 0.03, 0.06, 0.06: times 3, 2, 1, never below the one before."""
    adjusted = paired.holm([difference(p) for p in (0.01, 0.04, 0.03)])
    assert [one.p_value for one in adjusted] == pytest.approx([0.03, 0.06, 0.06])


def test_holms_intervals_agree_with_holms_verdicts():
    """In every family of three the adjusted interval excludes 0 exactly if the adjusted p-value is below 0.05."""
    rng = np.random.default_rng(0)
    for p_values in [(0.01, 0.04, 0.03), (0.04, 0.04, 0.001), (0.0, 0.02, 0.03), *rng.random((15, 3)) ** 4]:
        family = [difference(p) for p in np.clip(p_values, 1e-300, 1)]
        for alone, one in zip(family, paired.holm(family), strict=True):
            assert (one.interval[0] > 0) == (one.p_value < 0.05)
            assert one.interval[0] <= alone.ci95[0] + 1e-12


def test_one_pair_has_its_own_interval():
    """With two models nothing is adjusted."""
    alone = difference(0.03)
    assert paired.holm([alone])[0] == paired.Adjusted(pytest.approx(0.03), pytest.approx(alone.ci95))


def grouped_scores(rng, *, n_groups, chance, share, sizes, least, n_seeds=10):
    """Labels, two equal models [n_seeds, n] with what images of a group have in common, and groups [n]."""
    while True:
        of_groups = np.where(rng.random(n_groups) < chance, share, 0.0)
        groups = np.repeat(np.arange(n_groups), rng.integers(sizes[0], sizes[1] + 1, n_groups))
        labels = (rng.random(groups.size) < of_groups[groups]).astype(np.int64)
        if min(len(set(groups[labels == label])) for label in (0, 1)) >= least:
            break

    def scale():
        return rng.normal(size=groups.size) + 0.6 * rng.normal(size=n_groups)[groups]

    common = scale()
    models = []
    for _ in range(2):
        item = 2.0 * labels + np.sqrt(0.6) * common + np.sqrt(0.4) * scale()
        seeds = 0.2 * rng.normal(size=(n_seeds, 1)) * labels + 0.5 * rng.normal(size=(n_seeds, groups.size))
        models.append(norm.cdf(item - 1 + seeds))
    return labels, models, [str(group) for group in groups]


SIZES = {
    "8 groups with both classes": {"n_groups": 8, "chance": 1.0, "share": 0.37, "sizes": (20, 60), "least": 8},
    "10 groups with both classes": {"n_groups": 10, "chance": 1.0, "share": 0.37, "sizes": (20, 60), "least": 10},
    "37 groups of one class, 9 or more with SSA": {
        "n_groups": 37, "chance": 0.3, "share": 1.0, "sizes": (4, 14), "least": 9,
    },
    "100 groups, 1,000 images": {"n_groups": 100, "chance": 0.5, "share": 0.74, "sizes": (5, 15), "least": 10},
}  # fmt: skip


def rejected(design, n_studies):
    """Share of simulated studies of two equal models in which the primary test rejects."""
    rng = np.random.default_rng(1)
    n_rejected = 0
    for _ in range(n_studies):
        labels, models, groups = grouped_scores(rng, **design)
        n_rejected += paired.auroc_differences(labels, models, groups=groups)[0].p_value < 0.05
    return n_rejected / n_studies


def test_the_primary_test_keeps_its_size_with_eight_groups():
    """Of 300 studies of two equal models it rejects about 5%; with a normal distribution it rejects 8%."""
    assert rejected(SIZES["8 groups with both classes"], 300) <= 0.075


@pytest.mark.slow
@pytest.mark.parametrize(
    ("aurocs", "shared", "own", "low", "high"),
    [
        # .03 AUROC apart: found.
        ((0.945, 0.915), 0.0, 0.5, 0.85, 1.0),
        ((0.945, 0.915), 0.7, 0.1, 0.95, 1.0),
        # Equal: rejected in 5%, give or take three Monte Carlo errors of 1,000 studies.
        ((0.93, 0.93), 0.0, 0.5, 0.029, 0.071),
        ((0.93, 0.93), 0.7, 0.1, 0.029, 0.071),
    ],
)
def test_power_and_size(aurocs, shared, own, low, high, record_property):
    """At MHIST's 360 and 617 test images and ten seeds the primary test finds .03 AUROC, and 5% where there is none."""
    rng = np.random.default_rng(0)
    n_studies = 1000
    n_rejected = 0
    for study in range(n_studies):
        labels, models = scores(rng, aurocs, shared=shared, own=own)
        n_rejected += paired.auroc_differences(labels, models, n_boot=200, seed=study)[0].p_value < 0.05
    record_property("rejected", n_rejected / n_studies)
    assert low <= n_rejected / n_studies <= high


@pytest.mark.slow
@pytest.mark.parametrize("title", SIZES)
def test_size_with_groups(title, record_property):
    """Over 4,000 studies of equal models the primary test rejects in 4% to 6%, whatever the groups."""
    found = rejected(SIZES[title], 4000)
    record_property(title, found)
    assert 0.04 - 0.007 <= found <= 0.06 + 0.007
