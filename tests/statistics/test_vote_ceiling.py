"""The ceiling from votes: against figures of MHIST, drawn panels, scikit-learn and a second search for its range."""

import numpy as np
import pytest
from scipy import optimize, special, stats
from sklearn.metrics import f1_score, roc_auc_score

from mhist_tune.mhist import MHIST_VOTES
from mhist_tune.statistics import readers, vote_ceiling, vote_mixtures
from mhist_tune.statistics.vote_ceiling import of_betas, of_mixture
from mhist_tune.statistics.vote_mixtures import Betas, Mixture

TEST = np.array(MHIST_VOTES["test"], dtype=np.float64)


def images(counts, *, n_seeds=3, noise=1.0, seed=0):
    """Votes and labels [n] of these counts, and probabilities [n_seeds, n] that follow the votes with noise."""
    rng = np.random.default_rng(seed)
    k = len(counts) - 1
    votes = np.repeat(np.arange(k + 1), np.asarray(counts, dtype=int))
    return votes, (votes > k / 2).astype(int), special.expit((votes - k / 2) + noise * rng.normal(size=(n_seeds, 1)))


def test_mhist_has_the_published_figures():
    """MHIST's test votes: ceiling AUROC .963, accuracy .892, F1 .870; a reader's .835, .826, .781; kappa .434."""
    found = of_betas(vote_mixtures.fit_betas(TEST), 7) | readers.of_counts(TEST[None])
    assert {name: round(float(values[0]), 3) for name, values in found.items()} | {
        "auroc": 0.963,
        "accuracy": 0.892,
        "f1": 0.870,
        "sensitivity": 0.835,
        "specificity": 0.826,
        "accuracy_left_out": 0.781,
        "fleiss_kappa": 0.434,
    } == {name: round(float(values[0]), 3) for name, values in found.items()}


@pytest.mark.parametrize(("k", "alpha", "beta"), [(3, 2.0, 3.0), (5, 0.4, 0.9), (7, 0.6, 0.8), (9, 1.5, 0.7)])
def test_the_ceiling_is_what_drawn_panels_show(k, alpha, beta):
    """A million images with shares from a beta distribution, judged by drawn panels: scikit-learn finds the formulas'.

    A further annotator, drawn beside the panel, has the sensitivity and specificity that are given for one.
    """
    rng = np.random.default_rng(k)
    shares = rng.beta(alpha, beta, 1_000_000)
    panel = rng.binomial(k, shares) > k / 2
    further = rng.random(shares.size) < shares
    found = {name: float(values[0]) for name, values in of_betas(Betas(*np.array([[alpha], [beta]])), k).items()}
    assert found["auroc"] == pytest.approx(roc_auc_score(panel, shares), abs=0.002)
    assert found["accuracy"] == pytest.approx(np.mean(panel == (shares > 0.5)), abs=0.002)
    assert found["f1"] == pytest.approx(f1_score(panel, shares > 0.5), abs=0.002)
    assert found["new_sensitivity"] == pytest.approx(further[panel].mean(), abs=0.003)
    assert found["new_specificity"] == pytest.approx(1 - further[~panel].mean(), abs=0.003)


def test_no_score_of_the_image_is_better_than_its_share():
    """Another order of the images, or another cut, is not above the ceiling with the same drawn panels."""
    rng = np.random.default_rng(0)
    shares = rng.beta(0.6, 0.8, 200_000)
    panel = rng.binomial(7, shares) > 3
    ceiling = {name: float(values[0]) for name, values in of_betas(Betas(*np.array([[0.6], [0.8]])), 7).items()}
    one_reader = rng.binomial(1, shares) + rng.random(shares.size)
    another_panel = rng.binomial(7, shares)
    for scores in (one_reader, another_panel, shares + 0.1 * rng.normal(size=shares.size)):
        assert roc_auc_score(panel, scores) < ceiling["auroc"] + 0.002
    for cut in (0.35, 0.65):
        assert np.mean(panel == (shares > cut)) < ceiling["accuracy"]


