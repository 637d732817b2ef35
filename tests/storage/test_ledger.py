import collections
import dataclasses
import random
import threading
import time
from collections.abc import Callable

import pytest
import sqlalchemy
from sqlalchemy import text

from mhist_tune.storage import ledger, studies, tables
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.leases import Claim, LeaseKeeper, LeaseObserver, StaleTokenError, fence, renew
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.payloads import ConfirmPayload, RetrainPayload, SearchPayload
from mhist_tune.storage.predictions import predictions_of
from mhist_tune.storage.slot_rows import SlotRow
from mhist_tune.storage.studies import Study
from tests.support.ledger_process import N_EPOCHS
from tests.support.postgres import PostgresServer
from tests.support.processes import Fleet

WAIT_S = 30.0

MakeStudy = Callable[..., Study]

RETRAIN = RetrainPayload(trial=0, params={}, seed=0, stop_epoch=1, configured_epochs=1)
CONFIRM = ConfirmPayload(trial=0, params={}, fit="inner", fold=0)


class Clock:
    """A clock that changes only when the test sets it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def take(storage: Storage, study: Study, observer: LeaseObserver | None = None) -> Claim | None:
    """Claim a search slot."""
    return ledger.claim(storage, study, ["search"], worker="w", observer=observer or LeaseObserver())


def must_take(storage: Storage, study: Study, observer: LeaseObserver | None = None) -> Claim:
    """Claim a search slot that has to be there."""
    claim = take(storage, study, observer)
    assert claim is not None
    return claim


def lapse(storage: Storage, expires_at: float = 1.0) -> None:
    """Let every lease end long ago by the database's clock."""
    held = sqlalchemy.update(tables.slots).where(tables.slots.c.state == "leased")
    storage.transaction(lambda connection: connection.execute(held.values(expires_at=expires_at)))


def take_over(storage: Storage, study: Study) -> Claim:
    """Take over the only slot, after having seen its lease unchanged for long enough."""
    lapse(storage)
    clock = Clock()
    observer = LeaseObserver(clock)
    for _ in range(3):
        claim = take(storage, study, observer)
        clock.now_s += study.definition.lease_s / 2
    assert claim is not None
    return claim


def row_of(storage: Storage, study: Study, slot: int = 0) -> SlotRow:
    """Return a search slot as it is stored."""
    return ledger.slots(storage, study, "search")[slot]


def test_a_claim_is_a_lease_on_the_first_free_slot(storage: Storage, make_study: MakeStudy) -> None:
    """Slots go out in order, each once, with their payload, a token, and a lease by the database's clock."""
    study = make_study(n_trials=2, start=(1e-3,), lease_s=60)
    before = storage.now()

    first, second = must_take(storage, study), must_take(storage, study)

    assert (first.slot, second.slot) == (0, 1)
    assert first == Claim(
        study.uuid, "search", 0, 1, SearchPayload(params={"learning_rate": 1e-3}), None, None, 1, None
    )
    row = row_of(storage, study)
    assert (row.state, row.token, row.n_claims) == ("leased", 1, 1)
    assert row.owner is not None and row.owner.startswith("w:")
    assert row.expires_at is not None and before + 60 <= row.expires_at <= storage.now() + 60
    assert take(storage, study) is None
    assert ledger.counts(storage, study, "search") == {"leased": 2}


def test_slots_are_claimed_by_stage_then_priority_then_number(storage: Storage, make_study: MakeStudy) -> None:
    """The order of the stages is the caller's; slots of other stages are left alone."""
    study = make_study(n_trials=1)
    assert ledger.add_slots(storage, study, "search", [SearchPayload()] * 2, priority=5) == [1, 2]
    assert ledger.add_slots(storage, study, "retrain", [RETRAIN]) == [0]
    assert ledger.add_slots(storage, study, "confirm", [CONFIRM]) == [0]

    observer, got = LeaseObserver(), []
    while claim := ledger.claim(storage, study, ["retrain", "search"], worker="w", observer=observer):
        got.append((claim.stage, claim.slot))

    assert got == [("retrain", 0), ("search", 1), ("search", 2), ("search", 0)]


