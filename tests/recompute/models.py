"""Statistics of a report, a second time: by NumPy, SciPy and scikit-learn, without anything of mhist-tune."""

from collections.abc import Sequence

import numpy as np
from scipy import optimize, special, stats
from sklearn import metrics as sklearn_metrics

N_BOOT = 4000
_CLOSE = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 10000}


class Model:
    """One or more models (seeds) on the same images: labels [n] and probabilities [S, n]."""

    def __init__(self, labels: Sequence[int], probabilities: Sequence[Sequence[float]]) -> None:
        self.y = np.asarray(labels, dtype=bool)
        self.p = np.asarray(probabilities, dtype=np.float64)
        self._resampled: dict[float, dict[str, np.ndarray]] = {}

    def per_seed(self, name: str, threshold: float = 0.5) -> np.ndarray:
        """Return one metric of each seed, by scikit-learn."""
        return np.array([self._one(name, row, row > threshold) for row in self.p])

    def _one(self, name: str, p: np.ndarray, called: np.ndarray) -> float:
        y = self.y
        of_calls = {
            "f1": lambda: sklearn_metrics.f1_score(y, called, zero_division=0),
            "precision": lambda: sklearn_metrics.precision_score(y, called, zero_division=0),
            "recall": lambda: sklearn_metrics.recall_score(y, called),
            "specificity": lambda: sklearn_metrics.recall_score(~y, ~called),
            "accuracy": lambda: sklearn_metrics.accuracy_score(y, called),
            "balanced_accuracy": lambda: sklearn_metrics.balanced_accuracy_score(y, called),
            "auroc": lambda: sklearn_metrics.roc_auc_score(y, p),
            "auprc": lambda: sklearn_metrics.average_precision_score(y, p),
            "log_loss": lambda: sklearn_metrics.log_loss(y, p),
            "brier": lambda: sklearn_metrics.brier_score_loss(y, p),
            "ece": lambda: ece(y, p),
        }
        return float(of_calls[name]())

    def weighted(self, name: str, w: np.ndarray, threshold: float = 0.5) -> np.ndarray:
        """Return one metric of each seed for each row of image weights, [B, S]."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.stack([self._weighted(name, p, w, threshold) for p in self.p], axis=1)

    def _weighted(self, name: str, p: np.ndarray, w: np.ndarray, threshold: float) -> np.ndarray:
        y = self.y
        ssa, hp = w[:, y].sum(axis=1), w[:, ~y].sum(axis=1)
        if name == "auroc":
            above = (p[y][:, None] > p[~y]) + 0.5 * (p[y][:, None] == p[~y])
            return ((w[:, y] @ above) * w[:, ~y]).sum(axis=1) / (ssa * hp)
        if name == "auprc":
            at_least = (p[:, None] >= p[y]).astype(float)
            precision = np.nan_to_num((w[:, y] @ at_least[y]) / (w @ at_least))
            return (w[:, y] * precision).sum(axis=1) / ssa
        if name in ("log_loss", "brier"):
            of_images = -np.log(np.where(y, p, 1 - p)) if name == "log_loss" else (p - y) ** 2
            return (w @ of_images) / (ssa + hp)
        called = p > threshold
        tp, fp = w[:, y & called].sum(axis=1), w[:, ~y & called].sum(axis=1)
        return {
            "f1": np.nan_to_num(2 * tp / (tp + fp + ssa)),
            "precision": np.nan_to_num(tp / (tp + fp)),
            "recall": tp / ssa,
            "specificity": 1 - fp / hp,
            "accuracy": (tp + hp - fp) / (ssa + hp),
            "balanced_accuracy": (tp / ssa + 1 - fp / hp) / 2,
        }[name]

    def interval(self, name: str, threshold: float = 0.5) -> tuple[float, float, float]:
        """Return the 95% interval of the mean over seeds, and how far a printed end may be from it."""
        mean = float(self.per_seed(name, threshold).mean())
        share, trials = mean / (2 - mean) if name == "f1" else mean, self.trials(name, threshold)
        if trials is not None and min(share, 1 - share) * trials < 10:
            return (*self.near_end(name, 1.0, threshold), 0.0)
        rng, n_seeds = np.random.default_rng(20261127), len(self.p)
        w = draws(rng, self.y.size)
        seeds = draws(rng, n_seeds) / n_seeds
        values = (self.weighted(name, w, threshold) * seeds).sum(axis=1)
        low, high = np.nanquantile(values, (0.025, 0.975))
        return float(low), float(high), 0.1 * float(high - low)

    def trials(self, name: str, threshold: float) -> float | None:
        """Return the number of images that a proportion is of; None for what is no proportion."""
        called = self.p > threshold
        n_called, n_found = called.sum(axis=1).mean(), (called & self.y).sum(axis=1).mean()
        return {
            "recall": float(self.y.sum()),
            "specificity": float((~self.y).sum()),
            "accuracy": float(self.y.size),
            "precision": float(n_called),
            "f1": float(n_called + self.y.sum() - n_found),
        }.get(name)

    def variances(self, name: str, threshold: float = 0.5) -> tuple[float, float]:
        """Return the jackknife variance of the mean over seeds: its part from images, and all of it."""
        w = 1 - np.eye(self.y.size)
        left_out = self.weighted(name, w, threshold)
        return crossed(left_out.mean(axis=0) - left_out, self.per_seed(name, threshold), self.y)[:2]

    def near_end(self, name: str, effect: float, threshold: float = 0.5) -> tuple[float, float]:
        """Return Wilson's interval on an effective count, of few errors or few correct calls."""
        mean = float(self.per_seed(name, threshold).mean())
        of_images, total = self.variances(name, threshold)
        share, slope = (mean / (2 - mean), 2 / (2 - mean) ** 2) if name == "f1" else (mean, 1.0)
        trials = self.trials(name, threshold)
        assert trials is not None
        low, high = wilson(share, effective(share, (total + (effect - 1) * of_images) * slope**2, trials, effect))
        return (2 * low / (1 + low), 2 * high / (1 + high)) if name == "f1" else (low, high)


