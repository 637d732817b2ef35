"""The state of a study: slots, trials, workers, and its best trial.

Modules that need NumPy are imported inside functions. Loading NumPy takes a fifth of the time of `status`, and is
needed only if finalists are confirmed or workers train.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mhist_tune import words
from mhist_tune.definition.scores import Score
from mhist_tune.report import holders, stage_costs
from mhist_tune.report.holders import AbandonedSlot, WorkerStatus
from mhist_tune.report.stage_costs import Budget, Cost
from mhist_tune.search import race, selection
from mhist_tune.storage import ledger
from mhist_tune.storage.database import Storage
from mhist_tune.storage.event_log import VERSION, events
from mhist_tune.storage.openings import openings_of_images
from mhist_tune.storage.outcome import EndState
from mhist_tune.storage.slot_rows import AnySlot, StudySlots
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.storage.studies import CODE_VERSION, Study

if TYPE_CHECKING:
    from mhist_tune.report.confirmation import Confirmed
    from mhist_tune.report.more_trials import MoreTrials

_N_TIMED = 20  # finished trials, whose mean time estimates the time of the rest
STATE_KEYS = {SlotState.WAITING: "paused"}  # the key that programs know


@dataclass(frozen=True)
class BestTrial:
    """The trial to go on with: the search's best until its finalists are confirmed, and then the best confirmed one.

    Attributes:
        score: the score that `value` is of.
        value: its objective in the search; None where a confirmed default did not complete there.
        confirm: None before the finalists are confirmed.
    """

    number: int | None
    slot: int
    score: Score
    value: float | None
    standard_error: float | None
    best_epoch: int | None
    stopped_epoch: int | None
    params: dict[str, Any]
    confirm: "Confirmed | None"


@dataclass(frozen=True)
class BestOfSearch(BestTrial):
    """The best trial of a search.

    Attributes:
        n_ties: number of others that lie within the standard error of its value.
        is_trivial: whether its model calls all validation images one class; texts do not call it the best then.
    """

    n_ties: int
    is_trivial: bool


@dataclass(frozen=True)
class BestOfTable(BestTrial):
    """The first seed of the best row of a table; `value` is the mean over the row's `n_seeds` complete seeds."""

    label: str
    n_seeds: int


@dataclass(frozen=True)
class OpeningOfImages:
    """An opening of the study's test images.

    Attributes:
        study: the name of the study; None for one that an older version deleted.
        opened_at: in UTC.
        failed: why it failed before any prediction; None if it did not.
    """

    id: int
    study: str | None
    opened_at: str
    reason: str | None
    failed: str | None


@dataclass(frozen=True)
class Status:
    """The state of a study.

    Attributes:
        stages: number of slots by stage and state.
        trials: number of ended search trials by Optuna's state.
        n_trivial: number of ended or waiting trials whose model calls all validation images one class.
        trivial_f1: the F1 of a model that calls them all SSA; None without a trivial trial.
        abandoned: slots whose lease has run out.
        time_left_s: for the rest of the search; None if no worker is active, or nothing is known.
        test_openings: how often the study opened the test partition.
        code_versions: the versions of the code that trained it, the first worker's first.
        cost: planned and spent; None where it is not asked for.
        budget: of a study with `max_hours`; None for others.
        openings: of the same test images by all studies, deleted ones too, in their order.
        dropped_finalists: a clause for each finalist that the race dropped.
        more_trials: what more trials are expected to bring; None for a table, and on pages that are refreshed.
    """

    study: str
    state: str
    settings: dict[str, Any]
    stages: dict[str, dict[str, int]]
    trials: dict[str, int]
    n_trivial: int
    trivial_f1: float | None
    best: BestTrial | None
    workers: list[WorkerStatus]
    abandoned: list[AbandonedSlot]
    time_left_s: float | None
    test_openings: int
    code_versions: list[str]
    openings: list[OpeningOfImages]
    budget: Budget | None = None
    cost: Cost | None = None
    more_trials: "MoreTrials | None" = None
    dropped_finalists: list[str] = field(default_factory=list)


def of_study(storage: Storage, study: Study) -> Status:
    """Return the state of a study, with its cost."""
    slots = ledger.all_slots(storage, study)
    found = summary(storage, study, slots, best(storage, study, slots))
    n_workers = sorted({len(found.workers) or 1, *stage_costs.N_WORKERS})
    found = replace(found, cost=stage_costs.of_study(storage, study, slots, n_workers))
    if study.definition.rows or not any(found.trials.values()):
        return found

    from mhist_tune.report import more_trials  # with NumPy

    return replace(found, more_trials=more_trials.of_slots(storage, study, slots))