def test_nothing_is_claimed_while_a_study_is_paused(storage: Storage, make_study: MakeStudy) -> None:
    """A paused study hands out no slot, an active one does again."""
    study = make_study(n_trials=1)
    studies.set_state(storage, study, "paused")
    assert take(storage, study) is None

    studies.set_state(storage, study, "active")

    assert take(storage, study) is not None


def test_eight_processes_claim_150_slots_once_each(storage: Storage, storage_url: str, make_study: MakeStudy) -> None:
    """No slot is claimed twice and none is left."""
    make_study(n_trials=150, lease_s=600)
    with Fleet() as fleet:
        for _ in range(8):
            fleet.start("claim", storage_url, "small")
        fleet.go()
        claims = [(process.pid, line["slot"]) for process, line in fleet.lines() if line["event"] == "claimed"]

        assert [process.returncode for process in fleet.processes] == [0] * 8
    assert sorted(slot for _, slot in claims) == list(range(150))
    assert len({pid for pid, _ in claims}) > 1


@pytest.mark.parametrize(("n_workers", "n_kills"), [(2, 2), (6, 5)])
def test_killed_workers_lose_no_slot_and_no_epoch(
    storage: Storage, storage_url: str, make_study: MakeStudy, n_workers: int, n_kills: int
) -> None:
    """Workers are killed in the midst of a slot and replaced: every slot is done, every epoch recorded once."""
    study = make_study(n_trials=16, lease_s=1.0)
    kill_after = random.Random(n_workers)
    n_left, killed = n_kills, set()
    recorded: collections.Counter[tuple[int, int]] = collections.Counter()
    with Fleet() as fleet:
        for _ in range(n_workers):
            fleet.start("work", storage_url, "small")
        fleet.go()
        victim_epoch = kill_after.randrange(1, N_EPOCHS + 1)
        for process, line in fleet.lines():
            if line["event"] == "ready":
                fleet.begin(process)
            if line["event"] != "epoch":
                continue
            recorded[line["slot"], line["epoch"]] += 1
            if n_left and line["epoch"] == victim_epoch and process.poll() is None and process not in killed:
                process.kill()
                killed.add(process)
                n_left -= 1
                victim_epoch = kill_after.randrange(1, N_EPOCHS + 1)
                fleet.start("work", storage_url, "small")

        codes = collections.Counter(process.returncode for process in fleet.processes)
        assert codes == {0: n_workers, -9: n_kills}

    rows = ledger.slots(storage, study, "search")
    assert {row.state for row in rows} == {"done"}
    assert {row.slot: row.outcome for row in rows} == {
        row.slot: Outcome(state=EndState.COMPLETE, value=row.slot + N_EPOCHS / 10) for row in rows
    }
    assert {row.trial_id for row in rows} == {1000 + row.slot for row in rows}
    assert any(row.n_claims > 1 for row in rows)
    assert set(recorded.values()) == {1}  # nobody was told twice that an epoch is new
    for row in rows:
        epochs = epochs_of(storage, study, "search", row.slot)
        assert [epoch.epoch for epoch in epochs] == list(range(1, N_EPOCHS + 1))
        assert [epoch.token for epoch in epochs] == sorted(epoch.token for epoch in epochs)
        assert epochs[-1].token <= row.token == row.n_claims
    assert set(predictions_of(storage, study, "search", "val")) == set(range(16))


def test_a_stale_token_writes_nothing(storage: Storage, make_study: MakeStudy) -> None:
    """Once a slot was taken over, its old holder's every write is refused and leaves the row as it is."""
    study = make_study(n_trials=1)
    old = must_take(storage, study)
    assert ledger.attach_trial(storage, old, 7, 3)
    new = take_over(storage, study)
    before = row_of(storage, study)

    assert not renew(storage, old, 60.0)
    assert not ledger.release(storage, old)
    assert not ledger.attach_trial(storage, old, 7, 3)
    assert not ledger.decide(storage, old, Outcome(state=EndState.COMPLETE))
    assert not ledger.finish(storage, old)
    with pytest.raises(StaleTokenError):
        storage.transaction(lambda connection: fence(connection, old))

    assert row_of(storage, study) == before
    assert new == dataclasses.replace(old, token=2, n_claims=2, trial_id=7, trial_number=3)
    assert ledger.decide(storage, new, Outcome(state=EndState.COMPLETE))
    assert ledger.finish(storage, new)


