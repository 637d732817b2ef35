"""What more trials of a search are expected to bring, and the difference that its validation images can show.

The gain is in the true score of the choice: the score that the model of the best trial has on images that did not
choose it. No gain of a sampler that learns is assumed: trials to come are like those so far.

More trials are expected to bring what the last ones brought. A random part of the trials so far, as large in proportion
to them as they are to all of them and the new ones, has its own choice. The measured score of the choice of all, less
the mean of that of such a part, is the gain in measured scores. It would be the same for as much growth again if the
scores had an exponential upper tail, and it is smaller if their upper tail is bounded.

A measured score is a true one with noise, so only a share of that gain is true: the reliability, 1 - (standard error /
standard deviation of the measured scores) squared. Failed configurations would make the standard deviation look large.
So it is the slope of the normal probability plot of the better half of the trials.

The interval is that of simulated searches: normal true scores with that deviation, uncertain as that of so many
trials, and normal noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mhist_tune.arrays import FloatArray
from mhist_tune.statistics import groups as grouped
from mhist_tune.statistics.binary_metrics import checked
from mhist_tune.statistics.out_of_fold import weighted

_MOST_DRAWN = 2_000_000  # numbers
_N_DRAWS = 2000
_N_BEST = 5
"""The number of best trials whose differences are those that a choice depends on."""


@dataclass(frozen=True)
class Noise:
    """How uncertain scores are on the same images.

    Attributes:
        own: standard error of each score, without the part that all models share, [F].
        of_difference: standard error of the difference of two of the best models, the root mean square over the pairs.
    """

    own: FloatArray
    of_difference: float


@dataclass(frozen=True)
class Gain:
    """The expected gain in the true score of the choice, and its 90% prediction interval."""

    expected: float
    low: float
    high: float


def noise(
    name: str,
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    folds: npt.NDArray[np.int64] | None = None,
    groups: Sequence[str] | None = None,
) -> Noise:
    """Return how uncertain the scores of models on the same images are, by the delete-one jackknife.

    Args:
        name: the score: mean_f1, f1 or auroc.
        labels: [n], 0 or 1.
        probabilities: [F, n], in 0..1, of at least two models, the best one first.
        folds: the fold of each image, [n], of predictions out of fold; None for one fold.
        groups: [n], a patient or slide of each image, left out together.
    """
    positive, table = checked(labels, probabilities)
    units = grouped.units_of(positive, groups)
    of_image = np.zeros(positive.size, dtype=np.int64) if folds is None else folds
    per_unit = grouped.influences(lambda rows: {name: weighted(name, positive, of_image, table, rows)}, units)[name]
    per_unit = np.nan_to_num(per_unit) * np.sqrt(1 - 1 / units.n)
    best = per_unit[:, :_N_BEST]
    return Noise(_own(per_unit), float(np.sqrt(2 * np.square(_own(best)).mean())))


def _own(per_unit: FloatArray) -> FloatArray:
    """Return the standard error of each model's deviation from the mean of all, [F]."""
    n_models = per_unit.shape[1]
    deviations = per_unit - per_unit.mean(axis=1, keepdims=True)
    own: FloatArray = np.sqrt(np.square(deviations).sum(axis=0) * n_models / (n_models - 1))
    return own


def gain(values: FloatArray, standard_error: float, n_ended: int, n_more: int, *, seed: int = 0) -> Gain:
    """Return what `n_more` trials are expected to bring.

    Args:
        values: measured scores of the complete trials, [F], the best first; at least three.
        standard_error: of one of them, without the part that all share.
        n_ended: number of all trials so far, at least F. Those that are not complete count as worse than the complete
            ones: they were behind these when they were pruned.
        n_more: number of trials to come.
        seed: of the simulated searches.
    """
    from scipy.stats import norm  # where it is needed: workers load this package and never call it

    n_better = max(3, min(len(values), (n_ended + 1) // 2))
    ranks = np.arange(1, n_better + 1)
    expected_normal = norm.ppf(1 - (ranks - 0.375) / (n_ended + 0.25))  # Blom (1958)
    slope = float(np.polyfit(expected_normal, values[:n_better], 1)[0])
    reliability = max(0.0, 1 - (standard_error / slope) ** 2) if slope > 0 else 0.0
    share = n_ended / (n_ended + n_more)
    # The best trial of a part that holds each trial with probability `share` is number 1, 2 ... of all.
    is_best = share * (1 - share) ** np.arange(n_ended)
    of_rank = values[np.minimum(np.arange(n_ended), len(values) - 1)]
    expected = reliability * float(values[0] - is_best @ of_rank / is_best.sum())
    rng = np.random.default_rng(seed)
    n_draws = max(200, min(_N_DRAWS, _MOST_DRAWN // (n_ended + n_more)))
    spread = slope**2 * n_better / rng.chisquare(n_better, n_draws) - standard_error**2
    true = np.sqrt(np.maximum(spread, 0.0))[:, None] * rng.standard_normal((n_draws, n_ended + n_more))
    measured = true + standard_error * rng.standard_normal(true.shape)
    rows = np.arange(n_draws)
    gains = true[rows, measured.argmax(axis=1)] - true[rows, measured[:, :n_ended].argmax(axis=1)]
    low, high = (float(end) for end in np.quantile(gains, (0.05, 0.95)))
    return Gain(min(max(expected, low), high), low, high)
