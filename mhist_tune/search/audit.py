"""Estimates what the pruner saved and lost, from audited trials.

An audited trial is trained to its end regardless of its scores.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mhist_tune.search.promotion import can_go_on
from mhist_tune.search.trials import Trial
from mhist_tune.storage.outcome import EndState

N_NEEDED = 8
"""The audit has a result from this number of audited trials that would have been pruned."""


@dataclass(frozen=True)
class Audit:
    """An audit of the pruner.

    Attributes:
        n_audited: number of complete audited trials.
        n_would_have_ended: number of these that would have been pruned.
        saved_s: device seconds that pruning saved: each pruned trial extended to the mean length of a complete trial,
            at its own speed.
        spent_s: device seconds that the audit took.
        lost_f1: value of the best trial that would have been pruned, minus that of the best other trial; 0 if it is
            negative. Its name is older than the choice of a score.
        rank_correlation: Spearman's, by epoch, between the audited trials' values up to that epoch and their final
            values; None where all values are equal.
        missing: the reason why there is no result; the numbers above are then None.
    """

    n_audited: int
    n_would_have_ended: int
    saved_s: float | None = None
    spent_s: float | None = None
    lost_f1: float | None = None
    rank_correlation: dict[int, float | None] | None = None
    missing: str | None = None


def audit(trials: Sequence[Trial], pruner: Mapping[str, Any]) -> Audit:
    """Return the audit of the ended trials of a search; `pruner` is that table of its definition."""
    complete = [trial for trial in trials if trial.state is EndState.COMPLETE]
    audited = [trial for trial in complete if trial.is_audited]
    ends = {trial.number: end for trial in audited if (end := _would_end(trial, trials, pruner)) is not None}
    if pruner["name"] == "none":
        return Audit(len(audited), 0, missing="nothing was pruned")
    if not pruner.get("audit"):
        return Audit(0, 0, missing="not audited; pruner = { ..., audit = 0.1 } finishes one of ten trials for it")
    if len(ends) < N_NEEDED:
        reason = f"not enough: {len(ends)} audited trials would have been pruned, {N_NEEDED} are needed"
        return Audit(len(audited), len(ends), missing=reason)
    n_epochs = statistics.fmean(len(trial.epochs) for trial in complete)
    pruned = [trial for trial in trials if trial.state is EndState.PRUNED]
    lost = [_final(trial) for trial in audited if trial.number in ends]
    kept = [_final(trial) for trial in complete if trial.number not in ends]
    return Audit(
        n_audited=len(audited),
        n_would_have_ended=len(ends),
        saved_s=sum(_seconds(trial) * max(0.0, n_epochs / len(trial.epochs) - 1) for trial in pruned),
        spent_s=sum(_seconds(trial, ends[trial.number]) for trial in audited if trial.number in ends),
        lost_f1=max(0.0, max(lost) - max(kept)) if kept else None,
        rank_correlation={epoch: _rank_correlation(audited, epoch) for epoch in range(1, _longest(audited))},
    )


def _would_end(trial: Trial, trials: Sequence[Trial], pruner: Mapping[str, Any]) -> int | None:
    """Return the epoch after which an audited trial would have been pruned; None if it would not."""
    for row in trial.epochs:
        if row.decision is None or not row.decision.audited:
            continue
        if pruner["name"] != "promotion":
            return row.epoch
        # It would have waited. Whether it would have been promoted depends on all trials that reached this rung.
        competitors = [other for other in trials if not other.is_audited and len(other.epochs) >= row.epoch]
        values = [other.value_until(row.epoch) or 0.0 for other in competitors]
        if not can_go_on(trial.value_until(row.epoch) or 0.0, values, reduction_factor=pruner["reduction_factor"]):
            return row.epoch
    return None


def _rank_correlation(trials: Sequence[Trial], epoch: int) -> float | None:
    from scipy.stats import rankdata

    early = [trial.value_until(min(epoch, len(trial.epochs))) or 0.0 for trial in trials]
    first, last = rankdata(early), rankdata([_final(trial) for trial in trials])
    if first.std() == 0 or last.std() == 0:
        return None
    return statistics.correlation(first.tolist(), last.tolist())


def _final(trial: Trial) -> float:
    return trial.value_until(len(trial.epochs)) or 0.0


def _seconds(trial: Trial, after: int = 0) -> float:
    """Return the seconds that the epochs of a trial after epoch `after` took."""
    return sum(row.metrics.get("elapsed_s") or 0.0 for row in trial.epochs[after:])


def _longest(trials: Sequence[Trial]) -> int:
    return max(len(trial.epochs) for trial in trials)
