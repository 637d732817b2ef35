"""The rules of the pruners median, percentile, halving and Hyperband, and which one applies.

Each decision is a pure function of recorded values, so it can be repeated and explained. A trial is judged by its value
up to an epoch. Its competitors are all other trials that have recorded the same epoch. Optuna's pruners are not used:
called again after a resumption they answer differently, because successive halving stores the rung before it answers.

A new pruner has its keys in `definition.schema`, its rule here and its sentence in `report.sentences`.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from mhist_tune.storage.decision import Decision, Verdict


def is_audited(pruner: Mapping[str, Any], slot: int) -> bool:
    """Return whether the trial of `slot` is audited: trained to its end regardless of its scores.

    One slot is drawn from each group of 1/`audit` consecutive slots, by its number alone. So the audited trials are a
    sample that no score has influenced. The other trials are judged without them.
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
        values_at: returns, for an epoch, the value by slot of every slot that has recorded it. Called only if needed.
    """
    name = pruner["name"]
    if epoch >= n_epochs or not _is_judged(pruner, slot, epoch, n_epochs):
        return Decision(verdict=Verdict.GO_ON, epoch=epoch, value=value, reason="not a decision point")
    values = values_at(epoch).items()
    others = {other: other_value for other, other_value in values if other != slot and not is_audited(pruner, other)}
    if name == "hyperband":
        bracket = _bracket(pruner, slot, n_epochs)
        others = {other: others[other] for other in others if _bracket(pruner, other, n_epochs) == bracket}
    judge = _against_percentile if name in ("median", "percentile") else _against_rung
    decision = judge(pruner, epoch, value, list(others.values()))
    return decision.for_audit() if is_audited(pruner, slot) else decision


def rungs(pruner: Mapping[str, Any], n_epochs: int, bracket: int = 0) -> list[int]:
    """Return the epochs at which successive halving judges: min_resource x reduction_factor^k, before the last epoch.

    The exponent k starts at `bracket`. With the pruner `promotion`, no rung is above `max_resource`.
    """
    highest = min(n_epochs - 1, int(pruner.get("max_resource", n_epochs)))
    factor = int(pruner["reduction_factor"])
    rung = int(pruner["min_resource"]) * factor**bracket
    epochs = []
    while rung <= highest:
        epochs.append(rung)
        rung *= factor
    return epochs


def _is_judged(pruner: Mapping[str, Any], slot: int, epoch: int, n_epochs: int) -> bool:
    match pruner["name"]:
        case "none" | "promotion":  # `promotion` decides when trials arrive, in `rungs`
            return False
        case "median" | "percentile":
            return epoch > int(pruner["n_warmup_epochs"])
        case "hyperband":
            return epoch in rungs(pruner, n_epochs, _bracket(pruner, slot, n_epochs))
        case "successive_halving":
            return epoch in rungs(pruner, n_epochs)
        case name:
            raise ValueError(f"no rule for the pruner {name!r}")


def _against_percentile(pruner: Mapping[str, Any], epoch: int, value: float, others: list[float]) -> Decision:
    """Go on if the value reaches the best `percentile` percent of the competitors, as in Optuna.

    With 50 it is the median rule of Golovin et al. 2017, section 3.2.
    """
    import numpy as np  # here, because `status` needs the rungs of a pruner, and no NumPy

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
    """Go on only among the best 1/reduction_factor at this rung (ASHA, Li et al. 2020, without waiting trials)."""
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
    """Return the Hyperband bracket of a slot.

    Each bracket gets slots in proportion to its number of trials in Li et al. 2018, algorithm 1.
    """
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
