"""Openings of the test partition on record."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from mhist_tune.storage import ledger
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.openings import load_openings, record_opening
from mhist_tune.storage.payloads import RetrainPayload
from mhist_tune.storage.studies import Study

MakeStudy = Callable[..., Study]


@pytest.fixture
def study(make_study: MakeStudy) -> Study:
    return make_study(n_trials=2)


def seed_of(seed: int, opening: int | None = None) -> RetrainPayload:
    """Return the payload of the slot of one seed."""
    return RetrainPayload(trial=3, params={}, seed=seed, stop_epoch=1, configured_epochs=1, opening=opening)


def open_for(storage: Storage, study: Study, payload: dict[str, Any]) -> int:
    """Record an opening with two slots."""
    return record_opening(
        storage,
        study,
        by="me",
        code_version="1.0",
        reason="first",
        payload=payload,
        fingerprint="f",
        slots=[seed_of(0), seed_of(1)],
    )


def test_an_opening_is_recorded_with_its_slots(storage: Storage, study: Study) -> None:
    """Each slot knows its opening; the same opening again adds nothing, another one does."""
    first = open_for(storage, study, {"trial": 3})
    assert open_for(storage, study, {"trial": 3}) == first
    second = open_for(storage, study, {"trial": 4})

    opened = load_openings(storage, study)
    assert [(opening.id, opening.payload) for opening in opened] == [(first, {"trial": 3}), (second, {"trial": 4})]
    assert (opened[0].by, opened[0].code_version, opened[0].reason, opened[0].fingerprint) == (
        "me",
        "1.0",
        "first",
        "f",
    )
    assert abs(opened[0].opened_at - storage.now()) < 60
    assert [(slot.slot, slot.payload) for slot in ledger.slots(storage, study, "retrain")] == [
        (0, seed_of(0, first)),
        (1, seed_of(1, first)),
        (2, seed_of(0, second)),
        (3, seed_of(1, second)),
    ]


def test_simultaneous_openings_are_one_opening(storage: Storage, storage_url: str, study: Study) -> None:
    """Several processes that open the test partition with one payload record one opening."""
    barrier, ids = threading.Barrier(3), []

    def ask() -> None:
        with open_storage(storage_url) as own:
            barrier.wait()
            ids.append(open_for(own, study, {"trial": 3}))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ids) == 3
    assert len(set(ids)) == 1
    assert len(ledger.slots(storage, study, "retrain")) == 2
