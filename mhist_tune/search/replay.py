"""Derives every recorded suggestion of a search again and compares it with the trial. Takes the race's looks again.

The input of a suggestion is read from our tables. Optuna's copy of the trials is compared with them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mhist_tune.definition import space
from mhist_tune.errors import UsageError
from mhist_tune.search import budget, race, selection, suggestions
from mhist_tune.search.values import objective
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.epochs import EpochRow, epochs_of
from mhist_tune.storage.slot_rows import SearchSlot
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study
from mhist_tune.words import counted

_TOLERANCE = 1e-9  # another machine's libraries may round the last digit differently


@dataclass(frozen=True)
class Verdict:
    """The result of the comparison for one slot.

    Attributes:
        slot: its number.
        trial: the number of its trial.
        source: `suggested`, `given` (by the definition), or `unrecorded` (by a version that recorded no suggestions).
        problems: a sentence for each difference; empty if there is none.
    """

    slot: int
    trial: int
    source: str
    problems: list[str]


@dataclass(frozen=True)
class RaceReplay:
    """The number of looks of the race, taken again from the predictions, and a sentence for each difference."""

    looks: int
    problems: list[str]


@dataclass(frozen=True)
class Replay:
    """What came of repeating a search. `asdict` is the JSON document of the command.

    Attributes:
        matching: number of slots with a recorded or given suggestion and no problem.
        differing: number of slots with a problem.
        unrecorded: number of slots without a recorded suggestion.
        slots: a verdict on each slot with a trial.
        budget: what is wrong with the record of a search that its budget of hours ended.
        race: what came of repeating the race of the finalists; None where there is none.
    """

    study: str
    matching: int
    differing: int
    unrecorded: int
    slots: list[Verdict]
    budget: list[str]
    race: RaceReplay | None

    @property
    def has_differences(self) -> bool:
        """Whether a suggestion, the budget or a look differs from what is recorded."""
        return bool(self.differing or self.budget or (self.race and self.race.problems))


def replay(storage: Storage, study: Study) -> Replay:
    """Derive every suggestion of a search and every look of the race again, and compare them with the records.

    Raises:
        UsageError: the study is a table of rows, in which nothing is suggested.
    """
    if study.definition.rows:
        raise UsageError(f"{study.name} is a table of rows: nothing in it was suggested")
    slots = [slot for slot in ledger.slots(storage, study, Stage.SEARCH) if slot.trial_number is not None]
    records = {slot: event.detail for slot, event in suggestions.recorded(storage, study, Stage.SEARCH).items()}
    epochs = {slot.slot: epochs_of(storage, study, Stage.SEARCH, slot.slot) for slot in slots}
    study_id = studies.optuna_study_id(storage, study, Stage.SEARCH)
    optuna_trials = storage.retrying(lambda: storage.optuna.get_all_trials(study_id, deepcopy=False))
    mirrored = {trial.number: trial for trial in optuna_trials}
    history = _History(slots, records, epochs)
    verdicts = []
    for slot in slots:
        number = slot.trial_number
        assert number is not None
        params = history.params.get(number)
        problems = _outcome_problems(slot, epochs[slot.slot], study.definition.smoothing)
        if slot.slot in records:
            problems += _suggestion_problems(study, slot.slot, records[slot.slot], history)
        if params is not None and number not in mirrored:
            problems.append("Optuna has no such trial")
        elif params is not None:
            problems += _differences("Optuna's trial", mirrored[number].params, params)
            problems += _differences("the outcome", (slot.outcome and slot.outcome.params) or params, params)
        source = "given" if slot.payload.params is not None else "suggested" if slot.slot in records else "unrecorded"
        verdicts.append(Verdict(slot.slot, number, source, problems))
    return Replay(
        study=study.name,
        matching=sum(not verdict.problems and verdict.source != "unrecorded" for verdict in verdicts),
        differing=sum(bool(verdict.problems) for verdict in verdicts),
        unrecorded=sum(verdict.source == "unrecorded" for verdict in verdicts),
        slots=verdicts,
        budget=budget.problems(storage, study),
        race=RaceReplay(len(race.recorded(storage, study)), race.problems(storage, study))
        if study.definition.races
        else None,
    )


def to_text(document: Replay) -> str:
    """Return the document as text: a line of summary, then a line for each problem."""
    counts = {"matching": document.matching, "differing": document.differing, "unrecorded": document.unrecorded}
    shown = [f"{count} {name}" for name, count in counts.items() if count]
    lines = [f"{document.study}: {', '.join(shown) or 'no trial yet'}"]
    for verdict in document.slots:
        lines += [f"  trial {verdict.trial} (slot {verdict.slot}): {problem}" for problem in verdict.problems]
    lines += [f"  {problem}" for problem in document.budget]
    if document.race is not None:
        found = document.race.problems or ["as recorded"]
        lines.append(f"race of the finalists, {counted(document.race.looks, 'look')}: {'; '.join(found)}")
    return "\n".join(lines)


class _History:
    """What our tables hold by trial number: params, the score of every epoch, and the values of complete trials."""

    def __init__(
        self,
        slots: Sequence[SearchSlot],
        records: Mapping[int, Mapping[str, Any]],
        epochs: Mapping[int, Sequence[EpochRow]],
    ) -> None:
        self.params: dict[int, Mapping[str, Any]] = {}
        self.scores: dict[int, list[float]] = {}
        self.values: dict[int, float] = {}
        for slot in slots:
            number, outcome = slot.trial_number, slot.outcome
            assert number is not None
            params: Mapping[str, Any] | None = slot.payload.params
            if not params:
                params = records[slot.slot]["params"] if slot.slot in records else outcome.params if outcome else None
            if params is not None:
                self.params[number] = params
            self.scores[number] = [math.nan if row.score is None else row.score for row in epochs[slot.slot]]
            if selection.is_complete(slot):
                self.values[number] = selection.value_of(slot)


def _suggestion_problems(study: Study, slot: int, detail: Mapping[str, Any], history: _History) -> list[str]:
    dimensions = {name: space.parse(name, table) for name, table in detail["space"].items()}
    try:
        trials = suggestions.seen_again(
            detail["visible"],
            dimensions,
            params=history.params,
            scores=history.scores,
            values=history.values,
        )
    except (KeyError, IndexError):
        return ["a trial that it was suggested from is not on record any more"]
    derived = suggestions.suggest(study.definition.sampler, slot, dimensions, trials)
    return _differences("the suggestion on record", detail["params"], derived)


def _outcome_problems(slot: SearchSlot, epochs: Sequence[EpochRow], smoothing: int) -> list[str]:
    """Compute the value of a complete trial from its scores again, and compare."""
    if not selection.is_complete(slot):
        return []
    value, best_epoch = selection.value_of(slot), selection.best_epoch_of(slot)
    scores = [row.score for row in epochs if row.score is not None]
    if [row.epoch for row in epochs[:best_epoch]] != list(range(1, best_epoch + 1)) or len(scores) < best_epoch:
        return [f"its best epoch is {best_epoch}, but not every epoch up to that one is on record"]
    computed = objective(scores, best_epoch, smoothing)
    if math.isclose(computed, value, rel_tol=_TOLERANCE):
        return []
    return [f"its value is {value}, but its scores up to epoch {best_epoch} give {computed}"]


def _differences(subject: str, actual: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    return [
        f"{subject} has {name} = {actual.get(name)!r} instead of {value!r}"
        for name, value in expected.items()
        if not _is_same(actual.get(name), value)
    ]


def _is_same(actual: Any, expected: Any) -> bool:
    if isinstance(actual, float) and isinstance(expected, float):
        return math.isclose(actual, expected, rel_tol=_TOLERANCE)
    return bool(actual == expected)
