"""Heartbeats of workers."""

from collections.abc import Callable
from typing import Any

import pytest

from mhist_tune.storage.database import Storage
from mhist_tune.storage.heartbeats import heartbeat, load_workers
from mhist_tune.storage.studies import Study

MakeStudy = Callable[..., Study]


@pytest.fixture
def study(make_study: MakeStudy) -> Study:
    return make_study(n_trials=2)


def let_the_clock_move(storage: Storage) -> None:
    """Return when the database's clock shows another time, which SQLite's does every millisecond."""
    before = storage.now()
    while storage.now() == before:
        pass


def beat(storage: Storage, worker: str, **now: Any) -> None:
    """Note that a worker is alive."""
    statement = heartbeat(storage, worker, device="cpu", **now)
    storage.transaction(lambda connection: connection.execute(statement))


def test_a_worker_is_one_row_that_moves_on(storage: Storage, study: Study) -> None:
    """A heartbeat replaces all columns of a worker's row except the time of its start."""
    beat(storage, "w1", study=study.uuid, state="training", slot=0, epoch=1)
    (first,) = load_workers(storage, study)
    let_the_clock_move(storage)
    beat(storage, "w1", study=study.uuid, state="waiting", memory_bytes=2**40)
    let_the_clock_move(storage)
    beat(storage, "w2", study=None, state="waiting")

    (second,) = load_workers(storage, study)
    assert (first["slot"], first["epoch"], first["state"]) == (0, 1, "training")
    assert (second["slot"], second["epoch"], second["state"]) == (None, None, "waiting")
    assert second["memory_bytes"] == 2**40
    assert second["started_at"] == first["started_at"]
    assert second["seen_at"] > first["seen_at"]
    assert [row["worker"] for row in load_workers(storage)] == ["w2", "w1"]
