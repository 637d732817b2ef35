"""The race of the finalists in the database: looks, dropped finalists and their slots.

The rule is `statistics.racing`. A look is due as soon as all finalists in the race have ended their trainings on its
folds. It depends on nothing else: not on the order of these trainings, and not on later folds that other workers have
trained meanwhile. So every process finds the same. Each look is recorded once, as an event, under the lock of the
study. The slots of a dropped finalist that no worker has begun are cancelled in the same transaction; a training that
runs ends after its epoch.

The study's default is never dropped, because the gain from tuning is measured against it on all folds. It can lead.

Modules that need NumPy are imported inside functions, because `status` reads the looks.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy
from sqlalchemy import Connection

from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.search import selection
from mhist_tune.storage import damage, ledger, studies, tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.payloads import OUTER, fold_set
from mhist_tune.storage.slot_rows import ConfirmSlot
from mhist_tune.storage.stages import OPEN, SlotState, Stage
from mhist_tune.storage.studies import Study
from mhist_tune.words import number

KIND = "race"
"""The kind of event that holds a look."""

_TOLERANCE = 1e-6  # another machine's libraries may round the last digits differently


@dataclass(frozen=True)
class Compared:
    """A finalist as compared with the leader.

    Attributes:
        trial: the number of its search trial.
        difference: the leader's score minus its own, on the folds so far.
        standard_error, allowed: see `statistics.racing.Against`.
        is_dropped: whether it stops here.
    """

    trial: int
    difference: float
    standard_error: float | None
    allowed: float | None
    is_dropped: bool


@dataclass(frozen=True)
class Look:
    """A look at the finalists in the race.

    Attributes:
        n_trained: the number of folds that it is of.
        n_folds: the number of folds in all.
        n_finalists: the number of finalists that the level is split over.
        leader: the trial with the highest score.
        scores: of each trial in the race, on the folds so far, by its number.
        compared: the others, by their number.
    """

    n_trained: int
    n_folds: int
    n_finalists: int
    leader: int
    scores: Mapping[int, float]
    compared: Sequence[Compared]

    @property
    def dropped(self) -> list[Compared]:
        """The finalists that stop here."""
        return [one for one in self.compared if one.is_dropped]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-safe record."""
        return {**asdict(self), "scores": {str(trial): score for trial, score in self.scores.items()}}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Look":
        """Return the look of a record."""
        with damage.explained("a look of the race"):
            scores = {int(trial): score for trial, score in record["scores"].items()}
            compared = [Compared(**one) for one in record["compared"]]
            return cls(**{**record, "scores": scores, "compared": compared})


@dataclass(frozen=True)
class Dropped:
    """A finalist that stopped before it was trained on all folds.

    Attributes:
        trial: the number of its search trial.
        n_trained: the number of folds after which it stopped.
        n_folds: the number of folds in all.
        leader: the trial that it is behind.
        score, leader_score: of both, on these folds.
        difference, standard_error, allowed: see `Compared`.
    """

    trial: int
    n_trained: int
    n_folds: int
    leader: int
    score: float
    leader_score: float
    difference: float
    standard_error: float
    allowed: float

    def in_words(self, score_name: str) -> str:
        """Return when and why it stopped."""
        return (
            f"stopped after {self.n_trained} of {self.n_folds} folds: clearly behind trial {self.leader}, by "
            f"{number(self.difference)} in {score_name} (standard error {number(self.standard_error)}; up to "
            f"{number(self.allowed)} stay in the race)"
        )


def recorded(storage: Storage, study: Study) -> list[Look]:
    """Return the looks of a study in their order."""
    return storage.read(lambda connection: _recorded(connection, study)) if study.definition.races else []


def dropped(looks: Sequence[Look]) -> list[Dropped]:
    """Return the finalists that these looks dropped, in the order of the looks."""
    found = []
    for look in looks:
        for one in look.dropped:
            assert one.standard_error is not None
            assert one.allowed is not None
            found.append(
                Dropped(
                    trial=one.trial,
                    n_trained=look.n_trained,
                    n_folds=look.n_folds,
                    leader=look.leader,
                    score=look.scores[one.trial],
                    leader_score=look.scores[look.leader],
                    difference=one.difference,
                    standard_error=one.standard_error,
                    allowed=one.allowed,
                )
            )
    return found


def is_due(study: Study, slots: Sequence[ConfirmSlot], looks: Sequence[Look]) -> bool:
    """Return whether a look is due that is not recorded yet.

    Args:
        study: the study.
        slots: all its confirm slots.
        looks: the recorded looks.
    """
    return study.definition.races and _due(study.definition, slots, looks) is not None


