"""The scores that a study can search by, and the epochs that a trial's value can be taken from."""

from collections.abc import Mapping
from typing import Literal

Score = Literal["mean_f1", "f1", "auroc"]
"""A validation metric of an epoch: F1 averaged over nine thresholds, F1 at 0.5, or AUROC."""

At = Literal["last", "best"]
"""The epoch that a trial's value, weights and predictions are taken from."""

SCORE_NAMES: Mapping[Score, str] = {"mean_f1": "mean F1", "f1": "F1", "auroc": "AUROC"}
"""What each score is called in texts."""


def sets_trivial_apart(score: Score, at: At) -> bool:
    """Return whether a search ranks trivial models last and promotes none of them by a tie.

    A trivial model calls all validation images one class. A search by F1 at the best epoch keeps the rules of versions
    that had no other score, so that its decisions can be repeated.
    """
    return (score, at) != ("f1", "best")