def test_the_beta_distribution_has_the_highest_likelihood():
    """Newton's method finds what scipy's optimizer finds on its own beta-binomial, for each of several rows."""
    rng = np.random.default_rng(1)
    rows = np.stack([TEST, np.array(MHIST_VOTES["train"]), rng.multinomial(300, TEST / TEST.sum()), np.arange(8) + 1.0])
    found = vote_mixtures.fit_betas(rows)
    for row, alpha, beta in zip(rows, found.alpha, found.beta, strict=True):

        def loss(logs, row=row):
            return -(row * stats.betabinom.logpmf(np.arange(8), 7, *np.exp(logs))).sum()

        best = np.exp(optimize.minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-7}).x)
        assert [alpha, beta] == pytest.approx(best, rel=1e-3)
    whole = vote_mixtures.goodness_of_fit(TEST, found)
    expected = TEST.sum() * stats.betabinom.pmf(np.arange(8), 7, found.alpha[0], found.beta[0])
    assert whole.statistic == pytest.approx(stats.power_divergence(TEST, expected, lambda_="log-likelihood")[0])
    assert (whole.df, whole.p_value) == (5, pytest.approx(stats.chi2.sf(whole.statistic, 5)))


@pytest.mark.parametrize("counts", [[50, 0, 0, 0, 0, 0, 1, 40], [0, 0, 9, 30, 28, 8, 0, 0], [5, 0, 0, 0, 0, 0, 0, 0]])
def test_extreme_votes_have_a_finite_fit(counts):
    """Nearly unanimous votes, votes that vary less than chance would make them, and a single class do not diverge."""
    found = vote_mixtures.fit_betas(counts)
    assert np.isfinite([found.alpha[0], found.beta[0]]).all()


def test_any_distribution_that_fits_best_is_on_the_tops_of_its_slope():
    """No share would raise the likelihood, and the fit is at least as good as the beta distribution's."""
    shares = np.linspace(0, 1, 201)
    found = vote_mixtures.fit_any(TEST, shares)
    table = stats.binom.pmf(np.arange(8)[:, None], 7, shares)
    fitted = table @ found.weights
    assert found.weights.sum() == pytest.approx(1)
    assert ((TEST / TEST.sum()) @ (table / fitted[:, None])).max() == pytest.approx(1, abs=1e-6)
    beta = vote_mixtures.fit_betas(TEST).votes(7)[0]
    assert (TEST * np.log(fitted)).sum() > (TEST * np.log(beta)).sum()


def test_the_range_is_what_a_second_search_finds():
    """From many starts, a few shares with free places and a penalty for a low likelihood reach nearly the same ends.

    Such distributions are all in the range. The lowest AUROC is one of few shares, so its end is reached; the highest
    accuracy likewise.
    """
    ranges = vote_ceiling.likelihood_ranges(TEST)
    best = vote_mixtures.fit_any(TEST, np.linspace(0, 1, 1001))
    top = vote_mixtures.log_likelihood(TEST, vote_mixtures.chances(7, best.shares) @ best.weights)
    rng = np.random.default_rng(0)
    found = {"auroc": [], "accuracy": []}
    for name, sign in (("auroc", 1), ("accuracy", -1)):
        for _ in range(2):

            def loss(values, name=name, sign=sign):
                places = special.expit(values[:5])
                weights = special.softmax(values[5:])
                order = np.argsort(places)
                value = of_mixture(Mixture(places[order], weights[order]), 7)[name]
                below = top - vote_mixtures.log_likelihood(TEST, vote_mixtures.chances(7, places) @ weights)
                return sign * value + 0.05 * max(0.0, below - 3.8415 / 2)

            start = np.concatenate([special.logit([0.05, 0.12, 0.44, 0.6, 0.9]), np.log([0.1, 0.3, 0.2, 0.1, 0.3])])
            result = optimize.minimize(
                loss, start + 0.3 * rng.normal(size=10), method="Nelder-Mead", options={"maxfev": 2500, "maxiter": 2500}
            )
            found[name].append(sign * result.fun)
    assert min(found["auroc"]) == pytest.approx(ranges["auroc"].low, abs=0.003)
    assert min(found["auroc"]) > ranges["auroc"].low - 0.002
    assert max(found["accuracy"]) < ranges["accuracy"].high + 0.003
    for one in ranges.values():
        assert one.low < one.best_fit < one.high


def test_a_reader_by_hand():
    """Two images with 1 and 3 of three votes: each vote is counted, the reader's own left out in turn."""
    found = {name: float(values[0]) for name, values in readers.of_counts(np.array([[0.0, 1.0, 0.0, 1.0]])).items()}
    # Image 1: one of three said SSA against two others who said HP; the two HP readers see one vote each, a tie.
    # Image 2: all three said SSA and see two others who said so.
    assert found["sensitivity"] == 1.0
    assert found["specificity"] == pytest.approx(2 / 3)
    assert found["accuracy_left_out"] == pytest.approx((3 + 0 + 2 * 0.5) / 6)
    assert found["sensitivity_left_out"] == pytest.approx(3 / (3 + 2 * 0.5))
    assert found["specificity_left_out"] == pytest.approx(2 * 0.5 / (1 + 2 * 0.5))
    assert found["fleiss_kappa"] == pytest.approx(((1 / 3 + 1) / 2 - (5 / 9)) / (1 - 5 / 9))


