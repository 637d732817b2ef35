"""Keeps a search within `max_hours`: its device hours, those of its confirmation and those of its retraining.

A trial begins only if the budget pays for it to its last epoch, for all trials that run to theirs, and for confirmation
and retraining at most. The decision is made under the lock of the study, so it is exact for any number of workers. When
a trial that runs is pruned, what it was expected to take is free again. When nothing runs and no further trial fits,
the search is closed: an event records the account, and the slots that did not begin are cancelled. So the end of the
search is on record, whatever the time was. Waiting trials are then decided as at the end of every search.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy
from sqlalchemy import Connection

from mhist_tune.definition.study_file import StudyDefinition, with_epochs
from mhist_tune.errors import UsageError
from mhist_tune.search import costs
from mhist_tune.storage import event_log, ledger, spent, studies, tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.spent import Spent
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.storage.studies import Study

PLAN = "budget"
"""The setting with the plan of a study with `max_hours`: `epoch_s`, `device`, `n_epochs` and `n_trials`."""

CLOSED, RAISED = "budget reached", "budget raised"
"""The kinds of events that record that the budget ended the search, and that a person raised it."""


@dataclass(frozen=True)
class Account:
    """The budget of a study at one moment, in device seconds.

    Attributes:
        budget_s: all that may be spent.
        spent_s: what the recorded epochs of all stages took.
        running_s: what the trials that have begun and are not waiting or ended may still take.
        trial_s: what one more trial takes at most.
        reserved_s: what confirmation and retraining take at most.
    """

    budget_s: float
    spent_s: float
    running_s: float
    trial_s: float
    reserved_s: float

    @property
    def has_room(self) -> bool:
        """Whether one more trial may begin."""
        return self.spent_s + self.running_s + self.trial_s + self.reserved_s <= self.budget_s


@dataclass(frozen=True)
class Reached:
    """The record of a search that its budget has ended.

    Attributes:
        account: at that moment.
        n_begun: number of trials that had begun.
        cancelled: the slots that had not.
    """

    account: Account
    n_begun: int
    cancelled: tuple[int, ...]

    @classmethod
    def from_json(cls, detail: dict[str, Any]) -> "Reached":
        """Return the record of an event's detail."""
        return cls(Account(**detail["account"]), detail["n_begun"], tuple(detail["cancelled"]))


def record_plan(storage: Storage, study: Study, epoch_s: float, device: str) -> Study:
    """Record what the budget pays for, unless it is recorded, and return the study with the plan's number of epochs.

    Args:
        storage: the database of the study.
        study: a study with `max_hours`.
        epoch_s: the measured seconds of an epoch.
        device: the name of the device that was measured.

    Raises:
        UsageError: the budget does not pay for one trial, its confirmation and its retraining. Nothing is recorded.
    """

    def work(connection: Connection) -> Study:
        studies.lock_study(connection, study)
        current = studies.current(connection, study)
        if PLAN in current.settings:
            return current
        picked = costs.pick(current.definition, epoch_s, *studies.n_images(connection, current))
        if not picked.n_trials:
            raise too_small(current, picked, epoch_s)
        plan = {"epoch_s": epoch_s, "device": device, "n_epochs": picked.n_epochs, "n_trials": picked.n_trials}
        definition = current.definition
        if picked.n_epochs != costs.n_epochs(definition):
            definition = with_epochs(definition, picked.n_epochs)
        studies.update(connection, study, settings={**current.settings, PLAN: plan}, definition=definition.to_json())
        return studies.current(connection, study)

    return storage.transaction(work)


def plan_text(study: Study) -> str:
    """Return in one line what the budget of a study with a plan pays for."""
    plan = study.settings[PLAN]
    return pick_text(study.definition, plan["n_trials"], plan["n_epochs"], plan["epoch_s"])


def pick_text(definition: StudyDefinition, n_trials: int, n_epochs: int, epoch_s: float) -> str:
    """Return in one line what a budget pays for."""
    share = "all" if n_trials == definition.n_trials else f"about {n_trials} of"
    return (
        f"{definition.max_hours:.3g} device hours pay for {share} {definition.n_trials} trials of up to {n_epochs} "
        f"epochs, confirmation and retraining, at {epoch_s:.3g} s an epoch"
    )


