"""The ceiling that votes set: what a model that knew each image's true share of annotators would reach.

The label of an image is the majority of k annotators, and another panel might decide otherwise. So no model reaches an
AUROC of 1 against a panel, save by chance. A model that knew the share p of all possible annotators who call an image
SSA would rank images by p, and call SSA where p is above 1/2. Its expected results against a panel of k follow from the
distribution of p, which the votes show in part (`vote_mixtures`). Annotators count as exchangeable and, given the
image, as independent.

Two AUROCs are given: that of the beta distribution that fits best, and the lowest and highest of all distributions that
fit the votes well. k votes show k moments of the distribution only, so even infinitely many images leave a range.

Shapes: `n` images, `B` rows of counts, `J` shares.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import integrate, optimize, special, stats

from mhist_tune.arrays import FloatArray
from mhist_tune.statistics import groups as grouped
from mhist_tune.statistics import readers, vote_mixtures
from mhist_tune.statistics.binary_metrics import checked, weighted_auroc
from mhist_tune.statistics.estimates import Sample
from mhist_tune.statistics.summaries import MetricSummary
from mhist_tune.statistics.vote_mixtures import Betas, Fit, Mixture

NAMES = ("auroc", "accuracy", "f1")
_SHARES = np.linspace(0, 1, 51)
_CRITICAL = float(stats.chi2.ppf(0.95, 1))
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(200)
_CURVE = np.linspace(0, 1, 2001)
_MIN_ANNOTATORS = 3


@dataclass(frozen=True)
class Range:
    """The lowest and the highest value among all distributions of the share that fit the votes, and the best fit's."""

    low: float
    high: float
    best_fit: float


@dataclass(frozen=True)
class Ceiling:
    """The ceiling, annotators beside it, and how far the models have come.

    Attributes:
        n_annotators: that voted on each image.
        alpha: of the beta distribution, as is `beta`.
        share_ssa: of images that a panel calls SSA, by the beta distribution.
        fit: of the beta distribution; None where groups are known, since its test needs independent images.
        metrics: the ceiling by the beta distribution: `auroc`, `accuracy` and `f1`.
        ranges: of the same over all distributions that fit.
        reader: one annotator of the panel (`readers`), and a further one (`new_sensitivity`, `new_specificity`).
        reached: (AUROC - 1/2) / (ceiling - 1/2) of each seed.
        reached_range: the same of the mean AUROC at the ends of the range.
        curve: false positive rates and sensitivities of the ceiling's ROC curve, ascending.
    """

    n_annotators: int
    n_images: int
    alpha: float
    beta: float
    share_ssa: float
    fit: Fit | None
    metrics: dict[str, MetricSummary]
    ranges: dict[str, Range]
    reader: dict[str, MetricSummary]
    reached: MetricSummary
    reached_range: tuple[float, float]
    curve: tuple[list[float], list[float]]


