"""The scores that a study can search by, and the epochs that a trial's value can be taken from."""

from collections.abc import Mapping
from typing import Literal

Score = Literal["mean_f1", "f1", "auroc"]
"""A validation metric of an epoch: F1 averaged over nine thresholds, F1 at 0.5, or AUROC."""

At = Literal["last", "best"]
"""The epoch that a trial's value, weights and predictions are taken from."""

SCORE_NAMES: Mapping[Score, str] = {"mean_f1": "mean F1", "f1": "F1", "auroc": "AUROC"}
"""What each score is called in texts."""