def too_small(study: Study, picked: costs.Pick, epoch_s: float) -> UsageError:
    """Return the error that a budget does not pay for one trial."""
    name, hours = study.name, picked.needed_s / 3600
    return UsageError(
        f"{name} has a budget of {study.definition.max_hours:.3g} device hours, and one trial, confirmation and "
        f"retraining take up to {hours:.3g} here, at {epoch_s:.3g} s an epoch",
        hint=f"use a faster device, or raise the budget: mhist-tune extend {name} --max-hours {2 * hours:.2g}",
    )


def gate(storage: Storage, study: Study) -> Callable[[Connection], bool] | None:
    """Return what decides whether a further trial may begin, for `ledger.claim`; None for a study without a budget."""
    if study.definition.max_hours is None:
        return None
    return lambda connection: account(connection, storage, study).has_room


def account(connection: Connection, storage: Storage, study: Study) -> Account:
    """Return the budget of a study as the database has it. The study is read again, since a budget can be raised."""
    study = studies.current(connection, study)
    definition = study.definition
    assert definition.max_hours is not None
    slots = tables.slots.c
    running = sqlalchemy.select(slots.slot).where(
        slots.study == study.uuid,
        slots.stage == Stage.SEARCH,
        slots.outcome.is_(None),
        sqlalchemy.or_(
            slots.state == SlotState.LEASED,
            sqlalchemy.and_(slots.state == SlotState.FREE, slots.trial_number.is_not(None)),
        ),
    )
    running_slots = list(connection.execute(running).scalars())
    of_slots = spent.by_slot(connection, storage, study)
    per_stage = spent.by_stage(of_slots)
    epoch_s = spent.typical_epoch_s(of_slots) or study.settings[PLAN]["epoch_s"]
    length = costs.n_epochs(definition)
    left = [length - of_slots.get((Stage.SEARCH, slot), Spent()).n_epochs for slot in running_slots]
    return Account(
        budget_s=definition.max_hours * 3600,
        spent_s=sum(of_stage.seconds for of_stage in per_stage.values()),
        running_s=sum(max(0, n_left) for n_left in left) * epoch_s,
        trial_s=length * epoch_s,
        reserved_s=costs.reserved_s(
            definition, costs.seconds_per_epoch(epoch_s, *studies.n_images(connection, study), definition)
        ),
    )


def close_if_reached(storage: Storage, study: Study) -> Reached | None:
    """Close the search if no trial runs and none of the free slots may begin. Return the record if it was closed now.

    Raises:
        StudyNotFoundError: the study was deleted meanwhile.
    """
    slots = tables.slots
    of_search = sqlalchemy.and_(slots.c.study == study.uuid, slots.c.stage == Stage.SEARCH)
    is_new = sqlalchemy.and_(of_search, slots.c.state == SlotState.FREE, slots.c.trial_number.is_(None))
    is_begun = sqlalchemy.and_(of_search, slots.c.trial_number.is_not(None))
    is_running = sqlalchemy.or_(
        slots.c.state == SlotState.LEASED, sqlalchemy.and_(is_begun, slots.c.state == SlotState.FREE)
    )

    def work(connection: Connection) -> Reached | None:
        studies.lock_study(connection, study)
        new = list(connection.execute(sqlalchemy.select(slots.c.slot).where(is_new).order_by(slots.c.slot)).scalars())
        if not new or connection.execute(sqlalchemy.select(slots.c.slot).where(of_search, is_running)).first():
            return None
        found = account(connection, storage, study)
        if found.has_room:
            return None
        begun = sqlalchemy.select(sqlalchemy.func.count()).select_from(slots).where(is_begun)
        reached = Reached(found, connection.execute(begun).scalar_one(), tuple(new))
        connection.execute(sqlalchemy.update(slots).where(is_new).values(state=SlotState.CANCELLED))
        event = {"study": study.uuid, "stage": Stage.SEARCH, "at": storage.clock, "kind": CLOSED}
        detail = {**asdict(reached), "cancelled": new}
        connection.execute(sqlalchemy.insert(tables.events).values(**event, detail=detail))
        return reached

    return storage.transaction(work)


