"""Successive halving that pauses: who goes on from a rung, who waits there, and who never can.

ASHA's promotion rule (Li et al. 2020, algorithm 2): of n trials that have arrived at a rung the best
n // reduction_factor go on. The rule is asked whenever a trial arrives, the only moment at which its answer changes. A
trial that is not among the best waits; it is promoted as soon as later, worse arrivals let it be, and pruned as soon
as it could not be promoted even if every slot still to come did worse, so that no checkpoint is kept in vain.

Everything here is a pure function of the arrivals in their order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mhist_tune.pruning import Decision


@dataclass
class Rung:
    """What has happened at one rung so far.

    Attributes:
        epoch: at which trials arrive, 1-based.
        values: each arrived slot's best value up to `epoch`.
        waiting: the slots among them that neither went on nor were pruned.
        n_promoted: how many went on.
    """

    epoch: int
    values: dict[int, float] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    n_promoted: int = 0

    def take(self, slot: int, decision: Decision) -> None:
        """Take note of a decision about `slot`, be it an arrival or a later one."""
        self.values[slot] = decision.value
        self.waiting.discard(slot)
        if decision.pause:
            self.waiting.add(slot)
        elif not decision.prune:
            self.n_promoted += 1

    def ranked(self) -> list[int]:
        """Return the arrived slots, the best first; of equal ones the lower number."""
        return sorted(self.values, key=lambda slot: (-self.values[slot], slot))


def arrive(rung: Rung, slot: int, value: float, *, reduction_factor: int, n_slots: int) -> dict[int, Decision]:
    """Let `slot` arrive, and return all that follows for slots at this rung; `rung` stays as it is.

    Args:
        rung: before the arrival.
        slot: not among `rung.values`.
        value: its best value so far.
        reduction_factor: one in so many goes on.
        n_slots: how many slots the search has; no more than these can ever arrive.

    Returns:
        The decision on each slot that one is taken on, the arriving one's first.
    """
    after = Rung(rung.epoch, {**rung.values, slot: value}, {*rung.waiting, slot}, rung.n_promoted)
    ranked = after.ranked()
    n_best, n_ever = len(ranked) // reduction_factor, max(1, n_slots // reduction_factor)
    decisions = {slot: _waits(after, ranked, slot, n_best)}
    for rank, other in enumerate(ranked, 1):
        if other in after.waiting and rank <= n_best:
            decisions[other] = _promoted(after, ranked, other, n_best)
        elif other in after.waiting and rank > n_ever:
            reason = (
                f"{after.values[other]:.3f} is number {rank} at rung {rung.epoch}, where at most {n_ever} can go on"
            )
            decisions[other] = _decision(after, ranked, other, n_ever, reason, prune=True)
    return decisions


def settle(rungs: Iterable[Rung], *, reduction_factor: int) -> dict[int, Decision]:
    """Return what becomes of the waiting slots when every other one has ended; empty if none waits.

    Where a rung had too few arrivals for anyone to go on, its best one does, so that a search ends with a complete
    trial. Only when there is no such rung, all that wait are pruned.
    """
    rungs = list(rungs)
    for rung in rungs:
        if rung.waiting and not rung.n_promoted:
            ranked = rung.ranked()
            return {ranked[0]: _promoted(rung, ranked, ranked[0], 1)}
    closed = {}
    for rung in rungs:
        ranked = rung.ranked()
        n_best = max(1, len(ranked) // reduction_factor)
        for slot in sorted(rung.waiting):
            closed[slot] = _decision(rung, ranked, slot, n_best, _compared(rung, ranked, slot, n_best), prune=True)
    return closed


def can_go_on(value: float, others: Sequence[float], *, reduction_factor: int) -> bool:
    """Tell whether a trial is among the best of a rung at which all `others` have arrived, one at least."""
    n_best = max(1, (len(others) + 1) // reduction_factor)
    return sum(other > value for other in others) < n_best


def _promoted(rung: Rung, ranked: list[int], slot: int, n_best: int) -> Decision:
    return _decision(rung, ranked, slot, n_best, _compared(rung, ranked, slot, n_best))


def _waits(rung: Rung, ranked: list[int], slot: int, n_best: int) -> Decision:
    reason = (
        _compared(rung, ranked, slot, n_best)
        if n_best
        else (f"{rung.values[slot]:.3f} waits at rung {rung.epoch}: too few trials have arrived there for one to go on")
    )
    return _decision(rung, ranked, slot, n_best, reason, pause=True)


def _compared(rung: Rung, ranked: list[int], slot: int, n_best: int) -> str:
    verb = "among" if slot in ranked[:n_best] else "not among"
    from_value = rung.values[ranked[n_best - 1]]
    value = rung.values[slot]
    return f"{value:.3f} is {verb} the best {n_best} of {len(ranked)} at rung {rung.epoch} (from {from_value:.3f})"


def _decision(
    rung: Rung, ranked: list[int], slot: int, n_best: int, reason: str, *, prune: bool = False, pause: bool = False
) -> Decision:
    threshold = rung.values[ranked[n_best - 1]] if 0 < n_best <= len(ranked) else None
    return Decision(prune, rung.epoch, rung.values[slot], threshold, len(ranked) - 1, reason, pause)
