"""`SlotCache` equals the ledger, and reads changed rows only."""

import sqlalchemy

from mhist_tune.dashboard.slot_cache import SlotCache
from mhist_tune.storage import ledger
from mhist_tune.storage.database import Storage
from mhist_tune.storage.leases import LeaseObserver, renew
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.payloads import SearchPayload
from tests.conftest import MakeStudy


def test_every_change_is_seen(storage: Storage, make_study: MakeStudy) -> None:
    """After a claim, a trial, a renewal, an outcome, an end, a cancellation and an extension it equals the ledger."""
    study = make_study(n_trials=4, lease_s=60.0)
    cache = SlotCache(storage, study)
    claim = None

    def same() -> bool:
        return list(cache.slots("search")) == ledger.slots(storage, study, "search")

    assert same()
    claim = ledger.claim(storage, study, ["search"], worker="w", observer=LeaseObserver())
    assert claim is not None
    assert same()
    ledger.attach_trial(storage, claim, 7, 0)
    assert same()
    renew(storage, claim, 90.0)
    assert same()
    ledger.decide(storage, claim, Outcome(state=EndState.COMPLETE, value=0.5))
    assert same()
    ledger.finish(storage, claim)
    assert same()
    ledger.cancel_free(storage, study)
    assert same()
    ledger.add_slots(storage, study, "search", [SearchPayload(params={"learning_rate": 1e-3})])
    assert same()
    assert cache.slots("retrain") == []


def test_what_has_not_changed_is_not_read_again(storage: Storage, make_study: MakeStudy) -> None:
    """The documents of the slots are read in the first call, and in the next only that of the slot that changed."""
    study = make_study(n_trials=600)
    cache = SlotCache(storage, study)
    read: list[int] = []

    @sqlalchemy.event.listens_for(storage.engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        if "payload" in statement:
            read.append(len(parameters))  # type: ignore[arg-type]

    cache.slots("search")
    assert sum(read) >= 600
    read.clear()
    ledger.claim(storage, study, ["search"], worker="w", observer=LeaseObserver())
    read.clear()
    cache.slots("search")
    cache.slots("search")
    assert read == [3]  # study, stage and one slot