def test_kappa_and_readers_are_those_of_single_votes():
    """With votes given to readers at random, counting pair by pair and reader by reader gives the same numbers."""
    rng = np.random.default_rng(3)
    votes = np.repeat(np.arange(8), TEST.astype(int))
    table = np.array([rng.permutation([1] * v + [0] * (7 - v)) for v in votes])  # images by readers
    found = {name: float(values[0]) for name, values in readers.of_counts(TEST[None]).items()}
    agree = np.mean([table[:, i] == table[:, j] for i in range(7) for j in range(7) if i != j])
    share = table.mean()
    chance = share**2 + (1 - share) ** 2
    assert found["fleiss_kappa"] == pytest.approx((agree - chance) / (1 - chance))
    others = table.sum(axis=1, keepdims=True) - table
    reference = np.where(others == 3, 0.5, others > 3)
    right = table * reference + (1 - table) * (1 - reference)
    assert found["accuracy_left_out"] == pytest.approx(right.mean())
    assert found["sensitivity_left_out"] == pytest.approx((table * reference).sum() / reference.sum())
    label = votes > 3
    assert found["sensitivity"] == pytest.approx(table[label].mean())
    assert found["specificity"] == pytest.approx(1 - table[~label].mean())


def test_the_curve_has_the_ceilings_area():
    """The area under the drawn curve is the ceiling's AUROC, and the curve never falls."""
    fpr, tpr = vote_ceiling.curve(vote_mixtures.fit_betas(TEST), 7)
    assert np.trapezoid(tpr, fpr) == pytest.approx(0.9634, abs=2e-4)
    assert (np.diff(fpr) >= -1e-12).all()
    assert (np.diff(tpr) >= -1e-12).all()
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)


def test_what_is_reached_is_the_models_part_of_the_ceiling():
    """It is (AUROC - 1/2) / (ceiling - 1/2) of each seed, and at the ends of the range that of the mean AUROC."""
    votes, labels, table = images(TEST)
    table = np.clip(table + np.random.default_rng(0).normal(size=table.shape) * 0.2, 0, 1)
    found = vote_ceiling.vote_ceiling(votes, labels, table, n_annotators=7, n_boot=50)
    aurocs = [roc_auc_score(labels, row) for row in table]
    ceiling = found.metrics["auroc"].mean
    assert found.reached.per_seed == pytest.approx([(one - 0.5) / (ceiling - 0.5) for one in aurocs])
    low, high = found.ranges["auroc"].low, found.ranges["auroc"].high
    assert found.reached_range == pytest.approx([(np.mean(aurocs) - 0.5) / (end - 0.5) for end in (high, low)])
    assert found.share_ssa == pytest.approx(0.4186, abs=1e-3)
    assert found.reached.ci95[0] < found.reached.mean < found.reached.ci95[1]


def test_unanimous_votes_or_one_class_have_no_ceiling():
    """Labels without votes (all 0 or all k) show no disagreement, so nothing is said; an even panel is refused."""
    votes, labels, table = images([30, 0, 0, 0, 0, 0, 0, 30])
    assert vote_ceiling.vote_ceiling(votes, labels, table, n_annotators=7) is None
    votes, labels, table = images([30, 5, 0, 0, 0, 0, 0, 0])
    assert vote_ceiling.vote_ceiling(votes, labels, table, n_annotators=7) is None
    votes, labels, table = images([3, 4])
    assert vote_ceiling.vote_ceiling(votes, labels, table, n_annotators=1) is None
    with pytest.raises(ValueError, match="must be odd"):
        vote_ceiling.vote_ceiling(votes, labels, table, n_annotators=4)


