"""Intervals of proportions near 0 or 1, where few errors or few correct calls are counted."""

FEW = 10
"""Below so many counted cases of either kind, the variance of a proportion is not known well."""


def effective_count(share: float, variance: float, n_trials: float, effect: float = 1.0) -> float:
    """Return the number of independent trials that would give a proportion this variance.

    As Korn and Graubard (1998) do for surveys. With few counted cases it is at most `n_trials / effect`.

    Args:
        share: the proportion.
        variance: its variance over images or groups, and seeds.
        n_trials: number of images.
        effect: design effect of all errors, at least 1.
    """
    most = n_trials / effect
    if variance == 0:
        return most
    count = share * (1 - share) / variance
    return min(most, count) if is_few(share, n_trials) else count


def is_few(share: float, n_trials: float) -> bool:
    """Return whether fewer than `FEW` cases of either kind are counted."""
    return min(share, 1 - share) * n_trials < FEW


def wilson(share: float, count: float, quantile: float) -> tuple[float, float]:
    """Return Wilson's interval of a proportion (Wilson, 1927; Brown, Cai and DasGupta, 2001, on its coverage).

    Args:
        share: the observed proportion.
        count: number of trials, not necessarily whole.
        quantile: of the normal distribution, or of t for few groups.
    """
    if count <= 0:
        return (0.0, 1.0)
    from scipy import stats
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(share * count, count, alpha=2 * stats.norm.sf(quantile), method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))
