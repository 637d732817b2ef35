"""A search within a budget of device hours, by several workers, on both databases."""

import random
import threading
from collections.abc import Callable

import pytest
import sqlalchemy

from mhist_tune.actions import change
from mhist_tune.definition import study_file
from mhist_tune.errors import UsageError
from mhist_tune.report import stage_costs, status, status_text
from mhist_tune.search import budget, costs, replay
from mhist_tune.search.pruning import rungs
from mhist_tune.search.rungs import RungBook
from mhist_tune.storage import ledger, studies, tables
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.decision import Verdict
from mhist_tune.storage.epochs import epochs_of, record_epoch
from mhist_tune.storage.leases import Claim, LeaseObserver
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.storage.studies import Study

TEXT = """
[study]
name = "small"
n_trials = {n_trials}
max_hours = {max_hours}
score = "mean_f1"
at = "last"
pruner = {pruner}
lease_s = {lease_s}
{more}

[fixed]
epochs = 9

[space]
learning_rate = {{ low = 1e-5, high = 1e-1, log = true }}

[[start]]
learning_rate = 1e-3

[confirm]
top = 1
n_folds = 2
"""
_OPEN = (SlotState.FREE, SlotState.LEASED, SlotState.WAITING)
EPOCH_S = 10.0
TRIAL_S = 9 * EPOCH_S
PROMOTION = '{ name = "promotion", min_resource = 1 }'
IMAGES = {
    "train": [[f"{n}.png", n % 2, 7 * (n % 2), None] for n in range(8)],
    "val": [[f"v{n}.png", n % 2, 7 * (n % 2), None] for n in range(2)],
}


def make(
    storage: Storage,
    *,
    n_whole: float,
    n_trials: int = 20,
    pruner: str = PROMOTION,
    lease_s: float = 30.0,
    more: str = "",
) -> Study:
    """Store a study whose budget pays for `n_whole` whole trials beside confirmation and retraining, with its plan."""

    def define(max_hours: float) -> study_file.StudyDefinition:
        text = TEXT.format(n_trials=n_trials, max_hours=max_hours, pruner=pruner, lease_s=lease_s, more=more)
        return study_file.parse(text, "test")

    reserved = costs.reserved_s(define(1), costs.seconds_per_epoch(EPOCH_S, 8, 2, define(1)))
    definition = define((reserved + n_whole * TRIAL_S + 1e-6) / 3600)
    study = studies.create_study(storage, definition, dataset={"fingerprint": "f"}, image_sets=IMAGES)
    return budget.record_plan(storage, study, EPOCH_S, "a device")


class SimulatedWorker:
    """Does what a worker does to the records, with epochs that take `EPOCH_S`; it dies with a probability."""

    def __init__(self, storage: Storage, study: Study, *, seed: int, numbers: "Numbers", p_kill: float = 0.0) -> None:
        self.storage, self.study, self.numbers, self.p_kill = storage, study, numbers, p_kill
        self.rng, self.observer = random.Random(seed), LeaseObserver()
        self.book = RungBook(storage, study, Stage.SEARCH)
        self.is_promotion = study.definition.pruner["name"] == "promotion"

    def run(self) -> None:
        """Work until no slot is left. After a kill another worker of that name goes on, with a new memory."""
        pause = threading.Event()
        while any(ledger.counts(self.storage, self.study, Stage.SEARCH).get(state) for state in _OPEN):
            claim = self.claim()
            if claim is None:
                budget.close_if_reached(self.storage, self.study)
                if self.is_promotion:
                    self.book.close()
                pause.wait(0.02)
            elif not self.train(claim):
                self.book, self.observer = RungBook(self.storage, self.study, Stage.SEARCH), LeaseObserver()

    def claim(self) -> Claim | None:
        gate = budget.gate(self.storage, self.study)
        return ledger.claim(
            self.storage, self.study, [Stage.SEARCH], worker="w", observer=self.observer, may_begin=gate
        )

    def train(self, claim: Claim) -> bool:
        """Train a slot to its end or to a rung. Return False if the worker was killed before."""
        storage, slot = self.storage, claim.slot
        if claim.trial_number is None:
            if self.rng.random() < self.p_kill:
                return False
            number = self.numbers.next()
            assert ledger.attach_trial(storage, claim, number, number)
        if claim.outcome is not None:
            return ledger.finish(storage, claim)
        done = len(epochs_of(storage, self.study, Stage.SEARCH, slot))
        outcome = Outcome(state=EndState.COMPLETE, value=random.Random(slot).random(), best_epoch=9, params={"a": slot})
        for epoch in range(max(1, done), 10):
            if self.rng.random() < self.p_kill:
                return False
            value = random.Random(f"{slot} {epoch}").random()
            record_epoch(storage, claim, epoch=epoch, score=value, value=value, metrics={"elapsed_s": EPOCH_S})
            if self.is_promotion and epoch in rungs(self.study.definition.pruner, 9):
                waits = Outcome(state=EndState.PRUNED, value=value, params={"a": slot})
                decision = self.book.arrive(claim, epoch=epoch, value=value, if_not_promoted=waits)
                if decision.verdict is Verdict.WAIT:
                    return True
                if decision.verdict is Verdict.PRUNE:
                    outcome = waits
                    break
        return ledger.decide(storage, claim, outcome) and ledger.finish(storage, claim)