def test_a_lease_is_taken_over_only_after_it_was_seen_for_its_full_length(
    storage: Storage, make_study: MakeStudy
) -> None:
    """Not at first sight, however old it is; not a moment too early; not after a renewal."""
    study = make_study(n_trials=1, lease_s=0.3)
    old = must_take(storage, study)
    lapse(storage)
    clock = Clock()
    observer = LeaseObserver(clock)

    assert take(storage, study, observer) is None
    clock.now_s = 0.14
    assert take(storage, study, observer) is None
    clock.now_s = 0.28
    assert take(storage, study, observer) is None
    assert renew(storage, old, 0.3)
    lapse(storage, 2.0)
    clock.now_s = 0.42
    assert take(storage, study, observer) is None
    clock.now_s = 0.56
    assert take(storage, study, observer) is None
    clock.now_s = 0.70
    assert take(storage, study, observer) is None
    clock.now_s = 0.73

    claim = must_take(storage, study, observer)

    assert (claim.slot, claim.token) == (0, 2)
    assert ledger.counts(storage, study, "search") == {"leased": 1}


def test_an_abandoned_slot_comes_before_free_ones(storage: Storage, make_study: MakeStudy) -> None:
    """A worker that watched while it trained takes over the killed worker's slot, and only then begins a free one."""
    study = make_study(n_trials=4, lease_s=10.0)
    assert must_take(storage, study).slot == 0  # its holder is killed
    lapse(storage)
    clock = Clock()
    observer = LeaseObserver(clock)
    own = must_take(storage, study, observer)
    for _ in range(2):
        clock.now_s += 5.0
        assert renew(storage, own, 10.0)
        ledger.watch(storage, study, ["search"], observer)
    assert ledger.finish(storage, own)

    assert [must_take(storage, study, observer).slot for _ in range(3)] == [0, 2, 3]


def test_a_keeper_watches_while_it_renews(storage: Storage, make_study: MakeStudy) -> None:
    """It watches at its own interval, also while recorded epochs renew the lease for it, and after an error."""
    claim = must_take(storage, make_study(n_trials=1, lease_s=0.3))
    watched = threading.Semaphore(0)

    def watch() -> None:
        watched.release()
        raise RuntimeError("the database did not answer")

    with LeaseKeeper(storage, claim, 0.3, watch=watch) as keeper:
        for _ in range(3):
            keeper.renewed(time.monotonic())
            assert watched.acquire(timeout=WAIT_S)


def test_a_renewal_between_observation_and_takeover_wins(storage: Storage, make_study: MakeStudy) -> None:
    """If the holder renews after the observer found the lease abandoned, it keeps the slot."""
    study = make_study(n_trials=1, lease_s=0.3)
    old = must_take(storage, study)

    class Renewing(LeaseObserver):
        def abandoned(self, study_uuid, leases, **options):  # type: ignore[no-untyped-def]
            assert renew(storage, old, 60.0)
            assert leases
            return list(leases)

    lapse(storage)
    assert take(storage, study, Renewing()) is None
    assert row_of(storage, study).token == 1
    assert ledger.finish(storage, old)


def test_time_without_the_database_does_not_count() -> None:
    """An interruption starts the watch again. A long gap between two observations counts as half a lease at most."""
    clock = Clock()
    observer = LeaseObserver(clock)

    def look(at_s: float, n_interruptions: int) -> list[tuple[str, int]]:
        clock.now_s = at_s
        leases = {("search", 0): (1, 5.0)}
        return observer.abandoned("u", leases, lease_s=10.0, queried_at=at_s, n_interruptions=n_interruptions)

    assert look(0, 0) == []
    assert look(4, 0) == []
    assert look(9, 0) == []
    assert look(1000, 1) == []  # the database had been unreachable
    assert look(1005, 1) == []
    assert look(1009, 1) == []
    assert look(1010, 1) == [("search", 0)]

    assert look(2000, 2) == []
    assert look(9000, 2) == []  # busy elsewhere
    assert look(9004, 2) == []
    assert look(9005, 2) == [("search", 0)]