def summary(storage: Storage, study: Study, slots: StudySlots, best: BestTrial | None) -> Status:
    """Return what `of_study` does but the cost, from the slots of the study and the best of them."""
    states = Counter(slot.outcome.state for slot in slots.search if slot.outcome)
    n_trivial = sum(map(selection.is_trivial, slots.search))
    workers, abandoned = holders.of_slots(storage, study, [slot for stage in Stage for slot in slots.of(stage)])
    openings = openings_of_images(storage, study)
    return Status(
        study=study.name,
        state=study.state,
        settings=study.settings,
        code_versions=code_versions(storage, study),
        stages={
            stage: dict(Counter(STATE_KEYS.get(slot.state, slot.state) for slot in slots.of(stage))) for stage in Stage
        },
        trials={state: states[state] for state in EndState},
        n_trivial=n_trivial,
        trivial_f1=_trivial_f1(storage, study) if n_trivial else None,
        best=best,
        workers=workers,
        abandoned=abandoned,
        time_left_s=_time_left_s(storage, study, slots.search, workers),
        test_openings=sum(row.is_look for row in openings if row.study == study.uuid),
        openings=[
            OpeningOfImages(row.id, row.study_name, words.utc(row.opened_at), row.reason, row.failed)
            for row in openings
        ],
        budget=stage_costs.budget_of(storage, study, slots),
        dropped_finalists=[
            f"trial {one.trial} {one.in_words(study.definition.score_name)}"
            for one in race.dropped(race.recorded(storage, study))
        ],
    )


def _trivial_f1(storage: Storage, study: Study) -> float:
    """Return the validation F1 of a model that calls every image SSA: 2 p / (1 + p) with a share p of SSA images."""
    from mhist_tune.storage.predictions import image_rows  # imports NumPy

    labels = image_rows(storage, study, "val").labels
    return 2 * float(labels.sum()) / (len(labels) + float(labels.sum()))


def best(storage: Storage, study: Study, slots: StudySlots | None = None) -> BestTrial | None:
    """Return the trial to go on with, if any is complete. That costs a bootstrap where finalists are confirmed.

    Args:
        storage: where the study is.
        study: the study.
        slots: of the study; loaded if None.
    """
    if slots is None:
        slots = ledger.all_slots(storage, study)
    searched = slots.search
    slot, confirmed, candidate = selection.best(study, searched), None, None
    if slot and slots.confirm:
        from mhist_tune.report import confirmation
        from mhist_tune.search import finalists  # with NumPy

        found = finalists.of_slots(storage, study, searched, slots.confirm)
        slot = finalists.final_choice(study, searched, found)
        if found and found.chosen:
            candidate, confirmed = found.chosen.candidate, confirmation.document(found)
    if slot is None or slot.outcome is None:
        return None
    outcome = slot.outcome
    if candidate:
        outcome = replace(outcome, params=candidate.params, value=candidate.search_value)
    row = selection.best_row(study, searched)
    common: dict[str, Any] = {
        "number": slot.trial_number,
        "slot": slot.slot,
        "score": study.definition.score,
        "value": outcome.value if row is None else row.mean,
        "standard_error": outcome.standard_error,
        "best_epoch": outcome.best_epoch,
        "stopped_epoch": outcome.stopped_epoch,
        "params": outcome.params,
        "confirm": confirmed,
    }
    if row is not None:
        return BestOfTable(**common, label=row.label, n_seeds=len(row.slots))
    return BestOfSearch(**common, n_ties=len(selection.ties(slot, searched)), is_trivial=selection.is_trivial(slot))


def code_versions(storage: Storage, study: Study) -> list[str]:
    """Return the versions of the code that trained a study, the first worker's first."""
    first = study.settings.get(CODE_VERSION)
    others = [event.detail["code_version"] for event in events(storage, study, kind=VERSION)]
    return list(dict.fromkeys([first, *others] if first else others))


def _time_left_s(
    storage: Storage, study: Study, slots: Sequence[AnySlot], workers: Sequence[WorkerStatus]
) -> float | None:
    """Return how long the present workers need for the rest of the search; None if that is not known."""
    n_workers = len([worker for worker in workers if worker.stage == Stage.SEARCH])
    done = [slot for slot in slots if slot.state == SlotState.DONE][-_N_TIMED:]
    if not n_workers or not done:
        return None

    from mhist_tune.storage.epochs import elapsed_s  # imports NumPy

    leased = [slot for slot in slots if slot.state == SlotState.LEASED]
    spent_s = elapsed_s(storage, study, Stage.SEARCH, [slot.slot for slot in [*done, *leased]])
    mean_s = sum(spent_s.get(slot.slot, 0.0) for slot in done) / len(done)
    n_free = sum(slot.state == SlotState.FREE for slot in slots)
    rest_s = sum(max(0.0, mean_s - spent_s.get(slot.slot, 0.0)) for slot in leased)
    return (n_free * mean_s + rest_s) / n_workers
