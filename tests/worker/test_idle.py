"""Idle workers: how often they ask the database, what wakes them, and when they leave."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import text

from mhist_tune.events import Interrupted, StopRequest
from mhist_tune.storage import ledger, studies, surveys, tables
from mhist_tune.storage.announcements import Listener
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.leases import LeaseObserver
from mhist_tune.storage.payloads import SearchPayload
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.storage.studies import Study
from mhist_tune.worker import idle
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import PostgresServer
from tests.worker.test_loop import DEFINITION

Run = Callable[..., tuple[int, str, str]]
MakeStudy = Callable[..., Study]

WAKE_S = 2.0
N_SLOTS = 5000


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    url = postgres.new_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture
def study(url: str, make_definition: Callable[..., Any]) -> Study:
    """A study in that database."""
    with open_storage(url) as storage:
        return studies.create_study(storage, make_definition(n_trials=1), dataset={}, image_sets={})


@pytest.fixture
def work(run: Run, generated: Path, tmp_path: Path) -> Callable[..., str]:
    """A function that runs a worker on the study "small", which it creates, and returns what it said."""
    (tmp_path / "small.toml").write_text(DEFINITION)

    def call(*options: str, at: str) -> str:
        data = ("--data", str(generated), "--storage", at)
        assert run("create-study", "small.toml", *data)[0] == 0
        code, _, err = run("worker", "small", "--devices", "cpu", "--per-device", "1", *options, *data)
        assert code == 0, err
        return err

    return call


def listening(storage: Storage, wait: Listener, study: Study) -> None:
    """Let a listener listen; its first wait says at once that it does."""
    assert wait.wait(60.0, study.uuid)


def test_every_way_to_new_work_wakes_a_listener(url: str, study: Study) -> None:
    """Slots that are added or released, and a study that is continued; another study's work wakes nobody."""
    with open_storage(url) as storage, open_storage(url) as other:
        listener = Listener(storage, StopRequest())
        listening(storage, listener, study)
        claim = ledger.claim(other, study, ["search"], worker="w", observer=LeaseObserver())
        assert claim is not None
        for act in (
            lambda: ledger.add_slots(other, study, Stage.SEARCH, [SearchPayload()]),
            lambda: ledger.release(other, claim),
            lambda: studies.set_state(other, study, "active"),
        ):
            started = time.monotonic()
            threading.Timer(0.3, act).start()
            assert listener.wait(60.0, study.uuid)
            assert time.monotonic() - started < WAKE_S
        act()
        assert not listener.wait(0.5, "another")


def test_what_is_announced_between_two_waits_is_heard(url: str, study: Study) -> None:
    """A worker that asks while a slot is added hears of it in its next wait."""
    with open_storage(url) as storage, open_storage(url) as other:
        listener = Listener(storage, StopRequest())
        listening(storage, listener, study)
        ledger.add_slots(other, study, Stage.SEARCH, [SearchPayload()])
        storage.now()
        assert listener.wait(60.0, study.uuid)
        assert not listener.wait(0.1, study.uuid)


def test_only_an_idle_worker_listens(url: str) -> None:
    """After `end` the connection has no channel, so a worker that trains is not woken."""
    channels = text("SELECT pg_listening_channels()")
    with open_storage(url) as storage:
        listener = Listener(storage, StopRequest())
        assert listener.wait(60.0, None)
        assert storage.read(lambda connection: connection.execute(channels).scalars().all())
        listener.end()
        assert not storage.read(lambda connection: connection.execute(channels).scalars().all())


def test_a_wait_ends_with_a_stop_and_survives_the_server(url: str, postgres: PostgresServer) -> None:
    """A signal ends it at once; a server that goes ends neither the wait nor the worker."""
    stop = StopRequest()
    with open_storage(url) as storage:
        listener = Listener(storage, stop)
        assert listener.wait(60.0, None)
        threading.Timer(0.2, postgres.crash).start()
        assert not listener.wait(1.5, None)
        postgres.start()
        assert listener.wait(60.0, None)  # it listens again
        threading.Timer(0.2, lambda: stop.set(15)).start()
        with pytest.raises(Interrupted):
            listener.wait(60.0, None)


@pytest.mark.parametrize("pool_mode", ["session", "transaction"])
def test_behind_a_pooler_nobody_listens(url: str, study: Study, pool_mode: str) -> None:
    """The wait lasts its time, and no connection of the pool gets a channel."""
    bouncer = PgBouncer(url, pool_mode)
    try:
        with open_storage(bouncer.url) as storage:
            ledger.add_slots(storage, study, Stage.SEARCH, [SearchPayload()])
            assert not Listener(storage, StopRequest()).wait(0.2, study.uuid)
            channels = text("SELECT pg_listening_channels()")
            assert not storage.read(lambda connection: connection.execute(channels).scalars().all())
    finally:
        bouncer.remove()