class Numbers:
    """Hands out the numbers of trials."""

    def __init__(self) -> None:
        self._n, self._lock = -1, threading.Lock()

    def next(self) -> int:
        """Return the next number."""
        with self._lock:
            self._n += 1
            return self._n


def spent_s(storage: Storage, study: Study) -> float:
    """Return the device seconds of all recorded epochs, read one by one."""
    rows = [
        row
        for slot in ledger.slots(storage, study, Stage.SEARCH)
        for row in epochs_of(storage, study, Stage.SEARCH, slot.slot)
    ]
    return sum(row.metrics["elapsed_s"] or 0.0 for row in rows)


def left_s(study: Study) -> float:
    """Return the device seconds that the budget leaves for the search."""
    definition = study.definition
    reserved = costs.reserved_s(definition, costs.seconds_per_epoch(EPOCH_S, 8, 2, definition))
    assert definition.max_hours is not None
    return definition.max_hours * 3600 - reserved


@pytest.mark.parametrize(
    ("pruner", "n_workers", "n_whole", "p_kill"),
    [
        ('{ name = "none" }', 1, 3.0, 0.0),
        ('{ name = "none" }', 4, 5.5, 0.0),
        (PROMOTION, 1, 4.0, 0.0),
        (PROMOTION, 4, 4.0, 0.0),
        (PROMOTION, 3, 2.2, 0.04),
        (PROMOTION, 2, 1.0, 0.0),
    ],
)
def test_a_search_never_overspends_and_ends_with_a_complete_trial(
    storage_url: str, pruner: str, n_workers: int, n_whole: float, p_kill: float
) -> None:
    """Every epoch counts once, the recorded account is that of the records, and what did not begin is cancelled."""
    with open_storage(storage_url) as storage:
        study = make(storage, n_whole=n_whole, pruner=pruner, lease_s=0.4 if p_kill else 30.0)
        numbers = Numbers()
        workers = [
            SimulatedWorker(storage, study, seed=seed, numbers=numbers, p_kill=p_kill) for seed in range(n_workers)
        ]
        threads = [threading.Thread(target=worker.run) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        slots = ledger.slots(storage, study, Stage.SEARCH)
        reached = budget.reached(storage, study)
        assert {slot.state for slot in slots} == {SlotState.DONE, SlotState.CANCELLED}
        assert any(slot.outcome and slot.outcome.is_complete for slot in slots)
        assert spent_s(storage, study) <= left_s(study) + 1e-3
        assert reached is not None
        assert reached.n_begun == sum(slot.state is SlotState.DONE for slot in slots)
        assert reached.cancelled == tuple(slot.slot for slot in slots if slot.state is SlotState.CANCELLED)
        assert not reached.account.has_room
        assert reached.account.running_s == 0
        if pruner != PROMOTION:  # no waiting trial went on after the account
            assert reached.account.spent_s == pytest.approx(spent_s(storage, study))
            assert reached.n_begun == int(n_whole)


def test_a_budget_for_all_trials_ends_nothing(storage: Storage) -> None:
    """All trials begin, and nothing is cancelled or recorded."""
    study = make(storage, n_whole=20.0, n_trials=6)
    SimulatedWorker(storage, study, seed=0, numbers=Numbers()).run()

    assert ledger.counts(storage, study, Stage.SEARCH) == {SlotState.DONE: 6}
    assert budget.reached(storage, study) is None
    found = stage_costs.budget_of(storage, study, ledger.all_slots(storage, study))
    assert found is not None
    assert (found.n_begun, found.n_slots, found.is_reached) == (6, 6, False)


def test_a_running_trial_holds_its_whole_length_until_it_ends(storage: Storage) -> None:
    """With room for two whole trials a third one begins only when a running one has been pruned."""
    study = make(storage, n_whole=2.2)
    worker = SimulatedWorker(storage, study, seed=0, numbers=Numbers())
    first, second = worker.claim(), worker.claim()
    assert first is not None
    assert second is not None
    assert worker.claim() is None
    assert budget.close_if_reached(storage, study) is None  # something runs

    assert worker.train(first)  # one epoch, then it waits at the first rung

    third = worker.claim()
    assert third is not None
    assert (third.slot, worker.claim()) == (2, None)


def test_a_trial_that_has_begun_goes_on_without_room(storage: Storage) -> None:
    """A slot that was freed by a signal is claimed again; only new trials need room."""
    study = make(storage, n_whole=1.0)
    worker = SimulatedWorker(storage, study, seed=0, numbers=Numbers())
    claim = worker.claim()
    assert claim is not None
    ledger.attach_trial(storage, claim, 0, 0)
    record_epoch(storage, claim, epoch=1, score=0.5, value=0.5, metrics={"elapsed_s": 5 * TRIAL_S})
    assert ledger.release(storage, claim)

    again = worker.claim()

    assert again is not None
    assert (again.slot, worker.claim()) == (claim.slot, None)


def test_extension_and_budget(storage: Storage) -> None:
    """A reached budget refuses further trials; a higher one lets the cancelled ones begin, and cannot sink."""
    study = make(storage, n_whole=2.0, pruner='{ name = "none" }', n_trials=5)
    SimulatedWorker(storage, study, seed=0, numbers=(numbers := Numbers())).run()
    assert ledger.counts(storage, study, Stage.SEARCH) == {SlotState.DONE: 2, SlotState.CANCELLED: 3}
    refused: list[Callable[[], object]] = [
        lambda: change.extend(storage, study, 1, by="a test"),
        lambda: change.enqueue(storage, study, {}, by="a test"),
        lambda: change.retry(storage, study, 0, by="a test"),
    ]
    for action in refused:
        with pytest.raises(UsageError, match="no further trial may begin"):
            action()
    hours = study.definition.max_hours
    assert hours is not None
    with pytest.raises(UsageError, match="may only grow"):
        budget.raise_to(storage, study, hours / 2, by="a test")

    raised = budget.raise_to(storage, study, hours + 2 * TRIAL_S / 3600, by="a test")

    assert raised.definition.sha256 == study.definition.sha256
    assert ledger.counts(storage, study, Stage.SEARCH) == {SlotState.DONE: 2, SlotState.FREE: 3}
    assert budget.reached(storage, raised) is None
    assert change.extend(storage, raised, 1, by="a test") == 6
    SimulatedWorker(storage, study, seed=0, numbers=numbers).run()  # one that has not seen the change
    assert ledger.counts(storage, study, Stage.SEARCH) == {SlotState.DONE: 4, SlotState.CANCELLED: 2}
    assert replay.replay(storage, raised).budget == []


def test_the_first_plan_stands_and_may_lower_the_epochs(storage: Storage) -> None:
    """The number of epochs, the rungs and the plan are recorded at once; hash and text of the definition are kept."""
    study = make(storage, n_whole=1.0, pruner='{ name = "promotion" }', more="min_epochs = 3")

    assert study.settings[budget.PLAN]["n_epochs"] == study.definition.fixed["epochs"] < 9
    again = budget.record_plan(storage, study, 10 * EPOCH_S, "another device")
    assert again.settings[budget.PLAN] == study.settings[budget.PLAN]
    assert again.definition == study.definition


def test_a_budget_below_one_trial_is_refused(storage: Storage) -> None:
    """Nothing is recorded, so a faster device may plan; the hint names what pays."""
    study = make(storage, n_whole=1.0)
    text = study_file.render(study.definition).replace('"small"', '"other"')
    other = studies.create_study(
        storage, study_file.parse(text, "test"), dataset={"fingerprint": "f"}, image_sets=IMAGES
    )

    with pytest.raises(UsageError, match="one trial, confirmation and retraining take up to"):
        budget.record_plan(storage, other, 2 * EPOCH_S, "a slow device")

    assert budget.PLAN not in studies.load_study(storage, "other").settings
    assert budget.PLAN in budget.record_plan(storage, other, EPOCH_S, "a fast device").settings


def test_status_shows_the_unused_slots(storage: Storage) -> None:
    """It says how many of the trials began, that the budget was reached, and what was spent."""
    study = make(storage, n_whole=3.0, pruner='{ name = "none" }')
    assert "20 trials of up to 9 epochs" in status_text.to_text(status.of_study(storage, study))
    SimulatedWorker(storage, study, seed=0, numbers=Numbers()).run()

    found = status.of_study(storage, study)

    assert found.budget is not None
    assert (found.budget.n_begun, found.budget.n_slots, found.budget.is_reached) == (3, 20, True)
    assert found.cost is not None
    assert (found.cost.search.epochs_spent, found.cost.search.epochs) == (27, 27)
    assert found.cost.search.hours_spent == pytest.approx(3 * TRIAL_S / 3600)
    assert "3 of 20 trials begun; the budget of" in status_text.to_text(found)


def test_a_changed_account_is_found_by_replay(storage: Storage) -> None:
    """The record of the end of the search is compared with the epochs."""
    study = make(storage, n_whole=2.0, pruner='{ name = "none" }', n_trials=5)
    SimulatedWorker(storage, study, seed=0, numbers=Numbers()).run()
    assert replay.replay(storage, study).budget == []
    with storage.engine.begin() as connection:
        events = tables.events
        query = sqlalchemy.select(events.c.detail).where(events.c.kind == budget.CLOSED)
        detail = {**connection.execute(query).scalar_one(), "n_begun": 1}
        connection.execute(sqlalchemy.update(events).where(events.c.kind == budget.CLOSED).values(detail=detail))

    assert replay.replay(storage, study).budget == [
        "the end of the search by its budget is recorded after 1 trials, and 2 have begun"
    ]
