"""Whether a trial goes on: a pure function of recorded values, so that every decision can be repeated and explained.

Optuna's own pruners answer once and differently when they are asked again (successive halving stores the rung before
it answers), which a resumed trial would do. Here a trial is judged by its value up to an epoch; its competitors are all
other trials that have recorded the same epoch.
"""

import math
import statistics
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mhist_tune.storage.decision import Decision, Verdict


def smoothed(curve: Sequence[float], best_epoch: int, smoothing: int) -> float:
    """Return a trial's value: the mean of its curve over the `smoothing` epochs up to and with `best_epoch`.

    At the beginning it is over as many as there are. One lucky epoch on a small validation split lifts it less than it
    lifts the best value of a curve.
    """
    return statistics.fmean(curve[max(0, best_epoch - smoothing) : best_epoch])


def is_audited(pruner: Mapping[str, Any], slot: int) -> bool:
    """Return whether the trial of `slot` is finished whatever its scores, to learn what pruning costs.

    One of each 1/`audit` slots in a row, drawn by their place: a sample of all trials, chosen before any of them is
    known. The other trials are judged as if it were not there.
    """
    if not pruner.get("audit"):
        return False
    n_slots = round(1 / float(pruner["audit"]))
    group, place = divmod(slot, n_slots)
    return place == zlib.crc32(f"audit {group}".encode()) % n_slots


def decide(
    pruner: Mapping[str, Any],
    *,
    slot: int,
    epoch: int,
    n_epochs: int,
    value: float,
    values_at: Callable[[int], Mapping[int, float]],
) -> Decision:
    """Judge the trial of `slot` after `epoch`.

    Args:
        pruner: a study definition's complete `pruner` table.
        slot: the trial's slot; with Hyperband it also fixes the bracket.
        epoch: the epoch just recorded, 1-based.
        n_epochs: the configured number of epochs.
        value: the trial's value up to `epoch`.
        values_at: gives the value up to an epoch of every slot that has recorded it; read only where it is needed.
    """
    name = pruner["name"]
    if epoch >= n_epochs or not _is_judged(pruner, slot, epoch, n_epochs):
        return Decision(verdict=Verdict.GO_ON, epoch=epoch, value=value, reason="not a decision point")
    values = values_at(epoch).items()
    others = {other: one for other, one in values if other != slot and not is_audited(pruner, other)}
    if name == "hyperband":
        bracket = _bracket(pruner, slot, n_epochs)
        others = {other: one for other, one in others.items() if _bracket(pruner, other, n_epochs) == bracket}
    judge = _against_percentile if name in ("median", "percentile") else _against_rung
    decision = judge(pruner, epoch, value, list(others.values()))
    return decision.for_audit() if is_audited(pruner, slot) else decision


def rungs(pruner: Mapping[str, Any], n_epochs: int, bracket: int = 0) -> list[int]:
    """Return the epochs at which halving judges: min_resource x reduction_factor^k, all before the last epoch."""
    factor = int(pruner["reduction_factor"])
    rung = int(pruner["min_resource"]) * factor**bracket
    found = []
    while rung < n_epochs:
        found.append(rung)
        rung *= factor
    return found


def _is_judged(pruner: Mapping[str, Any], slot: int, epoch: int, n_epochs: int) -> bool:
    match pruner["name"]:
        case "none" | "promotion":  # which decides about arrivals, see `promotion`
            return False
        case "median" | "percentile":
            return epoch > int(pruner["n_warmup_epochs"])
        case "hyperband":
            return epoch in rungs(pruner, n_epochs, _bracket(pruner, slot, n_epochs))
        case _:
            return epoch in rungs(pruner, n_epochs)


def _against_percentile(pruner: Mapping[str, Any], epoch: int, value: float, others: list[float]) -> Decision:
    """Keep what reaches the best `percentile` percent of the competitors, as Optuna does; 50 is the median rule.

    Golovin et al. 2017, section 3.2.
    """
    percentile = 50.0 if pruner["name"] == "median" else float(pruner["percentile"])
    if len(others) < max(1, int(pruner["n_startup_trials"])):
        reason = "too few competitors at this epoch"
        return Decision(verdict=Verdict.GO_ON, epoch=epoch, value=value, n_competitors=len(others), reason=reason)
    threshold = float(np.percentile(others, 100.0 - percentile))
    verb = "below" if value < threshold else "not below"
    best = f"the best {percentile:g}% of {len(others)} competitors"
    return _compared(
        epoch, value, threshold, len(others), f"{value:.3f} is {verb} {threshold:.3f}, {best} at epoch {epoch}"
    )


def _against_rung(pruner: Mapping[str, Any], epoch: int, value: float, others: list[float]) -> Decision:
    """Go on only among the best 1/reduction_factor at this rung (ASHA's rule, Li et al. 2020, without pausing)."""
    n_promoted = max(1, (len(others) + 1) // int(pruner["reduction_factor"]))
    ranked = sorted([*others, value], reverse=True)
    threshold = ranked[n_promoted - 1]
    verb = "among" if value >= threshold else "not among"
    reason = f"{value:.3f} is {verb} the best {n_promoted} of {len(ranked)} at rung {epoch} (from {threshold:.3f})"
    return _compared(epoch, value, threshold, len(others), reason)


def _compared(epoch: int, value: float, threshold: float, n_competitors: int, reason: str) -> Decision:
    return Decision(
        verdict=Verdict.PRUNE if value < threshold else Verdict.GO_ON,
        epoch=epoch,
        value=value,
        threshold=threshold,
        n_competitors=n_competitors,
        reason=reason,
    )


def _bracket(pruner: Mapping[str, Any], slot: int, n_epochs: int) -> int:
    """Spread slots over Hyperband's brackets in proportion to their trials (Li et al. 2018, algorithm 1)."""
    factor = int(pruner["reduction_factor"])
    n_brackets = 1
    while int(pruner["min_resource"]) * factor**n_brackets <= n_epochs:
        n_brackets += 1
    budgets = [math.ceil(n_brackets * factor**left / (left + 1)) for left in reversed(range(n_brackets))]
    point = zlib.crc32(str(slot).encode()) % sum(budgets)
    for bracket, budget in enumerate(budgets):
        point -= budget
        if point < 0:
            return bracket
    raise AssertionError("the point lies within the sum of the budgets")