def reached_text(reached: Reached) -> str:
    """Return in one line that the budget ended the search."""
    n_slots = reached.n_begun + len(reached.cancelled)
    hours = f"{reached.account.budget_s / 3600:.3g} device hours"
    return f"{reached.n_begun} of {n_slots} trials begun; the budget of {hours} was reached"


def reached(storage: Storage, study: Study) -> Reached | None:
    """Return the record of the search that its budget has ended; None if it has not, or if the budget was raised."""
    if study.definition.max_hours is None:
        return None
    return storage.read(lambda connection: _reached(connection, study))


def problems(storage: Storage, study: Study) -> list[str]:
    """Compare the records of searches that their budget ended with the epochs and the slots; a sentence for each fault.

    The time at which a budget is reached is no function of the params. So it is not derived again: it is on record, and
    the record has to follow from the epochs that were recorded before.
    """
    found = []
    ends = event_log.events(storage, study, kind=CLOSED, stage=Stage.SEARCH)
    for event in ends:
        recorded = Reached.from_json(event.detail).account
        spent_s = spent.seconds_until(storage, study, event.at)
        if not math.isclose(recorded.spent_s, spent_s, rel_tol=1e-6):
            found.append(
                f"the search was ended by its budget after {recorded.spent_s:.6g} device seconds, and the epochs until "
                f"then took {spent_s:.6g}"
            )
        if recorded.has_room:
            found.append("the search was ended by its budget, and the recorded account has room for one more trial")
    if ends and (last := reached(storage, study)):
        slots = ledger.slots(storage, study, Stage.SEARCH)
        n_begun = sum(slot.trial_number is not None for slot in slots)
        if last.n_begun != n_begun:
            found.append(
                f"the end of the search by its budget is recorded after {last.n_begun} trials, and {n_begun} have begun"
            )
    return found


def raise_to(storage: Storage, study: Study, max_hours: float, *, by: str) -> Study:
    """Raise the budget, free the slots that it had cancelled, and return the changed study.

    The definition keeps the hash and the text that it was created with.

    Raises:
        UsageError: the study has no budget of hours, or it would not grow.
    """
    slots, name = tables.slots, study.name

    def work(connection: Connection) -> Study:
        studies.lock_study(connection, study)
        definition = studies.current(connection, study).definition
        if definition.max_hours is None:
            raise UsageError(f"{name} was created without max_hours", hint="its number of trials is its budget")
        if max_hours == definition.max_hours:
            return studies.current(connection, study)  # a repeated call
        if max_hours < definition.max_hours:
            raise UsageError(f"{name} has a budget of {definition.max_hours:g} device hours, which may only grow")
        before = _reached(connection, study)
        studies.update(connection, study, definition=replace(definition, max_hours=max_hours).to_json())
        can_begin = sqlalchemy.and_(
            slots.c.study == study.uuid,
            slots.c.stage == Stage.SEARCH,
            slots.c.state == SlotState.CANCELLED,
            slots.c.slot.in_(before.cancelled if before else ()),
        )
        connection.execute(sqlalchemy.update(slots).where(can_begin).values(state=SlotState.FREE))
        event = {"study": study.uuid, "stage": Stage.SEARCH, "at": storage.clock, "kind": RAISED}
        detail = {"before": definition.max_hours, "after": max_hours, "by": by}
        connection.execute(sqlalchemy.insert(tables.events).values(**event, detail=detail))
        return studies.current(connection, study)

    return storage.transaction(work)


def _reached(connection: Connection, study: Study) -> Reached | None:
    events = tables.events.c
    query = sqlalchemy.select(events.kind, events.detail).order_by(events.id.desc()).limit(1)
    last = connection.execute(query.where(events.study == study.uuid, events.kind.in_((CLOSED, RAISED)))).first()
    return Reached.from_json(last.detail) if last is not None and last.kind == CLOSED else None