def advance(storage: Storage, study: Study) -> None:
    """Take all looks that are due. Costs one query where the study has no race, or its search goes on."""
    if not study.definition.races:
        return
    slots = ledger.slots(storage, study, Stage.CONFIRM)
    looks = recorded(storage, study) if slots else []
    while (due := _due(study.definition, slots, looks)) is not None:
        look = _taken(storage, study, slots, looks, *due)
        looks = _record(storage, study, slots, looks, look)


def end_of(storage: Storage, study: Study, trial: int) -> Outcome | None:
    """Return the outcome of the trainings of a finalist that have no result; None if it is in the race."""
    of_trial = [one for one in dropped(recorded(storage, study)) if one.trial == trial]
    return _outcome(study, of_trial[0]) if of_trial else None


def problems(storage: Storage, study: Study) -> list[str]:
    """Take every recorded look again, from the stored predictions, and return a sentence for each difference."""
    slots, found = ledger.slots(storage, study, Stage.CONFIRM), []
    looks = recorded(storage, study)
    for place, look in enumerate(looks):
        due = _due(study.definition, slots, looks[:place], n_finalists=look.n_finalists)
        what = f"the look after {look.n_trained} of {look.n_folds} folds"
        if due is None or due[0] != look.n_trained or due[1] != sorted(look.scores):
            found.append(f"{what} compares trials {_listed(look.scores)}, which was not due")
            continue
        again = _taken(storage, study, slots, looks[:place], *due, n_finalists=look.n_finalists)
        found += [f"{what} {problem}" for problem in _differences(look, again)]
    for one in dropped(looks):
        unfinished = [slot for slot in slots if slot.payload.trial == one.trial and slot.state in OPEN]
        outcomes = [slot.outcome for slot in slots if slot.payload.trial == one.trial and slot.outcome is not None]
        if not unfinished and sum(outcome.is_complete for outcome in outcomes) < one.n_trained:
            found.append(f"trial {one.trial} stopped after {one.n_trained} folds, but has fewer complete ones")
    return found


def _due(
    definition: StudyDefinition,
    slots: Sequence[ConfirmSlot],
    looks: Sequence[Look],
    n_finalists: int | None = None,
) -> tuple[int, list[int]] | None:
    """Return the number of folds of the next look and the trials that it compares; None if no look is due.

    A finalist leaves the race when it is dropped, or when a training of the folds so far has no result. After an
    extended search new finalists have looks of their own, in which the earlier ones take part.

    Args:
        definition: of the study.
        slots: all its confirm slots.
        looks: those before.
        n_finalists: how many finalists had slots by then, in the order of their slots; None for all.
    """
    assert definition.confirm is not None
    from mhist_tune.statistics import racing

    n_folds = definition.confirm["n_folds"]
    by_trial: dict[int, dict[int, ConfirmSlot]] = {}
    for slot in slots:
        if slot.payload.fit == OUTER:
            by_trial.setdefault(slot.payload.trial, {})[slot.payload.fold] = slot
    begun = sorted(list(by_trial)[:n_finalists])
    out = {one.trial for one in dropped(looks)}
    for n_trained in range(racing.FIRST_LOOK, n_folds):
        judged = {trial for look in looks if look.n_trained == n_trained for trial in look.scores}
        racing_now = []
        for trial in begun:
            trained = [by_trial[trial][fold] for fold in range(n_trained)]
            is_out = trial in out or any(slot.state not in OPEN and not selection.is_complete(slot) for slot in trained)
            if not is_out:
                racing_now.append((trial, all(selection.is_complete(slot) for slot in trained)))
        if {trial for trial, _ in racing_now} <= judged or len(racing_now) < 2:
            continue
        if not all(has_ended for _, has_ended in racing_now):
            return None
        return n_trained, [trial for trial, _ in racing_now]
    return None


