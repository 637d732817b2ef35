"""Slots that wait at a rung: in the ledger, under kills, with many workers."""

import collections
import csv
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mhist_tune.actions import change
from mhist_tune.errors import UsageError
from mhist_tune.report import records_csv, status, status_text
from mhist_tune.search import promotion, trials
from mhist_tune.search.promotion import Rung
from mhist_tune.search.pruning import is_audited, rungs
from mhist_tune.search.rungs import KIND, RungBook
from mhist_tune.storage import event_log, ledger
from mhist_tune.storage.database import Storage
from mhist_tune.storage.decision import Decision, Verdict
from mhist_tune.storage.epochs import epochs_of, record_epoch
from mhist_tune.storage.leases import Claim, LeaseObserver, StaleTokenError
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.stages import SlotState
from mhist_tune.storage.studies import Study
from tests.support.ledger_process import N_CLIMBED, score
from tests.support.processes import Fleet

MakeStudy = Callable[..., Study]

PRUNER = '{ name = "promotion", min_resource = 1, reduction_factor = 3 }'
PRUNED = Outcome(state=EndState.PRUNED, params={})


def decide_again(storage: Storage, study: Study) -> dict[int, Rung]:
    """Decide on the arrivals of a study again, in one process. Check that the decisions are the same."""
    factor = study.definition.pruner["reduction_factor"]
    seen: dict[int, Rung] = {}
    events = collections.deque(event_log.events(storage, study, kind=KIND))
    while events:
        first = events[0]
        slot, epoch, value = first.slot, first.detail["epoch"], first.detail["value"]
        assert slot is not None
        if "arrived" in first.detail:
            assert first.detail["arrived"] == slot
            assert value == epochs_of(storage, study, "search", slot)[epoch - 1].value
            rung, n_slots = seen.setdefault(epoch, Rung(epoch)), first.detail["n_slots"]
            is_trivial = first.detail.get("is_trivial", False)
            expected = promotion.arrive(
                rung, slot, value, reduction_factor=factor, n_slots=n_slots, is_trivial=is_trivial
            )
        else:
            is_trivial = False
            expected = promotion.close([seen[one] for one in sorted(seen)], reduction_factor=factor)
        for other, decision in expected.items():
            event = events.popleft()
            assert (event.slot, Decision.from_json(event.detail)) == (other, decision)
            seen[decision.epoch].take(other, decision, is_trivial=is_trivial and other == slot)
    return seen


def test_six_killed_workers_promote_as_one_would(
    storage: Storage, storage_url: str, make_study: MakeStudy, tmp_path: Path
) -> None:
    """No saved epoch is trained twice, every slot ends once, no checkpoint is left. The decisions can be repeated."""
    study = make_study(n_trials=30, lease_s=1.0, pruner=PRUNER)
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    when, n_left, killed = random.Random(0), 5, set()
    saved: collections.Counter[tuple[int, int]] = collections.Counter()
    with Fleet() as fleet:
        for _ in range(6):
            fleet.start("climb", storage_url, "small", str(checkpoints))
        fleet.go()
        victim_epoch = 1
        for process, line in fleet.lines():
            if line["event"] == "ready":
                fleet.begin(process)
            if line["event"] != "saved":
                continue
            saved[line["slot"], line["epoch"]] += 1
            if n_left and line["epoch"] == victim_epoch and process.poll() is None and process not in killed:
                process.kill()
                killed.add(process)
                n_left -= 1
                victim_epoch = when.choice([1, 3, 5])  # on its way to a rung, twice of three times
                fleet.start("climb", storage_url, "small", str(checkpoints))
        assert collections.Counter(process.returncode for process in fleet.processes) == {0: 6, -9: 5}

    assert set(saved.values()) == {1}
    assert list(checkpoints.iterdir()) == []
    seen = decide_again(storage, study)
    assert {epoch: len(rung.waiting) for epoch, rung in seen.items()} == {1: 0, 3: 0}
    rows = ledger.slots(storage, study, "search")
    assert {row.state for row in rows} == {"done"}
    assert len(seen[1].values) == 30
    n_complete = 0
    for row in rows:
        assert row.outcome is not None
        epochs = epochs_of(storage, study, "search", row.slot)
        ends_at = N_CLIMBED if row.outcome.state == "COMPLETE" else 3 if row.slot in seen[3].values else 1
        assert [(one.epoch, one.score) for one in epochs] == [
            (epoch, score(row.slot, epoch)) for epoch in range(1, ends_at + 1)
        ]
        n_complete += ends_at == N_CLIMBED
    assert n_complete == seen[3].n_promoted >= 1