def test_a_slow_answer_does_not_count_as_watching() -> None:
    """The time from the first answer to the last query counts."""
    clock = Clock()
    observer = LeaseObserver(clock)
    leases = {("search", 0): (1, 5.0)}

    def look(queried_at: float, answered_at: float) -> list[tuple[str, int]]:
        clock.now_s = answered_at
        return observer.abandoned("u", leases, lease_s=10.0, queried_at=queried_at, n_interruptions=0)

    assert look(0, 8) == []
    assert look(12, 20) == []
    assert look(25, 25) == []  # 4 + 5 seconds
    assert look(26, 26) == [("search", 0)]


def test_the_first_outcome_is_final(storage: Storage, make_study: MakeStudy) -> None:
    """Another outcome is refused, an equal one is not, and the next claim has the first."""
    study = make_study(n_trials=1)
    claim = must_take(storage, study)

    complete, pruned = Outcome(state=EndState.COMPLETE, params={"path": ("a", "b")}), Outcome(state=EndState.PRUNED)
    assert ledger.decide(storage, claim, complete)
    assert ledger.decide(storage, claim, complete)
    assert not ledger.decide(storage, claim, pruned)

    later = take_over(storage, study)
    assert later.outcome == Outcome(state=EndState.COMPLETE, params={"path": ["a", "b"]})
    assert not ledger.decide(storage, later, pruned)
    assert ledger.decide(storage, later, later.outcome)


def test_a_slot_keeps_its_trial(storage: Storage, make_study: MakeStudy) -> None:
    """Another trial is refused, the same one again is not."""
    study = make_study(n_trials=1)
    claim = must_take(storage, study)

    assert ledger.attach_trial(storage, claim, 7, 3)
    assert ledger.attach_trial(storage, claim, 7, 3)
    assert not ledger.attach_trial(storage, claim, 8, 4)

    assert (row_of(storage, study).trial_id, row_of(storage, study).trial_number) == (7, 3)


def test_a_released_slot_is_free_at_once_and_a_finished_one_never(storage: Storage, make_study: MakeStudy) -> None:
    """Both end the claim. Both can be repeated, since an answer may be lost."""
    study = make_study(n_trials=1)
    claim = must_take(storage, study)
    assert ledger.release(storage, claim) and ledger.release(storage, claim)
    assert not renew(storage, claim, 60.0)
    assert not ledger.finish(storage, claim)

    again = must_take(storage, study)
    assert (again.slot, again.token, again.n_claims) == (0, 2, 2)
    assert ledger.finish(storage, again) and ledger.finish(storage, again)

    assert not ledger.release(storage, again)
    assert take(storage, study) is None
    assert row_of(storage, study).expires_at is None


def test_slots_of_one_key_are_added_once(storage: Storage, make_study: MakeStudy) -> None:
    """Without a key every call adds, with one only the first does; a deleted study gets none."""
    study = make_study(n_trials=1)

    assert ledger.add_slots(storage, study, "search", [SearchPayload(retry_of=1)]) == [1]
    assert ledger.add_slots(storage, study, "search", [SearchPayload(retry_of=2)], key="top") == [2]
    assert ledger.add_slots(storage, study, "search", [SearchPayload(retry_of=3)], key="top") == [2]
    assert ledger.add_slots(storage, study, "search", [SearchPayload(retry_of=4)]) == [3]

    assert [slot.payload.retry_of for slot in ledger.slots(storage, study, "search")] == [None, 1, 2, 4]


def test_slots_added_at_once_have_different_numbers(storage: Storage, storage_url: str, make_study: MakeStudy) -> None:
    """Several processes that extend a study at once add all their slots."""
    study, barrier = make_study(n_trials=1), threading.Barrier(4)

    def add() -> None:
        with open_storage(storage_url) as own:
            barrier.wait()
            ledger.add_slots(own, study, "search", [SearchPayload()] * 5)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [slot.slot for slot in ledger.slots(storage, study, "search")] == list(range(21))


def test_what_was_begun_ends_though_the_study_is_stopped(storage: Storage, make_study: MakeStudy) -> None:
    """A slot whose trial was interrupted is not cancelled, and is claimed again; nothing else is."""
    study = make_study(n_trials=3)
    claim = must_take(storage, study)
    assert ledger.attach_trial(storage, claim, 7, 0)
    assert ledger.release(storage, claim)
    studies.set_state(storage, study, "stopped")

    assert ledger.cancel_free(storage, study) == 2

    again = must_take(storage, study)
    assert (again.slot, again.trial_number) == (claim.slot, 0)
    assert take(storage, study) is None


