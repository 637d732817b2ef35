"""Changes a study under way: pause, stop, extend, widen, enqueue, retry, thaw. Each change is recorded with its author.

Earlier records stay. A retry is a new slot with the old params, so the budget grows by one.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mhist_tune.definition import schema
from mhist_tune.definition import space as spaces
from mhist_tune.definition.space import Categorical, Dimension, normalize
from mhist_tune.errors import UsageError, did_you_mean
from mhist_tune.search import budget
from mhist_tune.search.rungs import RungBook
from mhist_tune.storage import event_log, ledger, studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.decision import Decision
from mhist_tune.storage.payloads import SearchPayload
from mhist_tune.storage.slot_rows import SearchSlot
from mhist_tune.storage.stages import SlotState, Stage, StudyState
from mhist_tune.storage.studies import Study

WIDENED = "widened"
"""The kind of event that records a wider range: `field`, `before` and `after`."""

_FIRST = 1
"""The priority of slots that a person adds with params: they are claimed before those of the sampler."""

_FORM = "for example --widen learning_rate=1e-6..1e-2"


def set_state(storage: Storage, study: Study, state: StudyState, *, by: str) -> None:
    """Make a study active, paused or stopped. Stopping cancels the slots that no worker has begun.

    Workers finish the trials that were begun. A stopped study can be retrained.
    """
    studies.set_state(storage, study, state)
    n_cancelled = ledger.cancel_free(storage, study) if state == StudyState.STOPPED else 0
    event_log.event(storage, study, kind="state", detail={"state": state, "n_cancelled": n_cancelled, "by": by})


def extend(storage: Storage, study: Study, n_trials: int, *, by: str) -> int:
    """Add `n_trials` search slots, and return the number of all search slots.

    Raises:
        UsageError: the study is a table of rows, would have too many trials, or its budget of hours is reached.
    """
    _refuse_table(study)
    if not n_trials:
        return sum(ledger.counts(storage, study, Stage.SEARCH).values())
    _refuse_reached(storage, study)
    most, n_now = schema.MOST_TRIALS, sum(ledger.counts(storage, study, Stage.SEARCH).values())
    if n_now + n_trials > most:
        raise UsageError(f"{study.name} has {n_now:,} trials, and a study has at most {most:,}", hint="add fewer")
    ledger.add_slots(storage, study, Stage.SEARCH, [SearchPayload()] * n_trials)
    event_log.event(storage, study, kind="extended", stage=Stage.SEARCH, detail={"n_trials": n_trials, "by": by})
    return sum(ledger.counts(storage, study, Stage.SEARCH).values())


def widen(storage: Storage, study: Study, text: str) -> Study:
    """Widen a searched range and return the changed study. Workers use the range from their next trial on.

    The definition keeps the hash and the text that it was created with. Optuna's TPE models jointly only those params
    whose ranges are equal in all trials, and would sample a widened one independently. `suggestions` therefore shows
    the sampler every trial with the present ranges.

    Args:
        storage: the storage of the study.
        study: the study.
        text: the field and its new range, as `FIELD=LOW..HIGH`.

    Raises:
        UsageError: the text has another form, the field is not a searched range, or the range would shrink.
    """
    name, _, bounds = text.partition("=")
    low, _, high = bounds.partition("..")
    space = study.definition.space
    if name not in space:
        raise UsageError(f'{study.name} does not search "{name}"{did_you_mean(name, space)}', hint=_FORM)
    before = space[name]
    if isinstance(before, Categorical):
        raise UsageError(
            f"{name} has choices, and trials with other choices could not be compared", hint="create a new study"
        )
    try:
        after = spaces.parse(name, {"low": _number(low), "high": _number(high), "log": before.log})
    except ValueError as error:
        raise UsageError(f"--widen {text}: {error}", hint=_FORM) from error
    assert not isinstance(after, Categorical)
    if after == before:
        return study
    if after.low > before.low or after.high < before.high:
        raise UsageError(f"--widen {text}: the range is {before} and may only grow", hint="create a new study")
    wider = studies.redefine(storage, study, replace(study.definition, space={**space, name: after}))
    detail = {"field": name, "before": before.to_dict(), "after": after.to_dict()}
    event_log.event(storage, study, kind=WIDENED, stage=Stage.SEARCH, detail=detail)
    return wider


def enqueue(storage: Storage, study: Study, params: Mapping[str, Any], *, by: str) -> int:
    """Add one search slot that is claimed next and tries `params`. Return its number.

    Missing fields get the values of the default.

    Raises:
        UsageError: a field is not searched, or its value lies outside its range; the message names all such fields.
    """
    _refuse_table(study)
    _refuse_reached(storage, study)
    space = study.definition.space
    given = {name: normalize(name, value) for name, value in params.items()}
    problems = [f"{name} is not searched{did_you_mean(name, space)}" for name in given if name not in space]
    problems += [
        f"{name} = {value} is not {space[name]}"
        for name, value in given.items()
        if name in space and not space[name].contains(value)
    ]
    if problems:
        raise UsageError("; ".join(problems), hint=f"searched are {', '.join(space)}")
    complete = {**study.definition.default_params(), **given}
    [slot] = ledger.add_slots(storage, study, Stage.SEARCH, [SearchPayload(params=complete)], _FIRST)
    event_log.event(
        storage, study, kind="enqueued", stage=Stage.SEARCH, slot=slot, detail={"params": complete, "by": by}
    )
    return slot


def read_params(study: Study, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return typed params as values: a number, or the choice with this text. Other texts stay texts."""
    return {name: _read(study.definition.space.get(name), text.strip()) for name, text in texts.items()}