@pytest.fixture
def book(storage: Storage, make_study: MakeStudy) -> RungBook:
    """The rungs of a study with nine slots, so that three trials can go on."""
    return RungBook(storage, make_study(n_trials=9, lease_s=60.0, pruner=PRUNER), "search")


Arrive = Callable[[float], tuple[Claim, Decision]]


@pytest.fixture
def arrive(storage: Storage, book: RungBook) -> Arrive:
    """A function that claims the next slot and lets it arrive at the first rung."""

    def call(value: float) -> tuple[Claim, Decision]:
        study = book._study
        claim = ledger.claim(storage, study, ["search"], worker="w", observer=LeaseObserver())
        assert claim is not None
        ledger.attach_trial(storage, claim, 1000 + claim.slot, claim.slot)
        record_epoch(storage, claim, epoch=1, score=value, value=value, metrics={})
        return claim, book.arrive(claim, epoch=1, value=value, if_not_promoted=PRUNED)

    return call


def test_a_waiting_slot_is_not_claimed_until_it_is_promoted(storage: Storage, book: RungBook, arrive: Arrive) -> None:
    """Its old claim no longer holds. It is not claimed while it waits, and is claimed before all others afterwards."""
    waiting, decision = arrive(0.9)
    assert decision.verdict is Verdict.WAIT
    with pytest.raises(StaleTokenError):
        record_epoch(storage, waiting, epoch=2, score=0.9, value=0.9, metrics={})
    row = ledger.slots(storage, book._study, "search")[0]
    assert (row.state, row.expires_at, row.outcome) == (SlotState.WAITING, None, None)
    assert row.if_not_promoted == replace(PRUNED, reason=decision.reason, decision=decision)
    assert ledger.outcomes(storage, book._study, [(row.stage, row.slot)]) == {}

    arrive(0.5)
    arrive(0.6)
    promoted = ledger.claim(storage, book._study, ["search"], worker="w", observer=LeaseObserver())
    assert promoted is not None
    assert (promoted.slot, promoted.outcome, promoted.token) == (0, None, 2)
    assert ledger.slots(storage, book._study, "search")[0].if_not_promoted is None
    [epoch] = epochs_of(storage, book._study, "search", 0)
    assert epoch.decision is not None
    assert (epoch.decision.verdict, epoch.decision.n_competitors) == (Verdict.GO_ON, 2)


def test_an_arrival_is_judged_once(storage: Storage, book: RungBook, arrive: Arrive) -> None:
    """A resumed trial that arrives again gets the recorded decision, in this process and in another one."""
    arrive(0.5)
    arrive(0.6)
    claim, decision = arrive(0.7)
    other = RungBook(storage, book._study, "search")
    for again in (book, other):
        assert again.arrive(claim, epoch=1, value=0.7, if_not_promoted=PRUNED) == decision
    assert len(event_log.events(storage, book._study, kind=KIND)) == 3


def test_a_pruned_waiting_slot_becomes_free(storage: Storage, book: RungBook, arrive: Arrive) -> None:
    """With nine slots at most three can go on: the fourth best is claimed, with its outcome, before new trials."""
    for value in (0.4, 0.6, 0.7, 0.8):
        arrive(value)
    claim = ledger.claim(storage, book._study, ["search"], worker="w", observer=LeaseObserver())
    assert claim is not None
    assert claim.slot == 0
    assert claim.outcome is not None
    assert "number 4 at rung 1, where at most 3 can go on" in str(claim.outcome.reason)
    assert claim.outcome.decision is not None
    assert claim.outcome.decision.verdict is Verdict.PRUNE


def test_rungs_stay_open_while_a_slot_may_arrive(storage: Storage, book: RungBook, arrive: Arrive) -> None:
    """A free or leased slot may still change the decision."""
    arrive(0.4)
    book.close()
    assert len(event_log.events(storage, book._study, kind=KIND)) == 1
    ledger.cancel_free(storage, book._study)
    book.close()
    assert ledger.counts(storage, book._study, "search") == {"free": 1, "cancelled": 8}


def test_a_waiting_slot_is_continued_by_hand_once(storage: Storage, book: RungBook, arrive: Arrive) -> None:
    """It becomes free, with a reason. A trial that does not wait is refused."""
    arrive(0.4)
    assert book.thaw(0).reason == "continued by hand"
    assert ledger.slots(storage, book._study, "search")[0].state == "free"
    with pytest.raises(UsageError, match="trial 0 of small does not wait"):
        book.thaw(0)


