"""`status`: what is recorded about a study under way, the same on both databases."""

import pytest

from mhist_tune.report import status, status_text
from mhist_tune.storage import ledger
from mhist_tune.storage.database import Storage
from mhist_tune.storage.epochs import record_epoch
from mhist_tune.storage.heartbeats import heartbeat
from mhist_tune.storage.leases import Claim, LeaseObserver, renew
from mhist_tune.storage.outcome import EndState, Outcome
from tests.conftest import MakeStudy
from tests.support import made_up


def test_a_study_under_way(storage: Storage, make_study: MakeStudy) -> None:
    """One slot done in 20 s, one held after 5 s, two free, one worker: its lease, its progress and 55 s are left."""
    study = make_study(n_trials=4, lease_s=60.0)
    observer = LeaseObserver()

    def claim() -> Claim:
        claimed = ledger.claim(storage, study, ["search"], worker="host-1-abc", observer=observer)
        assert claimed is not None
        return claimed

    first = claim()
    for epoch in (1, 2):
        record_epoch(storage, first, epoch=epoch, score=0.5, value=0.5, metrics={"elapsed_s": 10.0})
    outcome = Outcome(state=EndState.COMPLETE, value=0.5, best_epoch=1, stopped_epoch=2, params={})
    assert ledger.decide(storage, first, outcome)
    assert ledger.finish(storage, first)
    second = claim()
    record_epoch(storage, second, epoch=1, score=0.4, value=0.4, metrics={"elapsed_s": 5.0})
    progress = {"stage": "search", "slot": second.slot, "epoch": 1, "images_per_s": 321.0, "memory_bytes": 2 * 10**9}
    beat = heartbeat(storage, "host-1-abc", study=study.uuid, device="cuda:1", state="training", **progress)
    storage.transaction(lambda connection: connection.execute(beat))
    found = status.of_study(storage, study)

    assert found.stages["search"] == {"done": 1, "leased": 1, "free": 2}
    assert found.trials["COMPLETE"] == 1
    assert found.best.value == 0.5
    [worker] = found.workers
    assert (worker.worker, worker.device, worker.slot, worker.epoch) == ("host-1-abc", "cuda:1", 1, 1)
    assert 0.0 <= worker.lease_age_s < 30.0
    assert found.time_left_s == pytest.approx(2 * 20.0 + 15.0)
    text = status_text.to_text(found)
    for part in ("1 done, 2 free, 1 leased", "321 images/s", "2.0 GB", "epoch 1", "time left: about 55 s"):
        assert part in text


def test_the_looks_at_the_test_images_by_all_studies_are_shown(storage: Storage) -> None:
    """A study that has not opened its images shows who has. The image rows say that the images are the same."""
    first = made_up.create(storage, "first")
    made_up.open_test(storage, first, reason="first opening")
    made_up.open_test(storage, first, trial=4, reason="another trial")
    second = made_up.create(storage, "second")
    found = status.of_study(storage, second)

    assert found.test_openings == 0
    assert [(one.study, one.reason) for one in found.openings] == [
        ("first", "first opening"),
        ("first", "another trial"),
    ]
    text = status_text.to_text(found)
    assert "test partition opened 0 times, these images 2 times by all studies" in text
    assert "by first: another trial" in text


def test_an_abandoned_slot_is_named(storage: Storage, make_study: MakeStudy) -> None:
    """A killed worker is none any more: its slot is shown with its name, its epoch, since when, and what follows."""
    study = make_study(lease_s=20.0)
    claim = ledger.claim(storage, study, ["search"], worker="gone-1-abc", observer=LeaseObserver())
    assert claim is not None
    assert ledger.attach_trial(storage, claim, 7, 3)
    progress = {"stage": "search", "slot": claim.slot, "epoch": 91}
    beat = heartbeat(storage, "gone-1-abc", study=study.uuid, device="cuda:1", state="training", **progress)
    storage.transaction(lambda connection: connection.execute(beat))
    assert renew(storage, claim, -300.0)
    found = status.of_study(storage, study)

    assert found.stages["search"]["leased"] == 1
    assert found.workers == []
    assert found.time_left_s is None
    [slot] = found.abandoned
    assert (slot.worker, slot.device, slot.slot, slot.epoch) == ("gone-1-abc", "cuda:1", 0, 91)
    assert 300.0 <= slot.since_s < 330.0
    line = "abandoned by gone-1-abc: search trial 3, epoch 91, lease ended 5 min ago; the next worker that has watched"
    assert f"{line} the lease for 20 s takes it over" in status_text.to_text(found)