def test_groups_widen_the_intervals_and_have_no_test_of_fit():
    """Copies of an image in one group add nothing: intervals and range are as wide as without them."""
    votes, labels, table = images(TEST[::1] // 5, n_seeds=2)
    table = np.clip(table + np.random.default_rng(0).normal(size=table.shape) * 0.2, 0, 1)
    groups = [str(index) for index in range(votes.size)]
    alone = vote_ceiling.vote_ceiling(votes, labels, table, n_annotators=7, groups=groups, n_boot=200)
    copied = vote_ceiling.vote_ceiling(
        np.repeat(votes, 4),
        np.repeat(labels, 4),
        np.repeat(table, 4, axis=1),
        n_annotators=7,
        groups=[one for one in groups for _ in range(4)],
        n_boot=200,
    )
    assert alone.fit is None
    assert copied.metrics["auroc"].ci95 == pytest.approx(alone.metrics["auroc"].ci95, abs=0.003)
    assert copied.ranges["auroc"].low == pytest.approx(alone.ranges["auroc"].low, abs=0.005)
    few = [str(index % 5) for index in range(votes.size)]
    without = vote_ceiling.vote_ceiling(votes, labels, table, n_annotators=7, groups=few, n_boot=20)
    assert without.metrics["auroc"].ci95 is None


def drawn_study(rng, shares_of, n, n_seeds=5):
    """Votes, labels and probabilities of one study; `shares_of` draws the true shares of n images."""
    shares = shares_of(rng, n)
    votes = rng.binomial(7, shares)
    scores = special.logit(np.clip(shares, 0.02, 0.98)) + rng.normal(size=n)
    table = special.expit(scores + 0.3 * rng.normal(size=(n_seeds, n)))
    return votes, (votes > 3).astype(int), table


SHARES = {
    "beta, 977 images": (977, lambda rng, n: rng.beta(0.6, 0.8, n)),
    "beta, 200 images": (200, lambda rng, n: rng.beta(0.6, 0.8, n)),
    "four shares, 977 images": (977, lambda rng, n: rng.choice([0.12, 0.44, 0.89, 1.0], n, p=[0.46, 0.26, 0.24, 0.04])),
    "two beta distributions, 977 images": (
        977,
        lambda rng, n: np.where(rng.random(n) < 0.6, rng.beta(1, 8, n), rng.beta(4, 2, n)),
    ),
}


def coverage(title, n_studies, n_boot=300):
    """Share of simulated studies whose intervals, and whose ranges, hold the truth."""
    n, shares_of = SHARES[title]
    rng = np.random.default_rng(0)
    shares = shares_of(rng, 1_000_000)
    panel = stats.binom.sf(3, 7, shares)
    order = np.argsort(-shares)
    found = np.append(0, np.cumsum(panel[order])) / panel.sum()
    false = np.append(0, np.cumsum(1 - panel[order])) / (1 - panel).sum()
    called = shares > 0.5
    truth = {
        "auroc": np.trapezoid(found, false),
        "accuracy": np.maximum(panel, 1 - panel).mean(),
        "f1": 2 * panel[called].sum() / (called.sum() + panel.sum()),
    }
    votes, labels, table = drawn_study(rng, shares_of, 400_000)
    counts = np.bincount(votes, minlength=8).astype(float)[None]
    truth |= {name: float(values[0]) for name, values in readers.of_counts(counts).items()}
    truth["reached"] = (np.mean([roc_auc_score(labels, row) for row in table]) - 0.5) / (truth["auroc"] - 0.5)
    n_held = {}
    for _ in range(n_studies):
        one = vote_ceiling.vote_ceiling(*drawn_study(rng, shares_of, n), n_annotators=7, n_boot=n_boot)
        ends = {name: each.ci95 for name, each in (one.metrics | one.reader).items()} | {"reached": one.reached.ci95}
        ends |= {f"range of {name}": (each.low, each.high) for name, each in one.ranges.items()}
        for name, (low, high) in ends.items():
            if (known := truth.get(name.removeprefix("range of "))) is not None:
                n_held[name] = n_held.get(name, 0) + (low <= known <= high)
    return {name: count / n_studies for name, count in n_held.items()}


def test_intervals_of_the_ceiling_hold_the_truth():
    """Of 15 studies of 200 images, nearly all hold the ceiling, a reader's numbers and what is reached."""
    found = coverage("beta, 200 images", 15, n_boot=100)
    assert all(share >= 0.7 for share in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("title", SHARES)
def test_intervals_of_the_ceiling_cover(title, record_property):
    """Over 500 studies of each design, readers' intervals and all ranges hold the truth; the ceiling's for beta.

    Where the true distribution is not beta, the ceiling's interval by the beta distribution may miss; the range is for
    that case.
    """
    found = coverage(title, 500)
    for name, share in found.items():
        record_property(f"{title}: {name}", share)
    of_beta = ("auroc", "accuracy", "f1", "reached")
    assert all(share >= 0.92 for name, share in found.items() if title.startswith("beta") or name not in of_beta), found