def difference(first: Model, second: Model, name: str) -> tuple[float, float]:
    """Return the difference of a metric's mean over seeds of two models on the same images, and its standard error.

    Images are paired, the seeds of the two are independent. Resampling images and seeds together counts their
    interaction three times, so it is taken off.
    """
    rng = np.random.default_rng(11)
    w, values = draws(rng, first.y.size), [model.per_seed(name) for model in (first, second)]
    resampled = [model.weighted(name, w) for model in (first, second)]
    seeds = [draws(rng, len(model.p)) / len(model.p) for model in (first, second)]
    one, other = ((found * drawn).sum(axis=1) for found, drawn in zip(resampled, seeds, strict=True))
    by_images = float(np.nanvar(resampled[0].mean(axis=1) - resampled[1].mean(axis=1), ddof=1))
    by_seeds = sum(float(found.var()) / found.size for found in values)
    interaction = np.clip(float(np.nanvar(one - other, ddof=1)) - by_images - by_seeds, 0, min(by_images, by_seeds))
    unbiased = sum(float(found.var(ddof=1)) / found.size for found in values)
    return float(values[0].mean() - values[1].mean()), float(np.sqrt(by_images + unbiased - interaction))


def draws(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return how often each of n units is drawn in each resample, [B, n]."""
    return rng.multinomial(n, np.full(n, 1 / n), size=N_BOOT).astype(float)


def crossed(influences: np.ndarray, values: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Return the variance of a mean over seeds by images [n, S] and seeds [S]: from images, in all, and its df."""
    rarer = y if y.sum() <= (~y).sum() else ~y
    weights = np.where(rarer, 1 - 1 / rarer.sum(), 1 - 1 / (~rarer).sum())
    mean, n_seeds = influences.mean(axis=1), len(values)
    squares = weights * mean**2
    of_images, of_seeds, of_both = float(squares.sum()), 0.0, 0.0
    parts = [(squares[chosen].sum(), chosen.sum() - 1) for chosen in (rarer, ~rarer)]
    if n_seeds > 1:
        of_seeds = float(values.var(ddof=1)) / n_seeds
        parts.append((of_seeds, n_seeds - 1))
        around = ((influences - mean[:, None]) ** 2).sum(axis=1)
        of_both = min(float(weights @ around) / (n_seeds * (n_seeds - 1)), of_images, of_seeds)
    expected = sum(part**2 / (max(df, 1) + 2) for part, df in parts)
    df = (of_images + of_seeds) ** 2 / expected - 2 if expected else y.size - 1
    return of_images, of_images + of_seeds - of_both, float(df)


def effective(share: float, variance: float, trials: float, effect: float = 1.0) -> float:
    """Return the number of independent trials that would give a proportion this variance."""
    if variance == 0:
        return trials / effect
    count = share * (1 - share) / variance
    return min(trials / effect, count) if min(share, 1 - share) * trials < 10 else count


def wilson(share: float, count: float) -> tuple[float, float]:
    """Return Wilson's 95% interval of a proportion of `count` trials."""
    z = stats.norm.ppf(0.975)
    centre, half = share + z**2 / (2 * count), z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    low, high = ((centre + sign * half) / (1 + z**2 / count) for sign in (-1, 1))
    return max(0.0, float(low)), min(1.0, float(high))


def ece(y: np.ndarray, p: np.ndarray) -> float:
    """Return the calibration error over 15 bins of equal width."""
    bins = np.minimum((p * 15).astype(int), 14)
    return float(sum(abs((p - y)[bins == one].sum()) for one in range(15))) / y.size


def logit(p: np.ndarray) -> np.ndarray:
    """Return logits; probabilities are kept 1e-7 from 0 and 1."""
    return special.logit(np.clip(p, 1e-7, 1 - 1e-7))


def mean_f1(y: np.ndarray, p: np.ndarray) -> float:
    """Return F1 averaged over the thresholds .1 to .9."""
    return float(np.mean([sklearn_metrics.f1_score(y, p > t / 10, zero_division=0) for t in range(1, 10)]))


def fitted_threshold(y: np.ndarray, p: np.ndarray) -> float:
    """Return the midpoint of neighbouring probabilities with the highest F1, of several the nearest to .5."""
    values = np.unique(p)
    middles = [values[0] / 2, *((values[1:] + values[:-1]) / 2)]
    scores = np.array([sklearn_metrics.f1_score(y, p > middle, zero_division=0) for middle in middles])
    best = [middle for middle, score in zip(middles, scores, strict=True) if score > scores.max() - 1e-12]
    return float(min(best, key=lambda middle: abs(middle - 0.5)))


def platt(y: np.ndarray, p: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of Platt's recalibration, by a general minimizer."""
    target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))
    x = logit(p)

    def loss(line: np.ndarray) -> float:
        z = line[0] * x + line[1]
        return float(np.sum(np.logaddexp(0, z) - target * z))

    found = optimize.minimize(
        loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 10000}
    )
    return float(found.x[0]), float(found.x[1])
