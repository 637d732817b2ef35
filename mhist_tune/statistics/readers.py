"""What one annotator of a panel reaches, from counts of votes alone, and how well annotators agree.

Counts are the numbers of images with 0..k votes for SSA. They do not say who voted, so each number is the mean over the
k annotators. Shapes: counts [B, k + 1].
"""

import numpy as np

from mhist_tune.arrays import FloatArray

NAMES = (
    "sensitivity",
    "specificity",
    "accuracy_left_out",
    "sensitivity_left_out",
    "specificity_left_out",
    "fleiss_kappa",
)


def of_counts(counts: FloatArray) -> dict[str, FloatArray]:
    """Return what one annotator reaches, each [B]; NaN where a class is absent.

    - `sensitivity`, `specificity`: against the majority of all k, which holds the annotator's own vote.
    - `*_left_out`: against the majority of the other k - 1. A tie of these counts half for each class.
    - `fleiss_kappa`: the agreement beyond chance (Fleiss, 1971).

    Args:
        counts: rows of numbers of images with 0..k votes, at least 0; k is odd and at least 3.
    """
    k = counts.shape[1] - 1
    votes = np.arange(k + 1)
    is_ssa = votes > k / 2
    n = counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "sensitivity": counts @ (is_ssa * votes / k) / (counts @ is_ssa.astype(np.float64)),
            "specificity": counts @ (~is_ssa * (k - votes) / k) / (counts @ (~is_ssa).astype(np.float64)),
        }
        # Of the annotators of an image with v votes, v said SSA and see v - 1 votes of the others; k - v see v.
        said_ssa, said_hp = votes / k, (k - votes) / k
        seen_by_ssa, seen_by_hp = _majority(votes - 1, k - 1), _majority(votes, k - 1)
        both = said_ssa * seen_by_ssa
        neither = said_hp * (1 - seen_by_hp)
        of_ssa = both + said_hp * seen_by_hp
        found |= {
            "accuracy_left_out": counts @ (both + neither) / n,
            "sensitivity_left_out": counts @ both / (counts @ of_ssa),
            "specificity_left_out": counts @ neither / (counts @ (1 - of_ssa)),
        }
        agreement = counts @ ((votes * (votes - 1) + (k - votes) * (k - votes - 1)) / (k * (k - 1))) / n
        share = counts @ votes / (k * n)
        by_chance = share**2 + (1 - share) ** 2
        found["fleiss_kappa"] = (agreement - by_chance) / (1 - by_chance)
    return found


def _majority(votes: FloatArray, n_others: int) -> FloatArray:
    """Return 1 where the majority of the others says SSA, 0.5 for a tie."""
    return np.where(votes == n_others / 2, 0.5, (votes > n_others / 2).astype(np.float64))