def vote_ceiling(
    votes: npt.ArrayLike,
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    n_annotators: int,
    groups: Sequence[str] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> Ceiling | None:
    """Return the ceiling; None where all votes are unanimous, where one class is absent, or with too few annotators.

    Args:
        votes: for SSA, [n], in 0..n_annotators.
        labels: [n], 0 or 1: the majority of the votes.
        probabilities: [S, n], in 0..1.
        n_annotators: that voted on each image, an odd number.
        groups: the patient or slide of each image, [n]; None where they are not known.
        n_boot: number of resamples.
        seed: of the resampling.

    Raises:
        ValueError: as `binary_metrics.metrics_of`, or the number of annotators is even.
    """
    positive, table = checked(labels, probabilities)
    if n_annotators % 2 == 0:
        raise ValueError(f"a panel of {n_annotators} may be tied; the number of annotators must be odd")
    n_votes = np.asarray(votes)
    is_split = (n_votes > 0) & (n_votes < n_annotators)
    if n_annotators < _MIN_ANNOTATORS or not is_split.any() or not 0 < positive.sum() < positive.size:
        return None
    one_of = np.eye(n_annotators + 1)[n_votes]
    counts = one_of.sum(axis=0)
    betas = vote_mixtures.fit_betas(counts)
    sample = Sample(positive, groups, n_boot=n_boot, seed=seed)

    def statistics(weights: FloatArray) -> Mapping[str, FloatArray]:
        rows = weights @ one_of
        fitted = vote_mixtures.fit_betas(rows)
        found = of_betas(fitted, n_annotators)
        reached = (weighted_auroc(positive, table, weights) - 0.5) / (found["auroc"][:, None] - 0.5)
        alone = {name: values[:, None] for name, values in (found | readers.of_counts(rows)).items()}
        return alone | {"reached": reached}

    drawn = sample.resample(statistics)
    summaries = {name: drawn.summary(name, is_share=name not in ("fleiss_kappa", "reached")) for name in drawn.points}
    ranges = likelihood_ranges(counts, _design_effect(n_votes, positive, groups))
    auroc = float(weighted_auroc(positive, table, np.ones((1, positive.size))).mean())
    low, high = ((auroc - 0.5) / (end - 0.5) for end in (ranges["auroc"].high, ranges["auroc"].low))
    return Ceiling(
        n_annotators=n_annotators,
        n_images=positive.size,
        alpha=float(betas.alpha[0]),
        beta=float(betas.beta[0]),
        share_ssa=float(betas.votes(n_annotators)[0, n_annotators // 2 + 1 :].sum()),
        fit=None if groups is not None else vote_mixtures.goodness_of_fit(counts, betas),
        metrics={name: summaries[name] for name in NAMES},
        ranges=ranges,
        reader={name: summaries[name] for name in (*readers.NAMES, "new_sensitivity", "new_specificity")},
        reached=summaries["reached"],
        reached_range=(low, high),
        curve=curve(betas, n_annotators),
    )


def of_betas(betas: Betas, k: int) -> dict[str, FloatArray]:
    """Return the ceiling by beta distributions of the share, and what an annotator outside of the panel reaches.

    With the distribution function F of the share and the chance q(p) that a panel calls an image SSA, AUROC is
    1/2 + E|q - q'| / (4 P (1 - P)) for two images and P = E q. Sums by parts need F and the slope of q alone, so a
    density that is infinite at 0 or 1 does no harm.

    Returns:
        `auroc`, `accuracy`, `f1`, `new_sensitivity` and `new_specificity`, each [B].
    """
    low, high = (_NODES + 1) / 4, (_NODES + 3) / 4
    nodes = np.concatenate([low, high])
    weights = np.concatenate([_NODE_WEIGHTS, _NODE_WEIGHTS]) / 4 * _panel_slope(nodes, k)
    below = special.betainc(betas.alpha[:, None], betas.beta[:, None], nodes)
    share = 1 - below @ weights
    spread = 2 * (below * (1 - below)) @ weights
    half = special.betainc(betas.alpha, betas.beta, 0.5)
    to_half = below[:, : low.size] @ weights[: low.size]
    from_half = below[:, low.size :] @ weights[low.size :]
    true_ssa, true_hp = 1 - half / 2 - from_half, half / 2 + to_half
    votes, by_votes = np.arange(k + 1), betas.votes(k)
    a, b = betas.alpha[:, None], betas.beta[:, None]
    both = (by_votes * (a + votes) / (a + b + k))[:, k // 2 + 1 :].sum(axis=1)
    neither = (by_votes * (b + k - votes) / (a + b + k))[:, : k // 2 + 1].sum(axis=1)
    return {
        "auroc": 0.5 + spread / (4 * share * (1 - share)),
        "accuracy": true_ssa + true_hp,
        "f1": 2 * true_ssa / (1 - half + share),
        "new_sensitivity": both / share,
        "new_specificity": neither / (1 - share),
    }


def of_mixture(mixture: Mixture, k: int) -> dict[str, float]:
    """Return the ceiling by a distribution with finitely many shares, which ascend: `auroc`, `accuracy` and `f1`."""
    return {name: make(mixture.weights) for name, (make, _) in _functionals(mixture.shares, k).items()}


def curve(betas: Betas, k: int) -> tuple[list[float], list[float]]:
    """Return false positive rates and sensitivities of the ceiling by one beta distribution, from (0, 0) to (1, 1)."""
    shares = _CURVE[::-1]
    below = special.betainc(betas.alpha[0], betas.beta[0], shares)
    above = -integrate.cumulative_trapezoid(below * _panel_slope(shares, k), shares, initial=0)
    called_ssa = 1 - stats.binom.sf(k // 2, k, shares) * below - above  # and SSA by the panel
    share = called_ssa[-1]
    fpr, tpr = (1 - below - called_ssa) / (1 - share), called_ssa / share
    chosen = np.linspace(0, _CURVE.size - 1, 201).astype(np.int64)
    ends = ([0.0], [1.0])
    return tuple(  # type: ignore[return-value]
        [*ends[0], *np.clip(rates[chosen], 0, 1).tolist(), *ends[1]] for rates in (fpr, tpr)
    )


def likelihood_ranges(counts: FloatArray, effect: float = 1.0) -> dict[str, Range]:
    """Return the range of the ceiling over all distributions of the share whose likelihood is not much lower.

    Twice the logarithm of the ratio to the best fit is at most the 95% quantile of chi squared with one degree of
    freedom, times the design effect of groups (Rao and Scott, 1992). So the range is that of a profile likelihood.

    Args:
        counts: images with 0..k votes, [k + 1].
        effect: design effect of the groups for votes, at least 1.
    """
    k = counts.size - 1
    best = vote_mixtures.fit_any(counts, _SHARES)
    table = vote_mixtures.chances(k, _SHARES)
    floor = vote_mixtures.log_likelihood(counts, table @ best.weights) - effect * _CRITICAL / 2
    scale = 1 / counts.sum()
    constraints = [
        {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones((1, w.size))},
        {
            "type": "ineq",
            "fun": lambda w: scale * (vote_mixtures.log_likelihood(counts, table @ w) - floor),
            "jac": lambda w: scale * (counts / np.maximum(table @ w, 1e-12)) @ table,
        },
    ]
    start = 0.9 * best.weights + 0.1 / _SHARES.size
    found = {}
    for name, (make, slope) in _functionals(_SHARES, k).items():
        ends = [make(best.weights)]
        for sign in (1.0, -1.0):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # values outside of the bounds are clipped, and that is said
                result = optimize.minimize(
                    lambda w, make=make, sign=sign: sign * make(w),
                    start,
                    jac=lambda w, slope=slope, sign=sign: sign * slope(w),
                    constraints=constraints,
                    bounds=[(0, 1)] * _SHARES.size,
                    method="SLSQP",
                    options={"maxiter": 300, "ftol": 1e-9},
                )
            weights = np.clip(result.x, 0, None)
            weights /= weights.sum()
            if vote_mixtures.log_likelihood(counts, table @ weights) >= floor - 0.02:
                ends.append(make(weights))
        found[name] = Range(min(ends), max(ends), ends[0])
    return found


_Functional = Callable[[FloatArray], float]
_Slope = Callable[[FloatArray], FloatArray]


def _functionals(shares: FloatArray, k: int) -> dict[str, tuple[_Functional, _Slope]]:
    """Return AUROC, accuracy and F1 as functions of the weights of `shares`, each with its slope."""
    panel = stats.binom.sf(k // 2, k, shares)
    steps = np.diff(panel)
    called = (shares > 0.5).astype(np.float64)
    correct = np.maximum(panel, 1 - panel)

    def auroc(weights: FloatArray) -> float:
        below, share = np.cumsum(weights)[:-1], panel @ weights
        return float(0.5 + (below * (1 - below)) @ steps / (2 * share * (1 - share)))

    def auroc_slope(weights: FloatArray) -> FloatArray:
        below, share = np.cumsum(weights)[:-1], panel @ weights
        spread, base = 2 * (below * (1 - below)) @ steps, 4 * share * (1 - share)
        of_spread = 2 * np.append(np.cumsum(((1 - 2 * below) * steps)[::-1])[::-1], 0.0)
        slope: FloatArray = of_spread / base - spread / base**2 * 4 * (1 - 2 * share) * panel
        return slope

    def f1(weights: FloatArray) -> float:
        return float(2 * (called * panel) @ weights / ((called + panel) @ weights))

    def f1_slope(weights: FloatArray) -> FloatArray:
        above, under = 2 * (called * panel) @ weights, (called + panel) @ weights
        slope: FloatArray = 2 * called * panel / under - above / under**2 * (called + panel)
        return slope

    return {
        "auroc": (auroc, auroc_slope),
        "accuracy": (lambda weights: float(correct @ weights), lambda weights: correct),
        "f1": (f1, f1_slope),
    }


def _panel_slope(shares: FloatArray, k: int) -> FloatArray:
    """Return the derivative of the chance that a panel of k calls an image SSA, by the share, [J]."""
    m = k // 2 + 1
    slope: FloatArray = k * stats.binom.pmf(m - 1, k - 1, shares)
    return slope


def _design_effect(votes: FloatArray, positive: npt.NDArray[np.bool_], groups: Sequence[str] | None) -> float:
    """Return the design effect of groups for the mean number of votes, at least 1."""
    if groups is None or len(set(groups)) < 2:
        return 1.0
    values = votes[None].astype(np.float64)

    def mean(weights: FloatArray) -> Mapping[str, FloatArray]:
        return {"votes": weights @ values.T / weights.sum(axis=1, keepdims=True)}

    of_groups, of_images = (
        grouped.variance([(grouped.influences(mean, units)["votes"], values.mean(axis=1))], units).of_units
        for units in (grouped.units_of(positive, groups), grouped.units_of(positive, None))
    )
    return max(1.0, of_groups / of_images) if of_images else 1.0