def test_only_free_slots_are_cancelled(storage: Storage, make_study: MakeStudy) -> None:
    """A claimed slot is finished by its holder; another stage is touched only when all are meant."""
    study = make_study(n_trials=3)
    claim = must_take(storage, study)
    ledger.add_slots(storage, study, "retrain", [RETRAIN])

    assert ledger.cancel_free(storage, study, "search") == 2
    assert ledger.counts(storage, study, "search") == {"cancelled": 2, "leased": 1}
    assert ledger.cancel_free(storage, study) == 1

    assert take(storage, study) is None
    assert ledger.finish(storage, claim)


def on_statement(storage: Storage, moment: str, is_it: Callable[[str], bool]) -> threading.Event:
    """Return an event that is set when a statement of that kind was executed, or failed."""
    happened = threading.Event()

    def after(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if is_it(statement):
            happened.set()

    def error(context: sqlalchemy.engine.ExceptionContext) -> None:
        if is_it(str(context.statement)):
            happened.set()

    sqlalchemy.event.listen(storage.engine, moment, after if moment == "after_cursor_execute" else error)
    return happened


def is_renewal(statement: str) -> bool:
    """Return whether this statement renews a lease."""
    return statement.startswith("UPDATE mhist_slots SET expires_at")


def test_a_keeper_renews_until_its_context_ends(storage: Storage, make_study: MakeStudy) -> None:
    """The lease is prolonged in the background, so a watcher never sees it abandoned."""
    study = make_study(n_trials=1, lease_s=0.3)
    claim = must_take(storage, study)
    first = row_of(storage, study).expires_at
    renewed = on_statement(storage, "after_cursor_execute", is_renewal)

    with LeaseKeeper(storage, claim, 0.3) as keeper:
        for _ in range(3):
            assert renewed.wait(WAIT_S)
            renewed.clear()

    last = row_of(storage, study).expires_at
    assert first is not None and last is not None and last > first
    assert not keeper.lost.is_set()
    assert not any(thread.name == "lease" for thread in threading.enumerate())


def test_a_keeper_notices_a_takeover(storage: Storage, make_study: MakeStudy) -> None:
    """After a takeover `lost` is set at the next renewal."""
    study = make_study(n_trials=1, lease_s=0.3)
    old = must_take(storage, study)
    take_over(storage, study)

    with LeaseKeeper(storage, old, 0.3) as keeper:
        assert keeper.lost.wait(WAIT_S)


def test_a_keeper_survives_every_error(storage: Storage, make_study: MakeStudy) -> None:
    """Renewals fail while the table is missing and go on when it is back. The claim is kept."""
    study = make_study(n_trials=1, lease_s=0.3)
    claim = must_take(storage, study)
    failed = on_statement(storage, "handle_error", is_renewal)

    with LeaseKeeper(storage, claim, 0.3) as keeper:
        storage.transaction(lambda connection: connection.execute(text("alter table mhist_slots rename to gone")))
        assert failed.wait(WAIT_S)
        storage.transaction(lambda connection: connection.execute(text("alter table gone rename to mhist_slots")))
        before = row_of(storage, study).expires_at
        renewed = on_statement(storage, "after_cursor_execute", is_renewal)
        assert renewed.wait(WAIT_S)

    after = row_of(storage, study).expires_at
    assert before is not None and after is not None and after > before
    assert not keeper.lost.is_set()


def test_a_fenced_transaction_cannot_be_overtaken(postgres: PostgresServer, request: pytest.FixtureRequest) -> None:
    """On PostgreSQL a takeover waits for the holder's transaction, so no stale write can follow it."""
    url = postgres.new_database()
    make_definition = request.getfixturevalue("make_definition")
    with open_storage(url) as storage, open_storage(url) as other:
        study = studies.create_study(storage, make_definition(n_trials=1), dataset={}, image_sets={})
        claim = must_take(storage, study)
        lapse(storage)

        class Sure(LeaseObserver):
            def abandoned(self, study_uuid, leases, **options):  # type: ignore[no-untyped-def]
                return list(leases)

        def work(connection: sqlalchemy.Connection) -> Claim | None:
            fence(connection, claim)
            return take(other, study, Sure())

        assert storage.transaction(work) is None
        assert must_take(other, study, Sure()).token == 2