def test_an_idle_worker_asks_less_than_once_a_second(
    work: Callable[..., str], url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statements that the server logs while a worker is idle, over the time that its waits last without new work."""
    with open_storage(url) as storage:
        name = sqlalchemy.make_url(url).database
        with storage.engine.connect() as connection:
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET log_statement = 'all'")
            connection.commit()
    asked: list[float] = []
    n_logged: list[int] = []

    class Hurried(Listener):
        def wait(self, timeout_s: float, study_uuid: str | None) -> bool:
            """Say that the time has passed, and hold all slots so that the worker stays idle."""
            if not asked:
                held = sqlalchemy.update(tables.slots).values(state=SlotState.LEASED, expires_at=4e9, owner="x:y")
                with open_storage(url) as storage:
                    storage.transaction(lambda connection: connection.execute(held))
                super().wait(0.0, study_uuid)
            super().wait(0.0, study_uuid)
            asked.append(timeout_s)
            n_logged.append(len(re.findall("LOG:  (statement|execute)", postgres.log())))
            return False

    monkeypatch.setattr(idle, "Listener", Hurried)
    monkeypatch.setattr(idle.Idle, "is_over", property(lambda self: len(asked) == 40))
    with open_storage(url) as storage:
        monkeypatch.setattr(surveys.Survey, "is_claimable", False)
    work("--max-idle", "60", at=url)

    per_second = (n_logged[-1] - n_logged[0]) / sum(asked[1:])
    assert 0.05 < per_second < 1.0


def test_a_claim_does_not_read_the_slots_that_are_done(storage: Storage, make_study: MakeStudy) -> None:
    """Neither the survey nor the claim scans or sorts the slots, whatever their number; both use the index."""
    study = make_study(n_trials=1)
    ledger.add_slots(storage, study, Stage.SEARCH, [SearchPayload()] * N_SLOTS)
    many = sqlalchemy.update(tables.slots).where(tables.slots.c.slot < N_SLOTS - 5)
    storage.transaction(lambda connection: connection.execute(many.values(state=SlotState.DONE)))
    if storage.dialect == "postgresql":
        storage.transaction(lambda connection: connection.execute(text("ANALYZE mhist_slots")))
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT") and "mhist_slots" in statement:
            statements.append((statement, parameters))

    sqlalchemy.event.listen(storage.engine, "before_cursor_execute", note)
    assert ledger.claim(storage, study, list(Stage), worker="w", observer=LeaseObserver()) is not None
    sqlalchemy.event.remove(storage.engine, "before_cursor_execute", note)
    assert len(statements) == 3  # the survey, the next slot, the claimed one
    for statement, parameters in statements:
        with storage.engine.connect() as connection:
            if storage.dialect == "postgresql":
                [[plan]] = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
                nodes = list(nodes_of(plan[0]["Plan"]))
                assert not any(node["Node Type"] == "Seq Scan" and node["Actual Rows"] > 10 for node in nodes)
                assert max(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in nodes) < 20
                assert "mhist_slots_by_state" in json.dumps(plan) or "mhist_slots_pkey" in json.dumps(plan)
            else:
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
                plans = [row[-1] for row in rows]
                assert not any(plan.startswith(("SCAN mhist_slots", "USE TEMP")) for plan in plans), plans
            connection.rollback()


def nodes_of(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a node of a plan and all below it."""
    yield node
    for child in node.get("Plans", ()):
        yield from nodes_of(child)


def test_a_worker_leaves_after_its_count(work: Callable[..., str], storage_url_sqlite: str) -> None:
    """Two slots are free, one is enough."""
    said = work("--count", "1", at=storage_url_sqlite)

    assert 'reason="1 slot done, as --count says"' in said
    with open_storage(storage_url_sqlite) as storage:
        states = ledger.counts(storage, studies.load_study(storage, "small"), Stage.SEARCH)
        assert states == {"done": 1, "free": 1}
    assert 'reason="no slot is left"' in work("--count", "5", at=storage_url_sqlite)


def test_an_idle_worker_leaves(work: Callable[..., str], run: Run, storage_url_sqlite: str, generated: Path) -> None:
    """It leaves though others hold slots, and exits with 0."""
    assert run("create-study", "small.toml", "--data", str(generated), "--storage", storage_url_sqlite)[0] == 0
    with open_storage(storage_url_sqlite) as storage:
        study = studies.load_study(storage, "small")
        for _ in range(2):
            assert ledger.claim(storage, study, ["search"], worker="w", observer=LeaseObserver())
    assert 'reason="no slot was free for 1 s"' in work("--max-idle", "0.02", at=storage_url_sqlite)