def _taken(
    storage: Storage,
    study: Study,
    slots: Sequence[ConfirmSlot],
    looks: Sequence[Look],
    n_trained: int,
    trials: Sequence[int],
    n_finalists: int | None = None,
) -> Look:
    """Take a look from the stored predictions; arguments as of `_due` and its result."""
    import numpy as np

    from mhist_tune.statistics import racing
    from mhist_tune.storage.predictions import image_rows, predictions_of

    definition = study.definition
    assert definition.confirm is not None
    outer = {(slot.payload.trial, slot.payload.fold): slot.slot for slot in slots if slot.payload.fit == OUTER}
    images = [image_rows(storage, study, fold_set(fold)) for fold in range(n_trained)]
    stored = [predictions_of(storage, study, Stage.CONFIRM, fold_set(fold)) for fold in range(n_trained)]
    groups = [group for fold in images for group in fold.groups or ()]
    n_begun = n_finalists or len({trial for trial, _ in outer})
    found = racing.look(
        definition.score,
        np.concatenate([fold.labels for fold in images]),
        np.repeat(np.arange(n_trained), [len(fold.names) for fold in images]),
        [np.concatenate([stored[fold][outer[trial, fold]] for fold in range(n_trained)]) for trial in trials],
        n_folds=definition.confirm["n_folds"],
        n_finalists=n_begun,
        level=definition.confirm["race_level"],
        groups=groups or None,
    )
    default = definition.default_params()
    kept = {slot.payload.trial for slot in slots if slot.payload.params == default}
    kept |= {trial for look in looks if look.n_trained == n_trained for trial in look.scores}
    return Look(
        n_trained=n_trained,
        n_folds=definition.confirm["n_folds"],
        n_finalists=n_begun,
        leader=trials[found.leader],
        scores=dict(zip(trials, found.scores, strict=True)),
        compared=[
            Compared(
                trial=trials[one.place],
                difference=one.difference,
                standard_error=one.standard_error,
                allowed=one.allowed,
                is_dropped=one.is_behind and trials[one.place] not in kept,
            )
            for one in found.against
        ],
    )


def _record(
    storage: Storage, study: Study, slots: Sequence[ConfirmSlot], looks: Sequence[Look], look: Look
) -> list[Look]:
    """Record a look after `looks`, unless another process has done so, and return all recorded looks.

    The slots of the finalists that it drops are cancelled if no worker has begun them.
    """
    events, table = tables.events, tables.slots

    def work(connection: Connection) -> list[Look]:
        studies.lock_study(connection, study)
        known = _recorded(connection, study)
        if len(known) != len(looks):
            return known
        event = {"study": study.uuid, "stage": Stage.CONFIRM, "at": storage.clock, "kind": KIND}
        connection.execute(sqlalchemy.insert(events).values(**event, detail=look.to_json()))
        for one in dropped([look]):
            of_trial = [slot.slot for slot in slots if slot.payload.trial == one.trial]
            has_not_begun = sqlalchemy.and_(
                table.c.study == study.uuid,
                table.c.stage == Stage.CONFIRM,
                table.c.slot.in_(of_trial),
                table.c.state == SlotState.FREE,
                table.c.n_claims == 0,
            )
            values = {"state": SlotState.CANCELLED, "outcome": _outcome(study, one)}
            connection.execute(sqlalchemy.update(table).where(has_not_begun).values(values))
        return [*known, look]

    return storage.transaction(work)


def _recorded(connection: Connection, study: Study) -> list[Look]:
    events = tables.events.c
    is_look = sqlalchemy.and_(events.study == study.uuid, events.stage == Stage.CONFIRM, events.kind == KIND)
    rows = connection.execute(sqlalchemy.select(events.detail).where(is_look).order_by(events.id))
    return [Look.from_json(detail) for detail in rows.scalars()]


def _outcome(study: Study, one: Dropped) -> Outcome:
    return Outcome(state=EndState.PRUNED, reason=f"trial {one.trial} {one.in_words(study.definition.score_name)}")


def _differences(look: Look, again: Look) -> list[str]:
    """Return how a recorded look differs from the same look taken again, as clauses."""
    if look.leader != again.leader:
        return [f"has trial {look.leader} in the lead instead of {again.leader}"]
    found = []
    for one, other in zip(look.compared, again.compared, strict=True):
        ours, theirs = ([each.difference, each.standard_error, each.allowed] for each in (one, other))
        if one.is_dropped != other.is_dropped:
            verb = "drops" if one.is_dropped else "keeps"
            found.append(f"{verb} trial {one.trial}, which its predictions do not say")
        elif not all(_is_close(our, their) for our, their in zip(ours, theirs, strict=True)):
            found.append(f"has {ours} for trial {one.trial} instead of {theirs}")
    return found


def _is_close(one: float | None, other: float | None) -> bool:
    return one is other if one is None or other is None else math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=1e-12)


def _listed(trials: Iterable[int]) -> str:
    return ", ".join(str(trial) for trial in sorted(trials))
