"""The second revision of our tables, on both databases: the records of the first release by their new names."""

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic import command
from sqlalchemy import Connection, text

from mhist_tune.storage import revisions
from tests.support.postgres import PostgresServer

WENT_ON = {"prune": False, "epoch": 1, "value": 0.25, "threshold": None, "n_rivals": 0, "reason": "a", "pause": False}
PRUNED = {**WENT_ON, "prune": True, "epoch": 2, "threshold": 0.5, "n_rivals": 3, "audited": False}
WAITS = {**WENT_ON, "pause": True}
CURVE = {1: (0.25, 0.25), 2: (0.75, 0.5), 3: (0.125, 0.5)}
"""Score and objective of each epoch, with a smoothing of 2."""

ENDED = {"best_epoch": 2, "stopped_epoch": 3}
OUTCOMES: dict[int, tuple[str, dict[str, Any] | None]] = {
    0: ("done", {**ENDED, "state": "COMPLETE", "value": 0.5, "best_value": 0.75}),
    1: (
        "done",
        {
            "state": "PRUNED",
            "value": 0.125,
            "best_value": 0.75,
            "best_epoch": 2,
            "stopped_epoch": 3,
            "decision": PRUNED,
        },
    ),
    2: ("paused", {"state": "PRUNED", "value": 0.75, "best_value": 0.5, "best_epoch": 2, "stopped_epoch": 2}),
    3: ("done", {"state": "FAIL", "value": None, "reason": "a bug"}),
    4: ("free", None),
}
GO_ON = {"verdict": "go on", "epoch": 1, "value": 0.25, "threshold": None, "reason": "a", "n_competitors": 0}
PRUNE = {
    "verdict": "prune",
    "epoch": 2,
    "value": 0.25,
    "threshold": 0.5,
    "reason": "a",
    "audited": False,
    "n_competitors": 3,
}


@pytest.fixture(params=["sqlite", "postgresql"])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Connection:
    """A database of the first release: four trials of three epochs, a slot that nobody began, and a rung's event."""
    url = f"sqlite:///{tmp_path}/old.db"
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.new_database().replace("postgresql:", "postgresql+psycopg:")
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as opened:
        command.upgrade(revisions._config(opened), "0001")
        slot = "INSERT INTO mhist_slots (study, stage, slot, payload, token, state, attempts, priority, outcome)"
        epoch = "INSERT INTO mhist_epochs (study, stage, slot, epoch, token, value, best_value, metrics, decision,"
        for number, (state, outcome) in OUTCOMES.items():
            stored = None if outcome is None else json.dumps(outcome)
            values = {"slot": number, "state": state, "outcome": stored}
            opened.execute(text(f"{slot} VALUES ('s', 'search', :slot, '{{}}', 1, :state, 1, 0, :outcome)"), values)
            for at, (score, best) in CURVE.items() if outcome else ():
                row = {"slot": number, "epoch": at, "score": score, "best": best}
                decision = json.dumps(WENT_ON) if at == 1 else None
                values = ":slot, :epoch, 1, :score, :best, '{}', :decision, 0"
                insert = text(f"{epoch} recorded_at) VALUES ('s', 'search', {values})")
                opened.execute(insert, {**row, "decision": decision})
        rung = json.dumps({**WAITS, "arrived": 2, "n_slots": 5})
        event = "INSERT INTO mhist_events (study, stage, slot, at, kind, detail)"
        event += " VALUES ('s', 'search', 2, 0, :kind, :detail)"
        opened.execute(text(event), {"kind": "rung", "detail": rung})
        opened.execute(text(event), {"kind": "note", "detail": '{"prune": 1}'})
        command.upgrade(revisions._config(opened), "0002")
        yield opened
    engine.dispose()


def test_outcomes_hold_the_objective_and_the_best_score(connection: Connection) -> None:
    """A waiting slot has no outcome. Its outcome without a promotion has its own column."""
    rows = connection.execute(text("SELECT state, outcome, if_not_promoted FROM mhist_slots ORDER BY slot")).all()
    loaded = [(state, *(column and json.loads(column) for column in columns)) for state, *columns in rows]

    common = {"value": 0.5, "best_score": 0.75, "best_epoch": 2}
    assert loaded == [
        ("done", {"state": "COMPLETE", **common, "stopped_epoch": 3}, None),
        ("done", {"state": "PRUNED", **common, "stopped_epoch": 3, "decision": PRUNE}, None),
        ("waiting", None, {"state": "PRUNED", **common, "stopped_epoch": 2}),
        ("done", {"state": "FAIL", "reason": "a bug"}, None),
        ("free", None, None),
    ]


def test_epochs_and_rungs_keep_their_numbers(connection: Connection) -> None:
    """The columns have their new names, each decision has one verdict, and other events are unchanged."""
    query = "SELECT epoch, score, value, decision FROM mhist_epochs WHERE slot = 1 ORDER BY epoch"
    epochs = connection.execute(text(query)).all()
    assert {epoch: (score, value) for epoch, score, value, _ in epochs} == CURVE
    assert [decision and json.loads(decision) for *_, decision in epochs] == [GO_ON, None, None]

    details = connection.execute(text("SELECT detail FROM mhist_events ORDER BY id")).scalars()
    rung, note = (json.loads(detail) for detail in details)
    assert rung == {**GO_ON, "verdict": "wait", "arrived": 2, "n_slots": 5}
    assert note == {"prune": 1}
