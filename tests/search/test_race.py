"""The race of the finalists in the ledger: made-up predictions on both databases, in any order of arrivals."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy

from mhist_tune.definition import study_file
from mhist_tune.report import confirmation
from mhist_tune.search import finalists, race
from mhist_tune.search.race import Look
from mhist_tune.statistics import racing
from mhist_tune.storage import ledger, studies, tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.event_log import events
from mhist_tune.storage.leases import Claim, LeaseObserver
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.payloads import SearchPayload, fold_set
from mhist_tune.storage.predictions import record_predictions
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.storage.studies import Study
from mhist_tune.worker.stages import confirm
from tests.statistics.test_racing import study as simulated

DEFINITION = """
[study]
name = "small"
n_trials = 5
score = "mean_f1"
at = "last"

[fixed]
epochs = 7

[space]
learning_rate = { low = 1e-4, high = 1e-1, log = true }

[confirm]
top = 5
n_folds = 5
race_level = 0.05

[[start]]
learning_rate = 1e-3
"""
SKILLS = [0.4, 1.2, 0.5, 1.1, 0.7, 0.2]  # by trial; trial 0 is the default
LABELS, FOLDS, PREDICTED = simulated(np.random.default_rng(0), SKILLS, n_images=300, training=0.03)


def image_sets() -> dict[str, list[list[object]]]:
    rows = [[f"{n}.png", int(label), 7 * int(label), None] for n, label in enumerate(LABELS)]
    folds = {fold_set(k): [row for row, fold in zip(rows, FOLDS, strict=True) if fold == k] for k in range(5)}
    return {"train": rows, "val": rows[:1], **folds}


MakeRace = Callable[..., Study]


@pytest.fixture
def make_race(storage: Storage) -> MakeRace:
    """A function that makes a study with a finished search and the slots of its finalists."""

    def make(name: str = "small", text: str = DEFINITION) -> Study:
        definition = replace(study_file.parse(text, "test"), name=name)
        study = studies.create_study(storage, definition, dataset={"fingerprint": "f"}, image_sets=image_sets())
        finish_search(storage, study)
        confirm.add_slots(storage, study)
        return study

    return make


def finish_search(storage: Storage, study: Study) -> None:
    while (claim := ledger.claim(storage, study, [Stage.SEARCH], worker="w", observer=LeaseObserver())) is not None:
        ledger.attach_trial(storage, claim, claim.slot, claim.slot)
        params = {"learning_rate": 1e-3 * (1 + claim.slot)}
        outcome = Outcome(
            state=EndState.COMPLETE, value=0.9 - claim.slot / 100, params=params, best_epoch=7, stopped_epoch=7
        )
        assert ledger.decide(storage, claim, outcome)
        assert ledger.finish(storage, claim)


def claim_all(storage: Storage, study: Study) -> list[Claim]:
    """Claim every free confirm slot, as many workers at once would."""
    claims, observer = [], LeaseObserver()
    while (claim := ledger.claim(storage, study, [Stage.CONFIRM], worker="w", observer=observer)) is not None:
        claims.append(claim)
    return claims


def end(storage: Storage, claim: Claim, state: EndState = EndState.COMPLETE) -> None:
    """End a training with the predictions of its finalist."""
    trial, fold = claim.payload.trial, claim.payload.fold
    ledger.attach_trial(storage, claim, 100 + claim.slot, claim.slot)
    if state is EndState.COMPLETE:
        record_predictions(storage, claim, fold_set(fold), PREDICTED[trial, fold == FOLDS])
    assert ledger.decide(storage, claim, Outcome(state=state, stopped_epoch=7))
    assert ledger.finish(storage, claim)


def work(storage: Storage, study: Study) -> list[tuple[int, int]]:
    """Do what one worker does until nothing is left; return the trials and folds that it trained."""
    trained, observer = [], LeaseObserver()
    while True:
        race.advance(storage, study)
        claim = ledger.claim(storage, study, [Stage.CONFIRM], worker="w", observer=observer)
        if claim is None:
            return trained
        if race.end_of(storage, study, claim.payload.trial) is not None:
            end(storage, claim, EndState.PRUNED)
            continue
        trained.append((claim.payload.trial, claim.payload.fold))
        end(storage, claim)


def reference(trials: range = range(5)) -> dict[int, int]:
    """The folds after which each dropped finalist stops, from complete predictions in one process."""
    return racing.race("mean_f1", LABELS, FOLDS, PREDICTED[trials], level=0.05, kept={0})


def stops(looks: list[Look]) -> dict[int, int]:
    return {one.trial: one.n_trained for one in race.dropped(looks)}


def test_finalists_are_trained_on_folds_in_turn_until_they_are_behind(storage: Storage, make_race: MakeRace) -> None:
    """One worker trains fold 0 of all, then fold 1 of all, and then only those that are not clearly behind."""
    study = make_race()
    trained = work(storage, study)

    stopped = reference()
    assert stopped  # the default is behind too, and stays
    assert 0 not in stopped
    assert [fold for _, fold in trained] == sorted(fold for _, fold in trained)
    by_trial = {trial: [fold for one, fold in trained if one == trial] for trial in range(5)}
    assert by_trial == {trial: list(range(stopped.get(trial, 5))) for trial in range(5)}
    looks = race.recorded(storage, study)
    assert stops(looks) == stopped
    assert [look.n_trained for look in looks] == [2, 3, 4][: len(looks)]
    assert all(look.n_finalists == 5 for look in looks)
    slots = ledger.slots(storage, study, Stage.CONFIRM)
    cancelled = [slot for slot in slots if slot.state == SlotState.CANCELLED]
    assert len(cancelled) == sum(5 - n for n in stopped.values())
    for slot in cancelled:
        assert slot.outcome is not None
        assert slot.outcome.state is EndState.PRUNED
        after = stopped[slot.payload.trial]
        start = f"trial {slot.payload.trial} stopped after {after} of 5 folds: clearly behind trial 1, by 0."
        assert slot.outcome.reason is not None
        assert slot.outcome.reason.startswith(start)
    assert race.problems(storage, study) == []


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_arrivals_has_the_same_looks(storage: Storage, make_race: MakeRace, seed: int) -> None:
    """All trainings run at once and end in any order, some late: the looks equal those of one worker to the bit."""
    one, many = make_race("one"), make_race("many")
    work(storage, one)
    claims = claim_all(storage, many)
    assert len(claims) == 25
    for place in np.random.default_rng(seed).permutation(25):
        end(storage, claims[place])
        race.advance(storage, many)

    assert race.recorded(storage, many) == race.recorded(storage, one)
    assert stops(race.recorded(storage, many)) == reference()
    found = [finalists.load(storage, study) for study in (one, many)]
    assert [{each.candidate.trial for each in one.finalists} for one in found] == 2 * [set(range(5)) - set(reference())]
    assert found[0].chosen.candidate.trial == found[1].chosen.candidate.trial
    assert found[0].dropped == found[1].dropped


def test_a_look_that_is_due_leaves_the_choice_open(storage: Storage, make_race: MakeRace) -> None:
    """After the last training, until some worker takes the looks, nothing is chosen."""
    study = make_race()
    for claim in claim_all(storage, study):
        end(storage, claim)
    due = finalists.load(storage, study)
    assert (due.n_open, due.chosen) == (1, None)
    confirm.add_slots(storage, study)  # what a worker calls that finds no slot
    taken = finalists.load(storage, study)
    assert (taken.n_open, taken.chosen.candidate.trial) == (0, 1)


def test_a_training_that_runs_is_ended_and_none_is_taken_twice(storage: Storage, make_race: MakeRace) -> None:
    """A dropped finalist's leased slot stays with its worker, which learns of it; its free ones are cancelled."""
    study = make_race()
    claims = {(claim.payload.trial, claim.payload.fold): claim for claim in claim_all(storage, study)}
    for (_, fold), claim in claims.items():
        if fold == 4:
            ledger.release(storage, claim)  # begun and free again: its next holder ends it
    for (_, fold), claim in claims.items():
        if fold < 2:
            end(storage, claim)
    race.advance(storage, study)
    race.advance(storage, study)

    assert len(events(storage, study, kind=race.KIND)) == 1
    [trial, *_] = stops(race.recorded(storage, study))
    states = {
        slot.payload.fold: slot.state
        for slot in ledger.slots(storage, study, Stage.CONFIRM)
        if slot.payload.trial == trial
    }
    assert states == {0: "done", 1: "done", 2: "leased", 3: "leased", 4: "free"}
    outcome = race.end_of(storage, study, trial)
    assert outcome is not None
    assert outcome.state is EndState.PRUNED
    assert race.end_of(storage, study, 1) is None


