"""Applies the rule `promotion` in the database: arrivals at rungs, promotions, waiting slots.

Decisions are made one after another under the lock of the study, and each is recorded as an event. So the ids of these
events give the order of the arrivals, and a process reads only new events. All decisions that follow from an arrival
are written in the same transaction.

The slot of a waiting trial is `waiting`, with the outcome that it gets unless it is promoted. A promoted slot becomes
`free` and is claimed before all others. A pruned one becomes `free` too: the worker that claims it removes its
checkpoints.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, Connection, Row

from mhist_tune.definition.scores import sets_trivial_apart
from mhist_tune.errors import UsageError
from mhist_tune.search import promotion
from mhist_tune.search.promotion import Rung
from mhist_tune.search.pruning import is_audited
from mhist_tune.storage import announcements, damage, studies, tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.decision import Decision, Verdict
from mhist_tune.storage.leases import Claim, fence, is_held
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.storage.studies import Study

KIND = "rung"
"""The kind of event that holds a decision about a slot at a rung."""

_CLOSING = 1_000_000  # the priority of pruned slots, which a worker has only to finish


class RungBook:
    """The rungs of one stage of a study, as far as this process has read them.

    Args:
        storage: the database of the study.
        study: its pruner is `promotion`.
        stage: the stage of the slots.
    """

    def __init__(self, storage: Storage, study: Study, stage: Stage) -> None:
        self._storage, self._study, self._stage = storage, study, stage
        self._rungs: dict[int, Rung] = {}
        self._latest: dict[tuple[int, int], Decision] = {}  # by slot and epoch
        self._last_event = 0

    def arrive(self, claim: Claim, *, epoch: int, value: float, if_not_promoted: Outcome) -> Decision:
        """Let the claimed slot arrive at a rung, and return the decision.

        If it arrived there before, the latest decision about it is returned and nothing is written.

        Args:
            claim: must still hold. It ends here if the trial has to wait.
            epoch: the epoch of the rung, already recorded.
            value: the trial's value up to that epoch.
            if_not_promoted: the outcome of the slot if it waits and is never promoted; its `reason` and `decision` are
                set here.

        Raises:
            StaleTokenError: the claim no longer holds.
        """

        def work(connection: Connection) -> Decision:
            studies.lock_study(connection, self._study)
            fence(connection, claim)
            self._read_news(connection)
            if (known := self._latest.get((claim.slot, epoch))) is not None:
                return known
            n_slots = connection.execute(
                sqlalchemy.select(sqlalchemy.func.count()).where(
                    self._is_stage, tables.slots.c.state != SlotState.CANCELLED
                )
            ).scalar_one()
            definition = self._study.definition
            is_trivial = bool(if_not_promoted.is_trivial) and sets_trivial_apart(definition.score, definition.at)
            rung = self._rungs.get(epoch, Rung(epoch))
            decisions = promotion.arrive(
                rung,
                claim.slot,
                value,
                reduction_factor=self._study.definition.pruner["reduction_factor"],
                n_slots=n_slots,
                is_trivial=is_trivial,
                tie_break=if_not_promoted.tie_break,
            )
            if is_audited(self._study.definition.pruner, claim.slot):
                decisions = {claim.slot: decisions[claim.slot].for_audit()}
            own = decisions[claim.slot]
            if own.verdict is Verdict.WAIT:
                waits = {
                    "state": SlotState.WAITING,
                    "expires_at": None,
                    "if_not_promoted": _with_reason(if_not_promoted, own),
                }
                connection.execute(sqlalchemy.update(tables.slots).where(is_held(claim)).values(waits))
            facts: dict[str, Any] = {"is_trivial": True} if is_trivial else {}
            if if_not_promoted.tie_break is not None:
                facts["tie_break"] = if_not_promoted.tie_break
            n_freed = self._write(connection, decisions, {claim.slot: facts}, arrived=claim.slot, n_slots=n_slots)
            if n_freed > (own.verdict is Verdict.WAIT):  # the worker of a trial that waits claims one itself
                announcements.announce(connection, self._study.uuid)
            return own

        return self._storage.transaction(work)

    def close(self) -> None:
        """Promote or prune the waiting trials, unless a free or leased slot may still arrive."""

        def work(connection: Connection) -> None:
            studies.lock_study(connection, self._study)
            is_open = tables.slots.c.state.in_((SlotState.FREE, SlotState.LEASED))
            if connection.execute(
                sqlalchemy.select(tables.slots.c.slot).where(self._is_stage, is_open).limit(1)
            ).first():
                return
            self._read_news(connection)
            rungs = [self._rungs[epoch] for epoch in sorted(self._rungs)]
            self._write(
                connection, promotion.close(rungs, reduction_factor=self._study.definition.pruner["reduction_factor"])
            )
            announcements.announce(connection, self._study.uuid)

        self._storage.transaction(work)

    def thaw(self, number: int) -> Decision:
        """Promote the waiting trial of that number by hand, and return the decision.

        Raises:
            UsageError: there is no such trial, or it does not wait.
        """
        slots = tables.slots.c
        query = sqlalchemy.select(slots.slot, slots.state, slots.outcome)

        def work(connection: Connection) -> Decision:
            studies.lock_study(connection, self._study)
            row = connection.execute(query.where(self._is_stage, slots.trial_number == number)).first()
            if row is None or row.state != SlotState.WAITING:
                raise self._not_waiting(number, row)
            self._read_news(connection)
            rung = next(rung for rung in self._rungs.values() if row.slot in rung.waiting)
            decision = Decision(
                verdict=Verdict.GO_ON,
                epoch=rung.epoch,
                value=rung.values[row.slot],
                n_competitors=len(rung.values) - 1,
                reason="continued by hand",
            )
            self._write(connection, {row.slot: decision})
            announcements.announce(connection, self._study.uuid)
            return decision

        return self._storage.transaction(work)

    def give_up(self, slot: int) -> bool:
        """Prune a waiting slot, whose checkpoint takes the space that others need.

        Returns:
            False if the slot does not wait any more; then nothing is written.
        """
        slots = tables.slots.c
        waits = sqlalchemy.and_(self._is_stage, slots.slot == slot, slots.state == SlotState.WAITING)

        def work(connection: Connection) -> bool:
            studies.lock_study(connection, self._study)
            if connection.execute(sqlalchemy.select(slots.slot).where(waits)).first() is None:
                return False
            self._read_news(connection)
            rung = next(rung for rung in self._rungs.values() if slot in rung.waiting)
            decision = Decision(
                verdict=Verdict.PRUNE,
                epoch=rung.epoch,
                value=rung.values[slot],
                n_competitors=len(rung.values) - 1,
                reason=f"{rung.values[slot]:.3f} is the least promising that waits, at rung {rung.epoch}, and the "
                "space for checkpoints is full",
            )
            self._write(connection, {slot: decision})
            return True

        return self._storage.transaction(work)

    def _not_waiting(self, number: int, row: Row[Any, Any, Any] | None) -> UsageError:
        name = self._study.name
        if row is None:
            return UsageError(f"{name} has no trial {number}", hint=f"mhist-tune status {name}")
        is_pruned = row.outcome is not None and row.outcome.state is EndState.PRUNED
        state = "was pruned, and its checkpoint is gone" if is_pruned else "does not wait"
        hint = 'a trial can be continued while it waits at a rung of the pruner "promotion"'
        return UsageError(f"trial {number} of {name} {state}", hint=hint)

    @property
    def _is_stage(self) -> ColumnElement[bool]:
        slots = tables.slots.c
        return sqlalchemy.and_(slots.study == self._study.uuid, slots.stage == self._stage)

    def _read_news(self, connection: Connection) -> None:
        events = tables.events.c
        is_new = sqlalchemy.and_(events.study == self._study.uuid, events.stage == self._stage, events.kind == KIND)
        query = sqlalchemy.select(events.id, events.slot, events.detail).where(is_new, events.id > self._last_event)
        for event, slot, detail in connection.execute(query.order_by(events.id)):
            with damage.explained("a decision"):
                decision = Decision.from_json(detail)
            if not is_audited(self._study.definition.pruner, slot):
                rung = self._rungs.setdefault(decision.epoch, Rung(decision.epoch))
                rung.take(slot, decision, is_trivial=detail.get("is_trivial", False), tie_break=detail.get("tie_break"))
            self._latest[slot, decision.epoch] = decision
            self._last_event = event

    def _write(
        self,
        connection: Connection,
        decisions: Mapping[int, Decision],
        facts: Mapping[int, Mapping[str, Any]] = MappingProxyType({}),
        **cause: int,
    ) -> int:
        """Record decisions, free the waiting slots that are promoted or pruned, and return the number of these.

        `facts` is what else is recorded of the arriving slot: that its model is trivial, and its second score.
        """
        epochs, slots = tables.epochs, tables.slots
        n_freed = 0
        for slot, decision in decisions.items():
            is_epoch = sqlalchemy.and_(
                epochs.c.study == self._study.uuid,
                epochs.c.stage == self._stage,
                epochs.c.slot == slot,
                epochs.c.epoch == decision.epoch,
            )
            event = {"study": self._study.uuid, "stage": self._stage, "slot": slot, "at": self._storage.clock}
            detail = {**decision.to_json(), **cause, **facts.get(slot, {})}
            connection.execute(sqlalchemy.insert(tables.events).values(**event, kind=KIND, detail=detail))
            connection.execute(sqlalchemy.update(epochs).where(is_epoch).values(decision=decision))
            if decision.verdict is Verdict.WAIT:
                continue
            waits = sqlalchemy.and_(self._is_stage, slots.c.slot == slot, slots.c.state == SlotState.WAITING)
            outcome = connection.execute(sqlalchemy.select(slots.c.if_not_promoted).where(waits)).scalar()
            if outcome is None:  # the arriving slot, which its worker holds
                continue
            moved: dict[str, Any] = {"state": SlotState.FREE, "if_not_promoted": None, "priority": decision.epoch}
            if decision.verdict is Verdict.PRUNE:
                moved |= {"outcome": _with_reason(outcome, decision), "priority": _CLOSING}
            n_freed += connection.execute(sqlalchemy.update(slots).where(waits).values(moved)).rowcount
        return n_freed


def waiting(storage: Storage, study: Study, stage: Stage) -> dict[int, int]:
    """Return the token of each waiting slot of a stage by the id of its trial. Every claim changes the token."""
    slots = tables.slots.c
    query = sqlalchemy.select(slots.trial_id, slots.token).where(
        slots.study == study.uuid, slots.stage == stage, slots.state == SlotState.WAITING
    )
    return storage.read(lambda connection: {row.trial_id: row.token for row in connection.execute(query)})


def _with_reason(outcome: Outcome, decision: Decision) -> Outcome:
    return replace(outcome, reason=decision.reason, decision=decision)