def retry(storage: Storage, study: Study, number: int, *, by: str) -> int:
    """Add one search slot with the params of a trial that failed or was pruned. Return the number of the slot.

    Raises:
        UsageError: there is no such trial, it has not ended, it waits at a rung, or it is complete.
    """
    _refuse_table(study)
    _refuse_reached(storage, study)
    slot = ledger.of_trial(storage, study, number)
    if slot.state is SlotState.WAITING:
        raise UsageError(
            f"trial {number} waits at a rung; only a failed or pruned one is tried again",
            hint=f"continue it: mhist-tune thaw {study.name} {number}",
        )
    if slot.outcome is None or slot.outcome.is_complete:
        state = "complete" if slot.outcome else "still running"
        raise UsageError(f"trial {number} is {state}; only a failed or pruned one is tried again")
    params = slot.outcome.params or slot.payload.params or _optuna_params(storage, slot)
    payload = SearchPayload(params=params or None, retry_of=number)
    [added] = ledger.add_slots(storage, study, Stage.SEARCH, [payload], _FIRST)
    event_log.event(storage, study, kind="retried", stage=Stage.SEARCH, slot=added, detail={"trial": number, "by": by})
    return added


def thaw(storage: Storage, study: Study, number: int, *, by: str) -> Decision:
    """Promote a trial that waits at a rung, and return the decision.

    Raises:
        UsageError: the trial does not wait.
    """
    decision = RungBook(storage, study, Stage.SEARCH).thaw(number)
    event_log.event(
        storage, study, kind="thawed", stage=Stage.SEARCH, detail={"trial": number, "epoch": decision.epoch, "by": by}
    )
    return decision


def _read(dimension: Dimension | None, text: str) -> Any:
    if isinstance(dimension, Categorical):
        return next((choice for choice in dimension.choices if str(choice) == text), text)
    for read in (int, float):
        with contextlib.suppress(ValueError):
            return read(text)
    return text


def _optuna_params(storage: Storage, slot: SearchSlot) -> dict[str, Any]:
    """Return the params that Optuna has of a failed trial whose outcome has none."""
    if slot.trial_id is None:
        return {}
    trial_id = slot.trial_id
    return dict(storage.retrying(lambda: storage.optuna.get_trial(trial_id)).params)


def _refuse_table(study: Study) -> None:
    if study.definition.rows:
        raise UsageError(f"{study.name} is a table of rows, which has nothing to search", hint="write another table")


def _refuse_reached(storage: Storage, study: Study) -> None:
    if budget.reached(storage, study):
        hours = f"{study.definition.max_hours:.3g}"
        raise UsageError(
            f"{study.name} has used its budget of {hours} device hours, and no further trial may begin",
            hint=f"raise it, to more than {hours}: mhist-tune extend {study.name} --max-hours H",
        )


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)