def test_a_failed_training_leaves_the_race(storage: Storage, make_race: MakeRace) -> None:
    """The leader fails on fold 1, so the next best leads the look; it counts as failed, not as dropped."""
    study = make_race()
    for claim in claim_all(storage, study):
        has_failed = (claim.payload.trial, claim.payload.fold) == (1, 1)
        end(storage, claim, EndState.FAIL if has_failed else EndState.COMPLETE)
    race.advance(storage, study)
    [first, *_] = race.recorded(storage, study)
    assert (first.leader, sorted(first.scores)) == (3, [0, 2, 3, 4])
    found = finalists.load(storage, study)
    assert (found.n_failed, found.chosen.candidate.trial) == (1, 3)
    assert race.problems(storage, study) == []


def test_new_finalists_of_an_extended_search_have_looks_of_their_own(storage: Storage, make_race: MakeRace) -> None:
    """The earlier finalists stay and lead; only what is new can be dropped. The level counts all of them."""
    study = make_race(text=DEFINITION.replace("top = 5", "top = 3"))
    work(storage, study)
    first = race.recorded(storage, study)
    ledger.add_slots(storage, study, Stage.SEARCH, [SearchPayload()])
    claim = ledger.claim(storage, study, [Stage.SEARCH], worker="w", observer=LeaseObserver())
    ledger.attach_trial(storage, claim, 5, 5)
    new = Outcome(state=EndState.COMPLETE, value=0.99, params={"learning_rate": 0.05}, best_epoch=7, stopped_epoch=7)
    ledger.decide(storage, claim, new)
    ledger.finish(storage, claim)
    confirm.add_slots(storage, study)
    assert {trial for trial, _ in work(storage, study)} == {5}

    looks = race.recorded(storage, study)
    assert looks[: len(first)] == first
    later = looks[len(first) :]
    assert later[0].n_trained == 2
    assert later[0].n_finalists == 4
    assert stops(later) == {5: 2}
    assert race.problems(storage, study) == []