def test_a_waiting_slot_that_makes_room_is_pruned_once(storage: Storage, book: RungBook, arrive: Arrive) -> None:
    """Its outcome says why, its worker has only to finish it, and the best of those that still wait is promoted."""
    best, _ = arrive(0.9)
    other, _ = arrive(0.5)
    assert book.give_up(best.slot)
    assert not book.give_up(best.slot)
    row = ledger.slots(storage, book._study, "search")[best.slot]
    assert row.state is SlotState.FREE
    assert row.outcome is not None
    assert row.outcome.state is EndState.PRUNED
    assert "space for checkpoints is full" in str(row.outcome.reason)
    rung = Rung(1)
    for event in event_log.events(storage, book._study, kind=KIND):
        assert event.slot is not None
        rung.take(event.slot, Decision.from_json(event.detail))

    [(slot, decision)] = promotion.close([rung], reduction_factor=3).items()
    assert (slot, decision.verdict) == (other.slot, Verdict.GO_ON)


def test_a_waiting_trial_has_not_ended(storage: Storage, book: RungBook, arrive: Arrive, tmp_path: Path) -> None:
    """Status, export and reports do not count it as ended, and `retry` adds no slot for it."""
    arrive(0.9)
    study = book._study

    study_status = status.of_study(storage, study)
    assert (study_status.stages["search"], sum(study_status.trials.values())) == ({"paused": 1, "free": 8}, 0)
    assert "8 free, 1 waiting" in status_text.to_text(study_status)
    records_csv.write(storage, study, tmp_path)
    [row] = csv.DictReader((tmp_path / "trials.csv").read_text(encoding="utf-8").splitlines())
    assert (row["number"], row["state"], row["best_value"]) == ("0", "", "")
    assert trials.ended(storage, study) == []
    with pytest.raises(UsageError, match="trial 0 waits at a rung") as caught:
        change.retry(storage, study, 0, by="a test")
    assert caught.value.hint == "continue it: mhist-tune thaw small 0"
    assert len(ledger.slots(storage, study, "search")) == 9


def test_rungs_lie_below_the_last_epoch() -> None:
    """A trial that reaches its last epoch is complete and does not wait."""
    pruner = {"name": "promotion", "min_resource": 3, "reduction_factor": 3}
    assert rungs(pruner, 27) == [3, 9]


def test_an_audited_slot_goes_on_and_is_no_competitor(storage: Storage, make_study: MakeStudy) -> None:
    """Its epoch records that it would have waited. The next arrivals are judged without it."""
    study = make_study(n_trials=9, lease_s=60.0, pruner=PRUNER.replace(" }", ", audit = 0.5 }"))
    book, fates = RungBook(storage, study, "search"), {}
    for _ in range(4):
        claim = ledger.claim(storage, study, ["search"], worker="w", observer=LeaseObserver())
        assert claim is not None
        record_epoch(storage, claim, epoch=1, score=0.5, value=0.5, metrics={})
        fates[claim.slot] = book.arrive(claim, epoch=1, value=0.5, if_not_promoted=PRUNED)
    audited = {slot for slot in fates if is_audited(study.definition.pruner, slot)}
    assert len(audited) == 2
    for slot, decision in fates.items():
        assert (decision.audited, decision.verdict is Verdict.WAIT) == (slot in audited, slot not in audited)
        [epoch] = epochs_of(storage, study, "search", slot)
        assert epoch.decision == decision
    assert max(decision.n_competitors for slot, decision in fates.items() if slot not in audited) == 1


@pytest.mark.parametrize(("score_line", "expected"), [('score = "mean_f1"', set()), ("", {0, 1})])
def test_trivial_models_are_set_apart_unless_the_study_is_of_f1_at_the_best_epoch(
    storage: Storage, make_study: MakeStudy, score_line: str, expected: set[int]
) -> None:
    """Of seven equal trivial models none goes on, read by another process too; older rules promote two of them."""
    study = make_study(n_trials=9, lease_s=60.0, pruner=f"{PRUNER}\n{score_line}")
    trivial = Outcome(state=EndState.PRUNED, params={}, is_trivial=True)
    observer = LeaseObserver()
    for slot in range(7):
        # the free slots come in the order of their numbers, after any promoted one, which stays leased
        while (claim := ledger.claim(storage, study, ["search"], worker="w", observer=observer)) is not None:
            if claim.slot == slot:
                break
        assert claim is not None
        ledger.attach_trial(storage, claim, 1000 + slot, slot)
        record_epoch(storage, claim, epoch=1, score=0.6, value=0.6, metrics={})
        RungBook(storage, study, "search").arrive(claim, epoch=1, value=0.6, if_not_promoted=trivial)

    seen = decide_again(storage, study)

    promoted = {
        event.slot for event in event_log.events(storage, study, kind=KIND) if event.detail["verdict"] == "go on"
    }
    assert promoted == expected
    assert seen[1].n_promoted == len(expected)
