"""Intervals of proportions near 0 or 1, where few errors or few correct calls are counted."""

FEW = 10
"""Below so many counted cases of either kind, the interval of a proportion is `wilson`'s."""


def effective_count(share: float, variance: float, most: float) -> float:
    """Return the number of independent trials that would give a proportion this variance, at most `most`.

    As Korn and Graubard (1998) do for surveys. At 0 or 1 the variance is 0 and says nothing, so it is `most`.

    Args:
        share: the proportion.
        variance: its variance over images or groups, and seeds.
        most: number of trials, divided by the design effect.
    """
    return min(most, share * (1 - share) / variance) if variance > 0 else most


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