def test_without_a_level_all_are_trained_on_all_folds(storage: Storage, make_race: MakeRace) -> None:
    """A study without `race_level`, as older ones are, trains one finalist after the other and has no looks."""
    study = make_race(text=DEFINITION.replace("race_level = 0.05\n", ""))
    trained = work(storage, study)
    assert trained == [(trial, fold) for trial, fold in itertools.product(range(5), range(5))]
    assert race.recorded(storage, study) == []
    found = finalists.load(storage, study)
    assert (len(found.finalists), found.dropped) == (5, ())


def test_a_changed_look_is_found(storage: Storage, make_race: MakeRace) -> None:
    """Looks are taken again from the predictions. One that was changed, or that was not due, is named."""
    study = make_race()
    work(storage, study)
    [event, *_] = events(storage, study, kind=race.KIND)
    changes = [
        ("leader", 3, "has trial 3 in the lead instead of 1"),
        ("compared", [{**event.detail["compared"][0], "difference": 0.3}, *event.detail["compared"][1:]], "has [0.3, "),
        ("n_trained", 4, "the look after 4 of 5 folds compares trials 0, 1, 2, 3, 4, which was not due"),
    ]
    table = tables.events
    for key, value, expected in changes:
        update = sqlalchemy.update(table).where(table.c.id == event.id)
        changed = update.values(detail={**event.detail, key: value})
        storage.transaction(lambda connection, changed=changed: connection.execute(changed))
        assert expected in race.problems(storage, study)[0]


def test_the_corrected_score_and_the_gain_are_of_the_finalists_that_remain(
    storage: Storage, make_race: MakeRace
) -> None:
    """The default has all folds, so the gain is out of fold. Those dropped are listed with their numbers and words."""
    study = make_race()
    work(storage, study)
    found = finalists.load(storage, study)
    document = confirmation.document(found)

    assert {one.trial for one in document.finalists} == set(range(5)) - set(reference())
    assert document.gain is not None
    assert document.gain.estimate > 0.05
    assert document.corrected is not None
    assert sum(one.selected for one in document.finalists) == pytest.approx(1)
    assert [one.trial for one in document.dropped] == list(reference())
    text = "; ".join(confirmation.sentences(document))
    for trial, n_trained in reference().items():
        assert f"trial {trial} stopped after {n_trained} of 5 folds: clearly behind trial 1, by" in text
