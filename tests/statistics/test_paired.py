import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import f1_score, roc_auc_score

from mhist_tune.statistics import paired


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


def delong_by_definition(labels, first, second):
    """DeLong's difference and standard error from the full table of pairs, without ranks."""
    components = []
    for p in (first, second):
        wins = np.sign(p[labels == 1][:, None] - p[labels == 0][None, :]) / 2 + 0.5
        components.append((wins.mean(axis=1), wins.mean(axis=0)))
    covariances = [np.cov(components[0][side], components[1][side]) for side in (0, 1)]
    total = sum(c / len(components[0][side]) for side, c in enumerate(covariances))
    return components[0][0].mean() - components[1][0].mean(), np.sqrt(total[0, 0] + total[1, 1] - 2 * total[0, 1])


@pytest.mark.parametrize("decimals", [16, 1])
def test_delong_equals_its_definition(decimals):
    """Difference and standard error equal those from all pairs of images, with and without ties."""
    labels, (first, second) = scores(np.random.default_rng(0), (0.8, 0.75), shared=0.4, own=0.3, n=(60, 90))
    one, other = np.round(first[0], decimals), np.round(second[0], decimals)
    ours = paired.delong(labels, one, other)
    difference, se = delong_by_definition(labels, one, other)
    assert ours.difference == pytest.approx(difference)
    assert ours.difference == pytest.approx(roc_auc_score(labels, one) - roc_auc_score(labels, other))
    assert ours.se == pytest.approx(se)
    assert ours.p_value == pytest.approx(2 * norm.sf(abs(difference / se)))


def test_equal_models_differ_by_nothing():
    """A model against itself gives a difference of 0 with p = 1 in every test, not a division by zero."""
    labels, (model, _) = scores(np.random.default_rng(0), (0.8, 0.8), n=(20, 30))
    assert paired.delong(labels, model[0], model[0]) == paired.DeLong(0.0, 0.0, 1.0)
    assert paired.wilcoxon([0.8, 0.9], [0.8, 0.9]) == 1.0
    assert paired.mcnemar(labels, model[0] > 0.5, model[0] > 0.5) == (0, 0, 1.0)


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
    assert found.se == pytest.approx(paired.delong(labels, first[0], second[0]).se, rel=0.06)


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


def test_whole_groups_are_drawn():
    """Images copied within their group add no information: the standard error stays."""
    labels, models = scores(np.random.default_rng(4), (0.9, 0.8), n=(30, 50))
    groups = [f"slide{i // 6}" for i in range(480)]
    copied = [np.repeat(model, 6, axis=1) for model in models]
    plain = paired.auroc_differences(labels, models, n_boot=1000)[0].se
    grouped = paired.auroc_differences(np.repeat(labels, 6), copied, groups=groups, n_boot=1000)[0].se
    single = paired.auroc_differences(np.repeat(labels, 6), copied, n_boot=1000)[0].se
    assert grouped == pytest.approx(plain, rel=0.15)
    assert single < 0.7 * grouped


def test_pairs_come_in_the_order_of_the_models():
    """Three models give first-second, first-third, second-third, and differences that add up."""
    labels, models = scores(np.random.default_rng(5), (0.9, 0.85, 0.8), n=(40, 60))
    found = paired.auroc_differences(labels, models, n_boot=50)
    assert [(one.first, one.second) for one in found] == [(0, 1), (0, 2), (1, 2)]
    assert found[0].estimate + found[2].estimate == pytest.approx(found[1].estimate)


def test_holm_by_hand():
    """0.01, 0.04, 0.03 become 0.03, 0.06, 0.06: times 3, 2, 1, never below the one before."""
    assert paired.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_mcnemar_counts_the_discordant_images():
    """Three images are called correctly by the first model only, none by the second only: 2 x 0.5 ** 3 = 0.25."""
    labels = [1, 1, 1, 0, 0]
    assert paired.mcnemar(labels, [1, 1, 1, 0, 1], [0, 0, 0, 0, 1]) == (3, 0, pytest.approx(0.25))


def test_wilcoxon_is_the_signed_rank_test():
    """Six seeds that all favour the first give the smallest exact p-value, 2 / 2 ** 6."""
    first = [0.91, 0.92, 0.93, 0.94, 0.95, 0.96]
    assert paired.wilcoxon(first, [p - 0.01 * (i + 1) for i, p in enumerate(first)]) == pytest.approx(2 / 64)


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
