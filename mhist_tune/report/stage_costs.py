"""What a study costs: epochs and device hours of its stages, expected, at most and spent. Imports no NumPy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mhist_tune import words
from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.search import budget, costs
from mhist_tune.storage import spent, studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.leases import SlotKey
from mhist_tune.storage.slot_rows import StudySlots
from mhist_tune.storage.spent import Spent
from mhist_tune.storage.stages import OPEN, SlotState, Stage
from mhist_tune.storage.studies import Study

N_WORKERS = (1, 2, 4, 8)
"""The numbers of workers for which the time to the report is given."""

_NAMES = {Stage.SEARCH: "search", Stage.CONFIRM: "confirm", Stage.RETRAIN: "retraining"}


@dataclass(frozen=True)
class StageCost:
    """The cost of one stage, or of all.

    Attributes:
        epochs: expected number of epochs.
        epochs_at_most: the largest number.
        epochs_spent: the number recorded so far.
        hours: expected device hours; None where the time of an epoch is not known, as is `hours_at_most`.
        hours_spent: the device hours of the recorded epochs.
    """

    epochs: int
    epochs_at_most: int
    epochs_spent: int
    hours: float | None
    hours_at_most: float | None
    hours_spent: float


@dataclass(frozen=True)
class TimeToReport:
    """Hours until the retraining is done with a number of workers, each on a device like those that were measured."""

    n_workers: int
    hours: float


@dataclass(frozen=True)
class Cost:
    """The cost of a study up to its report.

    Attributes:
        in_all: the sum over the three stages.
        seconds_per_epoch: of the search; None where nothing is known yet.
        seconds_from: where that is from: the study's own epochs, a probe, or earlier studies.
        time_to_report: for several numbers of workers; empty where `seconds_per_epoch` is not known.
    """

    search: StageCost
    confirm: StageCost
    retrain: StageCost
    in_all: StageCost
    seconds_per_epoch: float | None
    seconds_from: str | None
    time_to_report: list[TimeToReport]


@dataclass(frozen=True)
class Budget:
    """The budget of a study with `max_hours`.

    Attributes:
        hours: the device hours that it may take.
        n_begun: number of trials that have begun.
        n_slots: number of trials that it has, begun or not.
        is_reached: whether the budget has ended the search.
        plan: what the first worker found that it pays for; None before.
    """

    hours: float
    n_begun: int
    n_slots: int
    is_reached: bool
    plan: str | None


def of_study(storage: Storage, study: Study, slots: StudySlots, n_workers: Sequence[int] = N_WORKERS) -> Cost:
    """Return the cost of a study, planned and spent."""
    spent_by_slot = storage.read(lambda connection: spent.by_slot(connection, storage, study))
    spent_by_stage = spent.by_stage(spent_by_slot)
    n_train, n_val = storage.read(lambda connection: studies.n_images(connection, study))
    epoch_s, source = _epoch_s(study, spent_by_slot, n_train, n_val)
    n_trials = sum(slot.state is not SlotState.CANCELLED for slot in slots.search)
    planned = costs.planned(study.definition, n_trials)
    for stage in costs.STAGES:
        rows = slots.of(stage)
        is_over = bool(rows) and not any(slot.state in OPEN for slot in rows)
        if is_over:
            n_spent = spent_by_stage[stage].n_epochs
            planned[stage] = costs.Epochs(n_spent, n_spent)
    return document(
        study.definition, planned, epoch_s, source, n_train, n_val, spent_by_stage=spent_by_stage, n_workers=n_workers
    )


def document(
    definition: StudyDefinition,
    planned: Mapping[Stage, costs.Epochs],
    epoch_s: float | None,
    source: str | None,
    n_train: int,
    n_val: int,
    *,
    spent_by_stage: Mapping[Stage, Spent] | None = None,
    n_workers: Sequence[int] = N_WORKERS,
) -> Cost:
    """Return the cost of a definition.

    Args:
        definition: of the study.
        planned: the epochs of each stage.
        epoch_s: seconds of an epoch of the search; None where that is not known.
        source: where they are from.
        n_train: number of images that the search trains on.
        n_val: number of validation images.
        spent_by_stage: what is recorded; None before the study exists.
        n_workers: the numbers of workers for which the time to the report is given.
    """
    spent_by_stage = spent_by_stage or {}
    per_epoch_s = None if epoch_s is None else costs.seconds_per_epoch(epoch_s, n_train, n_val, definition)
    of_stages = {
        stage: _stage_cost(
            planned[stage], spent_by_stage.get(stage, Spent()), per_epoch_s[stage] if per_epoch_s else None
        )
        for stage in costs.STAGES
    }
    times = []
    if per_epoch_s is not None:
        times = [TimeToReport(n, _hours_to_report(definition, of_stages, per_epoch_s, n)) for n in n_workers]
    return Cost(
        search=of_stages[Stage.SEARCH],
        confirm=of_stages[Stage.CONFIRM],
        retrain=of_stages[Stage.RETRAIN],
        in_all=_sum(list(of_stages.values())),
        seconds_per_epoch=epoch_s,
        seconds_from=source,
        time_to_report=times,
    )


def budget_of(storage: Storage, study: Study, slots: StudySlots) -> Budget | None:
    """Return the budget of a study with `max_hours`; None for others."""
    hours = study.definition.max_hours
    if hours is None:
        return None
    reached = budget.reached(storage, study)
    n_begun = sum(slot.trial_number is not None for slot in slots.search)
    n_kept = sum(slot.state is not SlotState.CANCELLED for slot in slots.search)
    return Budget(
        hours=hours,
        n_begun=n_begun,
        n_slots=n_kept + (len(reached.cancelled) if reached else 0),
        is_reached=reached is not None,
        plan=budget.plan_text(study) if budget.PLAN in study.settings else None,
    )


def to_lines(cost: Cost) -> list[str]:
    """Return the cost as a table of text and a line on the time to the report."""
    has_spent = cost.in_all.epochs_spent > 0
    head = ["", "epochs", "at most", "device h", "at most"]
    rows = [[*head, *(("spent", "epochs") if has_spent else ())]]
    named = {**{_NAMES[stage]: getattr(cost, stage) for stage in costs.STAGES}, "in all": cost.in_all}
    for name, of_stage in named.items():
        row = [
            name,
            f"{of_stage.epochs:,}",
            f"{of_stage.epochs_at_most:,}",
            _h(of_stage.hours),
            _h(of_stage.hours_at_most),
        ]
        rows.append([*row, *((f"{_h(of_stage.hours_spent)} h", f"{of_stage.epochs_spent:,}") if has_spent else ())])
    lines = words.text_table(rows)
    if cost.time_to_report:
        times = ", ".join(f"{_h(time.hours)} h with {time.n_workers}" for time in cost.time_to_report)
        noun = "worker" if [time.n_workers for time in cost.time_to_report] == [1] else "workers"
        lines.append(
            f"report in about {times} {noun}, at {cost.seconds_per_epoch:.3g} s an epoch (from {cost.seconds_from})"
        )
    return lines


def budget_text(of_study: Budget) -> str:
    """Return the state of a budget in one line."""
    begun = f"{of_study.n_begun} of {of_study.n_slots} trials begun"
    if of_study.is_reached:
        return f"{begun}; the budget of {of_study.hours:.3g} device hours was reached"
    return f"{begun}; {of_study.plan or f'the budget is {of_study.hours:.3g} device hours'}"


def _epoch_s(study: Study, of_slots: dict[SlotKey, Spent], n_train: int, n_val: int) -> tuple[float | None, str | None]:
    """Return the seconds of an epoch of the search, and where they are from."""
    plan, probed = study.settings.get(budget.PLAN), study.settings.get("probed", {})
    chosen = [
        timing["images_per_s"]
        for timing in probed.get("timings", ())
        if all(timing.get(name, "off") == probed.get(name, "off") for name in ("precision", "memory_format", "compile"))
    ]
    if (typical_s := spent.typical_epoch_s(of_slots)) is not None:
        return typical_s, "its own epochs"
    if plan is not None:
        return plan["epoch_s"], "a probe"
    if chosen and chosen[0]:
        return costs.n_images_trained(n_train, n_val) / chosen[0], "the probe of its settings"
    searched = spent.by_stage(of_slots)[Stage.SEARCH]
    return (searched.seconds / searched.n_epochs, "its own epochs") if searched.n_epochs else (None, None)


def _stage_cost(planned: costs.Epochs, so_far: Spent, per_epoch_s: float | None) -> StageCost:
    def hours(n_epochs: int) -> float | None:
        """What is spent counts as it was, the rest at the time of an epoch."""
        if per_epoch_s is None:
            return None
        return (so_far.seconds + max(0, n_epochs - so_far.n_epochs) * per_epoch_s) / 3600

    return StageCost(
        epochs=max(planned.expected, so_far.n_epochs),
        epochs_at_most=max(planned.at_most, so_far.n_epochs),
        epochs_spent=so_far.n_epochs,
        hours=hours(planned.expected),
        hours_at_most=hours(planned.at_most),
        hours_spent=so_far.seconds / 3600,
    )


def _sum(stages: Sequence[StageCost]) -> StageCost:
    hours = [(one.hours, one.hours_at_most) for one in stages]
    expected, at_most = (
        None if any(value is None for value in column) else math.fsum(value or 0.0 for value in column)
        for column in zip(*hours, strict=True)
    )
    return StageCost(
        epochs=sum(one.epochs for one in stages),
        epochs_at_most=sum(one.epochs_at_most for one in stages),
        epochs_spent=sum(one.epochs_spent for one in stages),
        hours=expected,
        hours_at_most=at_most,
        hours_spent=math.fsum(one.hours_spent for one in stages),
    )


def _hours_to_report(
    definition: StudyDefinition,
    of_stages: Mapping[Stage, StageCost],
    per_epoch_s: Mapping[Stage, float],
    n_workers: int,
) -> float:
    """Return the hours that `n_workers` need for what is left: whole trainings after the search, side by side."""
    length, total = costs.n_epochs(definition), 0.0
    for stage, of_stage in of_stages.items():
        left = max(0, of_stage.epochs - of_stage.epochs_spent)
        if stage is Stage.SEARCH:
            epochs = max(left / n_workers, min(left, length))
        else:
            epochs = math.ceil(left / length / n_workers) * length if n_workers > 1 else left
        total += epochs * per_epoch_s[stage]
    return total / 3600


def _h(hours: float | None) -> str:
    return "-" if hours is None else f"{hours:.2g}" if hours < 10 else f"{hours:,.0f}"
