import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from mhist_tune.statistics import descriptive
from mhist_tune.statistics.descriptive import McNemar
from tests.statistics.test_paired import scores


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
    ours = descriptive.delong(labels, one, other)
    difference, se = delong_by_definition(labels, one, other)
    assert ours.difference == pytest.approx(difference)
    assert ours.difference == pytest.approx(roc_auc_score(labels, one) - roc_auc_score(labels, other))
    assert ours.se == pytest.approx(se)
    assert ours.p_value == pytest.approx(2 * norm.sf(abs(difference / se)))


def test_equal_models_differ_by_nothing():
    """A model against itself gives a difference of 0 with p = 1 in every test, not a division by zero."""
    labels, (model, _) = scores(np.random.default_rng(0), (0.8, 0.8), n=(20, 30))
    assert descriptive.delong(labels, model[0], model[0]) == descriptive.DeLong(0.0, 0.0, 1.0)
    assert descriptive.wilcoxon([0.8, 0.9], [0.8, 0.9]) == 1.0
    assert descriptive.mcnemar(labels, model[0] > 0.5, model[0] > 0.5) == McNemar(0, 0, 1.0)


def test_mcnemar_counts_the_discordant_images():
    """Three images are called correctly by the first model only, none by the second only: 2 x 0.5 ** 3 = 0.25."""
    labels = [1, 1, 1, 0, 0]
    assert descriptive.mcnemar(labels, [1, 1, 1, 0, 1], [0, 0, 0, 0, 1]) == McNemar(3, 0, pytest.approx(0.25))


def test_wilcoxon_is_the_signed_rank_test():
    """Six seeds that all favour the first give the smallest exact p-value, 2 / 2 ** 6."""
    first = [0.91, 0.92, 0.93, 0.94, 0.95, 0.96]
    assert descriptive.wilcoxon(first, [p - 0.01 * (i + 1) for i, p in enumerate(first)]) == pytest.approx(2 / 64)


def test_copies_within_a_group_are_no_evidence():
    """Each image copied four times within its group: DeLong's error and McNemar's p-value stay about as they were."""
    labels, (first, second) = scores(np.random.default_rng(0), (0.9, 0.7), n=(60, 90))
    once = descriptive.delong(labels, first[0], second[0])
    copied = [np.repeat(one, 4) for one in (labels, first[0], second[0])]
    groups = [str(index // 4) for index in range(600)]
    assert descriptive.delong(*copied).se < 0.6 * once.se
    assert descriptive.delong(*copied, groups=groups).se == pytest.approx(once.se, rel=0.01)
    called = [one > 0.5 for one in copied[1:]]
    plain = descriptive.mcnemar(labels, first[0] > 0.5, second[0] > 0.5)
    known = descriptive.mcnemar(copied[0], *called, groups=groups)
    assert (known.only_first_right, known.only_second_right) == (
        4 * plain.only_first_right,
        4 * plain.only_second_right,
    )
    assert known.p_value == pytest.approx(plain.p_value, abs=0.05)
    assert descriptive.mcnemar(copied[0], *called).p_value < 0.5 * known.p_value


def test_the_grouped_versions_keep_their_size():
    """Over 400 studies of equal models with 30 groups both reject in 2% to 8%; ignoring the groups rejects more."""
    rng = np.random.default_rng(5)
    rejected = np.zeros(4)
    for _ in range(400):
        groups = np.repeat(np.arange(30), 8)
        labels = (rng.random(240) < 0.4).astype(int)
        models = [
            norm.cdf(2.0 * labels - 1 + 0.5 * rng.normal(size=240) + 1.2 * rng.normal(size=30)[groups]) for _ in "ab"
        ]
        called, known = [one > 0.5 for one in models], [str(group) for group in groups]
        tests = [descriptive.delong(labels, *models, groups=one) for one in (known, None)]
        tests += [descriptive.mcnemar(labels, *called, groups=one) for one in (known, None)]
        rejected += [one.p_value < 0.05 for one in tests]
    delong, without, mcnemar, plain = rejected / 400
    assert 0.02 <= delong <= 0.08
    assert 0.02 <= mcnemar <= 0.08
    assert without > 2 * delong
    assert plain > 1.5 * mcnemar


def test_too_few_groups_have_no_p_value():
    """Four groups leave the difference and the counts, and no p-value."""
    labels, (first, second) = scores(np.random.default_rng(0), (0.85, 0.78), n=(40, 40))
    groups = [str(index % 4) for index in range(80)]
    assert descriptive.delong(labels, first[0], second[0], groups=groups).p_value is None
    assert descriptive.mcnemar(labels, first[0] > 0.5, second[0] > 0.5, groups=groups).p_value is None
