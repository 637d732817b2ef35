"""The rule of the pruner `promotion`: which trials go on from a rung, wait or are pruned.

The rule is that of asynchronous successive halving (ASHA; Li et al. 2020, algorithm 2): of n trials that have arrived
at a rung, the best n // reduction_factor go on. It is applied when a trial arrives, because only arrivals change its
result. A trial that is not among the best waits. It is promoted when enough worse trials have arrived. It is pruned
when it could not be promoted even if every remaining slot were worse; its checkpoint is then no longer needed.

Every function here depends only on the arrivals and their order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mhist_tune.storage.decision import Decision, Verdict


@dataclass
class Rung:
    """The state of one rung.

    Attributes:
        epoch: the epoch at which trials arrive, 1-based.
        values: the value up to `epoch` of each slot that has arrived.
        waiting: the arrived slots that were neither promoted nor pruned.
        n_promoted: number of promoted slots.
        trivial: the arrived slots whose model calls all validation images one class.
        tie_breaks: the second score of each arrived slot, in a study by AUROC.
    """

    epoch: int
    values: dict[int, float] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    n_promoted: int = 0
    trivial: set[int] = field(default_factory=set)
    tie_breaks: dict[int, float] = field(default_factory=dict)

    def take(self, slot: int, decision: Decision, *, is_trivial: bool = False, tie_break: float | None = None) -> None:
        """Apply a decision about `slot`, made when it arrived (only then with the other arguments) or later."""
        self.values[slot] = decision.value
        if tie_break is not None:
            self.tie_breaks[slot] = tie_break
        if is_trivial:
            self.trivial.add(slot)
        self.waiting.discard(slot)
        match decision.verdict:
            case Verdict.WAIT:
                self.waiting.add(slot)
            case Verdict.GO_ON:
                self.n_promoted += 1

    def ranked(self) -> list[int]:
        """Return the arrived slots, the highest value first; of equal ones trivial ones last, then by second score."""
        return sorted(
            self.values,
            key=lambda slot: (-self.values[slot], slot in self.trivial, -self.tie_breaks.get(slot, 0.0), slot),
        )


def arrive(
    rung: Rung,
    slot: int,
    value: float,
    *,
    reduction_factor: int,
    n_slots: int,
    is_trivial: bool = False,
    tie_break: float | None = None,
) -> dict[int, Decision]:
    """Return the decisions that follow from the arrival of `slot` at a rung. `rung` is not changed.

    A trivial model does not go on by a tie: it waits while a slot that is not among the best has the same value. Many
    trivial models have exactly the same value.

    Args:
        rung: the rung before the arrival.
        slot: the arriving slot, not in `rung.values`.
        value: its value up to the rung's epoch.
        reduction_factor: one in this many trials goes on.
        n_slots: number of slots of the search, so at most this many can arrive.
        is_trivial: whether its model calls all validation images one class.
        tie_break: its second score at the rung's epoch, in a study by AUROC.

    Returns:
        The decision for each affected slot, that of the arriving slot first.
    """
    trivial = {*rung.trivial, slot} if is_trivial else rung.trivial
    tie_breaks = rung.tie_breaks if tie_break is None else {**rung.tie_breaks, slot: tie_break}
    after = Rung(rung.epoch, {**rung.values, slot: value}, {*rung.waiting, slot}, rung.n_promoted, trivial, tie_breaks)
    ranked = after.ranked()
    n_best, n_ever = len(ranked) // reduction_factor, max(1, n_slots // reduction_factor)
    decisions = {slot: _waits(after, ranked, slot, n_best)}
    for rank, other in enumerate(ranked, 1):
        if other in after.waiting and rank <= n_best and not _is_tied(after, ranked, other, n_best):
            decisions[other] = _promoted(after, ranked, other, n_best)
        elif other in after.waiting and rank > n_ever:
            reason = (
                f"{after.values[other]:.3f} is number {rank} at rung {rung.epoch}, where at most {n_ever} can go on"
            )
            decisions[other] = _decision(after, ranked, other, n_ever, reason, Verdict.PRUNE)
    return decisions


def close(rungs: Iterable[Rung], *, reduction_factor: int) -> dict[int, Decision]:
    """Return the decisions about waiting slots when all other slots have ended; empty if none waits.

    A search must end with a complete trial. So if a rung has waiting slots and promoted none, because too few arrived,
    its best waiting slot is promoted and nothing else is decided. Otherwise all waiting slots are pruned.

    Args:
        rungs: all rungs of the search.
        reduction_factor: as in `arrive`.
    """
    rungs = list(rungs)
    for rung in rungs:
        if rung.waiting and not rung.n_promoted:
            ranked = rung.ranked()
            best = next(slot for slot in ranked if slot in rung.waiting)  # a better one may have made room, see `rungs`
            return {best: _promoted(rung, ranked, best, max(1, ranked.index(best) + 1))}
    decisions = {}
    for rung in rungs:
        ranked = rung.ranked()
        n_best = max(1, len(ranked) // reduction_factor)
        for slot in sorted(rung.waiting):
            decisions[slot] = _decision(
                rung, ranked, slot, n_best, _compared(rung, ranked, slot, n_best), Verdict.PRUNE
            )
    return decisions


def can_go_on(value: float, others: Sequence[float], *, reduction_factor: int) -> bool:
    """Return whether a trial with `value` is among the best at a rung where trials with the values `others` arrived."""
    n_best = max(1, (len(others) + 1) // reduction_factor)
    return sum(other > value for other in others) < n_best


def _promoted(rung: Rung, ranked: list[int], slot: int, n_best: int) -> Decision:
    return _decision(rung, ranked, slot, n_best, _compared(rung, ranked, slot, n_best), Verdict.GO_ON)


def _waits(rung: Rung, ranked: list[int], slot: int, n_best: int) -> Decision:
    reason = (
        _compared(rung, ranked, slot, n_best)
        if n_best
        else (f"{rung.values[slot]:.3f} waits at rung {rung.epoch}: too few trials have arrived there for one to go on")
    )
    return _decision(rung, ranked, slot, n_best, reason, Verdict.WAIT)


def _is_tied(rung: Rung, ranked: list[int], slot: int, n_best: int) -> bool:
    """Return whether a trivial slot has the same value as one that is not among the best."""
    return slot in rung.trivial and n_best < len(ranked) and rung.values[ranked[n_best]] == rung.values[slot]


def _compared(rung: Rung, ranked: list[int], slot: int, n_best: int) -> str:
    verb = "among" if slot in ranked[:n_best] else "not among"
    from_value = rung.values[ranked[n_best - 1]]
    value = rung.values[slot]
    if slot in ranked[:n_best] and _is_tied(rung, ranked, slot, n_best):
        return (
            f"{value:.3f} is tied at rung {rung.epoch}, and a model that calls all validation images one class does "
            "not go on by a tie"
        )
    return f"{value:.3f} is {verb} the best {n_best} of {len(ranked)} at rung {rung.epoch} (from {from_value:.3f})"


def _decision(rung: Rung, ranked: list[int], slot: int, n_best: int, reason: str, verdict: Verdict) -> Decision:
    threshold = rung.values[ranked[n_best - 1]] if 0 < n_best <= len(ranked) else None
    return Decision(
        verdict=verdict,
        epoch=rung.epoch,
        value=rung.values[slot],
        threshold=threshold,
        n_competitors=len(ranked) - 1,
        reason=reason,
    )
