"""Distributions of the true share of annotators who call an image SSA, estimated from counts of votes.

Of `k` annotators, an image with the true share p gets v votes with the probability of a binomial distribution. That
holds if annotators are exchangeable and, given the image, independent. Two estimates of the distribution of p: the beta
distribution (so the votes are beta-binomial), and any distribution (Laird, 1978), which has finitely many shares.

Shapes: counts are the numbers of images with 0..k votes, [k + 1], or rows of these, [B, k + 1].
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from mhist_tune.arrays import FloatArray

_N_STEPS = 100
_SMALLEST, _LARGEST = np.log(1e-3), np.log(1e4)
"""Bounds of the logarithms of the beta distribution's parameters: unanimous votes, and shares that are all alike."""


@dataclass(frozen=True)
class Betas:
    """Beta distributions of the true share, one for each row of counts: their parameters, each [B]."""

    alpha: FloatArray
    beta: FloatArray

    def votes(self, k: int) -> FloatArray:
        """Return the probability of 0..k votes, [B, k + 1]."""
        probabilities: FloatArray = stats.betabinom.pmf(np.arange(k + 1), k, self.alpha[:, None], self.beta[:, None])
        return probabilities


@dataclass(frozen=True)
class Mixture:
    """A distribution with finitely many shares, [J], and the probability of each, [J]."""

    shares: FloatArray
    weights: FloatArray


@dataclass(frozen=True)
class Fit:
    """How well a distribution fits counts: the likelihood-ratio statistic, its degrees of freedom, and p-value."""

    statistic: float
    df: int
    p_value: float


def fit_betas(counts: npt.ArrayLike) -> Betas:
    """Return the beta distributions of maximum likelihood, by Newton's method on the logarithms of the parameters.

    Args:
        counts: [B, k + 1], at least 0, with images in each row.
    """
    table = np.atleast_2d(np.asarray(counts, dtype=np.float64))
    k = table.shape[1] - 1
    # Images with more than j votes for SSA, with more than j for HP, and all: [B, k].
    of_ssa = table.sum(axis=1, keepdims=True) - np.cumsum(table, axis=1)[:, :-1]
    of_hp = np.cumsum(table, axis=1)[:, ::-1][:, 1:]
    of_all = np.repeat(table.sum(axis=1, keepdims=True), k, axis=1)
    steps = np.arange(k)

    def likelihood(logs: FloatArray) -> FloatArray:
        a, b = np.exp(logs).T[:, :, None]
        parts = of_ssa * np.log(a + steps) + of_hp * np.log(b + steps) - of_all * np.log(a + b + steps)
        total: FloatArray = parts.sum(axis=1)
        return total

    logs = np.zeros((len(table), 2))
    value = likelihood(logs)
    for _ in range(_N_STEPS):
        step = _newton_step(logs, of_ssa, of_hp, of_all)
        moved = np.clip(logs + step, _SMALLEST, _LARGEST)
        for _ in range(30):
            new = likelihood(moved)
            worse = new < value
            if not worse.any():
                break
            moved[worse] = (logs[worse] + moved[worse]) / 2
        moved[new < value] = logs[new < value]
        is_done = np.abs(moved - logs).max() < 1e-9
        logs, value = moved, np.maximum(new, value)
        if is_done:
            break
    alpha, beta = np.exp(logs).T
    return Betas(alpha, beta)


def _newton_step(logs: FloatArray, of_ssa: FloatArray, of_hp: FloatArray, of_all: FloatArray) -> FloatArray:
    """Return the step towards the maximum, at most 2 in each logarithm, [B, 2]; uphill where the curve is no hill."""
    a, b = np.exp(logs).T
    steps = np.arange(of_ssa.shape[1])
    by_a, by_b, by_sum = (1 / (values[:, None] + steps) for values in (a, b, a + b))
    both = (of_all * by_sum).sum(axis=1)
    slope_a = a * ((of_ssa * by_a).sum(axis=1) - both)
    slope_b = b * ((of_hp * by_b).sum(axis=1) - both)
    curve = (of_all * by_sum**2).sum(axis=1)
    h_aa = slope_a + a**2 * (curve - (of_ssa * by_a**2).sum(axis=1))
    h_bb = slope_b + b**2 * (curve - (of_hp * by_b**2).sum(axis=1))
    h_ab = a * b * curve
    determinant = h_aa * h_bb - h_ab**2
    is_hill = (h_aa < 0) & (determinant > 0)
    safe = np.where(is_hill, determinant, 1.0)
    step = np.stack([-(h_bb * slope_a - h_ab * slope_b) / safe, -(h_aa * slope_b - h_ab * slope_a) / safe], axis=1)
    uphill = np.stack([slope_a, slope_b], axis=1) / np.maximum(np.hypot(slope_a, slope_b), 1e-300)[:, None]
    step = np.where(is_hill[:, None], step, uphill)
    clipped: FloatArray = step * np.minimum(1.0, 2 / np.maximum(np.abs(step).max(axis=1), 1e-300))[:, None]
    return clipped


def goodness_of_fit(counts: npt.ArrayLike, betas: Betas) -> Fit:
    """Return how well the beta distribution fits counts [k + 1] of independent images; k is at least 3."""
    observed = np.asarray(counts, dtype=np.float64)
    k = observed.size - 1
    expected = betas.votes(k)[0] * observed.sum()
    some = observed > 0
    statistic = 2 * float((observed[some] * np.log(observed[some] / expected[some])).sum())
    return Fit(statistic, k - 2, float(stats.chi2.sf(statistic, k - 2)))


def chances(k: int, shares: FloatArray) -> FloatArray:
    """Return the probability of 0..k votes for images with these shares [J], [k + 1, J]."""
    table: FloatArray = stats.binom.pmf(np.arange(k + 1)[:, None], k, shares)
    return table


def log_likelihood(counts: FloatArray, of_votes: FloatArray) -> float:
    """Return the log likelihood of counts [k + 1] under the probabilities of votes [k + 1]."""
    some = counts > 0
    return float((counts[some] * np.log(np.maximum(of_votes[some], 1e-300))).sum())


def fit_any(counts: npt.ArrayLike, shares: FloatArray) -> Mixture:
    """Return the distribution over the given shares [J] that has the highest likelihood for counts [k + 1].

    The constrained Newton method of Wang (2007): a quadratic model of the likelihood is maximized by non-negative least
    squares, and a line search follows.
    """
    observed = np.asarray(counts, dtype=np.float64)
    observed_shares = observed / observed.sum()
    some = observed > 0
    table = chances(observed.size - 1, shares)[some]
    target = observed_shares[some]
    weights = np.full(shares.size, 1 / shares.size)

    def likelihood(of_shares: FloatArray) -> float:
        return float((target * np.log(table @ of_shares)).sum())

    for _ in range(_N_STEPS):
        ratio = table / (table @ weights)[:, None]
        slope = target @ ratio - 1
        if slope.max() < 1e-9:
            break
        rows = np.vstack([np.sqrt(target)[:, None] * ratio, np.full((1, shares.size), 1e4)])
        towards, _ = optimize.nnls(rows, np.append(2 * np.sqrt(target), 1e4), maxiter=100 * shares.size)
        direction = towards / towards.sum() - weights
        length, before = 1.0, likelihood(weights)
        while likelihood(weights + length * direction) < before + 1e-4 * length * float(slope @ direction):
            length /= 2
            if length < 1e-8:
                break
        weights = weights + length * direction
    return Mixture(shares, weights)
