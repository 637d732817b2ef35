"""`extend --widen`: a searched range becomes wider while its study goes on.

Optuna's TPE models together only those params whose ranges are the same in all trials; a wider one would fall out and
be sampled by itself. `suggestions` therefore shows a sampler every trial with the ranges of today.
"""

from dataclasses import replace

from mhist_tune import journal, studies
from mhist_tune import space as spaces
from mhist_tune.errors import UsageError, did_you_mean
from mhist_tune.space import Categorical
from mhist_tune.stages import Stage
from mhist_tune.storage import Storage
from mhist_tune.studies import Study

KIND = "widened"
"""The kind of event that records a wider range: `field`, `before` and `after`."""

_FORM = "for example --widen learning_rate=1e-6..1e-2"


def widen(storage: Storage, study: Study, text: str) -> Study:
    """Widen a range as `FIELD=LOW..HIGH` says, and return the study; workers use it from their next trial on.

    The definition keeps the hash and the text that it was created with.

    Raises:
        UsageError: not of that form, not a searched range, or one that would lose what was searched before.
    """
    name, _, bounds = text.partition("=")
    low, _, high = bounds.partition("..")
    space = study.definition.space
    if name not in space:
        raise UsageError(f'{study.name} does not search "{name}"{did_you_mean(name, space)}', hint=_FORM)
    before = space[name]
    if isinstance(before, Categorical):
        raise UsageError(f"{name} has choices, and trials with others could not be compared", hint="create a new study")
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
    journal.event(storage, study, kind=KIND, stage=Stage.SEARCH, detail=detail)
    return wider


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)
