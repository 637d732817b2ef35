"""The repetitions of a search: the gain of tuning over the default, and how the choice varies."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mhist_tune.definition.scores import SCORE_NAMES, Score
from mhist_tune.definition.space import Categorical
from mhist_tune.report import confirmation
from mhist_tune.search import finalists
from mhist_tune.statistics import out_of_fold, repeated
from mhist_tune.statistics.repeated import RepeatedMean
from mhist_tune.storage import studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.studies import Study
from mhist_tune.words import counted, number, shortest, text_table

SETTING = "repetition_of"
"""The setting that marks a repetition: `study`, `uuid` and `number`."""
_MIN_DONE = 2


@dataclass(frozen=True)
class Repetition:
    """One repetition of a search.

    Attributes:
        chosen: the params of its choice; None while it is not finished, as all that follows.
        is_default: whether it chose the default.
        score, default_score: out of fold, of the choice and of the default.
        gain: their difference, corrected for the choice of the highest.
    """

    study: str
    chosen: dict[str, Any] | None = None
    is_default: bool | None = None
    score: float | None = None
    default_score: float | None = None
    gain: float | None = None


@dataclass(frozen=True)
class Spread:
    """The values of one hyperparameter in the choices: counts of choices, or the range and median of numbers."""

    counts: dict[str, int] | None
    lowest: float | None
    median: float | None
    highest: float | None


@dataclass(frozen=True)
class Repetitions:
    """The repetitions of a search so far.

    Attributes:
        gain: of tuning over the default, in the score; None where `missing` says why.
        n_default: number of finished repetitions that chose the default.
        spread: of the choices, by hyperparameter.
    """

    study: str
    score: Score
    n_done: int
    repetitions: list[Repetition]
    gain: RepeatedMean | None
    n_default: int
    spread: dict[str, Spread]
    missing: str | None


def name_of(study: Study, number: int) -> str:
    """Return the name of a repetition, 1-based."""
    return f"{study.name}-repeat-{number}"


def of_study(storage: Storage, study: Study) -> list[Study]:
    """Return the repetitions of a study in their order."""
    found = [one for one in studies.list_studies(storage) if one.settings.get(SETTING, {}).get("uuid") == study.uuid]
    return sorted(found, key=lambda one: int(one.settings[SETTING]["number"]))


def load(storage: Storage, study: Study) -> Repetitions | None:
    """Return the repetitions of a study; None if there is none."""
    members = of_study(storage, study)
    if not members:
        return None
    found, differences = [], []
    for member in members:
        confirmed = finalists.load(storage, member)
        chosen, default = (confirmed.chosen, confirmed.default) if confirmed else (None, None)
        if confirmed is None or chosen is None or default is None:
            found.append(Repetition(member.name))
            continue
        document = confirmation.document(confirmed)
        found.append(
            Repetition(
                member.name,
                chosen.candidate.params,
                chosen.candidate.is_default,
                chosen.scores.of(confirmed.score),
                default.scores.of(confirmed.score),
                document.gain.estimate if document.gain else 0.0,
            )
        )
        differences.append(_by_fold(confirmed))
    done = [one for one in found if one.chosen is not None]
    gain = None
    if len(done) >= _MIN_DONE:
        table = np.array(differences)
        corrected = statistics.fmean(one.gain for one in done if one.gain is not None)
        gain = repeated.corrected(table, corrected - float(table.mean()))
    return Repetitions(
        study=study.name,
        score=study.definition.score,
        n_done=len(done),
        repetitions=found,
        gain=gain,
        n_default=sum(bool(one.is_default) for one in done),
        spread=_spreads(study, [one.chosen for one in done if one.chosen is not None]),
        missing=None if gain else f"{len(done)} of {len(found)} repetitions are finished, and {_MIN_DONE} are needed",
    )


def _by_fold(confirmed: finalists.Confirmation) -> list[float]:
    """Return the score of the choice less that of the default in each fold."""
    assert confirmed.chosen is not None and confirmed.default is not None
    pair = (confirmed.chosen.probabilities, confirmed.default.probabilities)
    found = []
    for fold in np.unique(confirmed.folds):
        inside = confirmed.folds == fold
        chosen, default = (out_of_fold.score(confirmed.score, confirmed.labels[inside], one[inside]) for one in pair)
        found.append(chosen - default)
    return found


def _spreads(study: Study, chosen: Sequence[dict[str, Any]]) -> dict[str, Spread]:
    if not chosen:
        return {}
    spreads = {}
    for name, dimension in study.definition.space.items():
        values = [params[name] for params in chosen]
        if isinstance(dimension, Categorical):
            counts = Counter(map(str, values))
            spreads[name] = Spread({str(choice): counts[str(choice)] for choice in dimension.choices}, None, None, None)
        else:
            spreads[name] = Spread(None, float(min(values)), float(statistics.median(values)), float(max(values)))
    return spreads


def sentences(found: Repetitions) -> list[str]:
    """Return the gain and the spread of the choice, in a sentence each without a full stop."""
    name = SCORE_NAMES[found.score]
    if found.gain is None:
        return [f"the gain of tuning over repeated searches is not known: {found.missing}"]
    low, high = found.gain.ci95
    lines = [
        f"over {counted(found.n_done, 'independent repetition')} of the search on other splits and seeds, tuning gains "
        f"{found.gain.estimate:+.3f} {name} over the default (95% interval {low:+.3f} to {high:+.3f}), out of fold on "
        "the same train images, corrected for the choice of the highest and for the images that the repetitions share",
        f"{found.n_default} of {found.n_done} repetitions chose the default",
    ]
    return lines + [f"{field}: {_text(spread)}" for field, spread in found.spread.items()]


def _text(spread: Spread) -> str:
    if spread.counts is not None:
        chosen = [f"{value} {times} times" for value, times in spread.counts.items() if times]
        return f"chosen {', '.join(chosen)}"
    return f"chosen from {shortest(spread.lowest)} to {shortest(spread.highest)}, median {shortest(spread.median)}"


def to_text(found: Repetitions) -> str:
    """Return the repetitions as a table, with the sentences."""
    rows = [["repetition", SCORE_NAMES[found.score], "default", "corrected gain", "choice"]]
    for one in found.repetitions:
        params = ", ".join(f"{name} {shortest(value)}" for name, value in (one.chosen or {}).items())
        choice = "not finished" if one.chosen is None else "the default" if one.is_default else params
        rows.append([one.study, number(one.score), number(one.default_score), number(one.gain), choice])
    return "\n".join([*text_table(rows), "", *(f"{line[0].upper()}{line[1:]}." for line in sentences(found))])
