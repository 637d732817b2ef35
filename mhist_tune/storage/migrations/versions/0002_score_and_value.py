"""Separate scores from values, and give the outcome of a waiting slot its own column.

The first release stored the score of an epoch as `value` and the trial's objective as `best_value`. In an outcome
`value` was the objective of a complete trial and a score of a pruned one. A slot that waited at a rung was `paused`,
and its outcome without a promotion was in the column of decided outcomes.
"""

import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Connection

revision = "0002"
down_revision = "0001"

_N_AT_ONCE = 1000

_slots = sa.table(
    "mhist_slots",
    *(sa.column(name) for name in ("study", "stage", "slot", "state", "outcome", "if_not_promoted")),
)
_epochs = sa.table(
    "mhist_epochs",
    *(sa.column(name) for name in ("study", "stage", "slot", "epoch", "score", "value", "decision")),
)
_events = sa.table("mhist_events", *(sa.column(name) for name in ("id", "kind", "detail")))


def upgrade() -> None:
    """Rename the columns, and rewrite decisions, outcomes and the events of rungs."""
    op.execute("ALTER TABLE mhist_epochs RENAME COLUMN value TO score")
    op.execute("ALTER TABLE mhist_epochs RENAME COLUMN best_value TO value")
    # Every claim by a worker of the first release uses the old name of this column, so it fails from here on.
    op.execute("ALTER TABLE mhist_slots RENAME COLUMN attempts TO n_claims")
    op.add_column("mhist_slots", sa.Column("if_not_promoted", sa.Text))
    connection = op.get_bind()
    _rewrite(connection, _epochs, ("study", "stage", "slot", "epoch"), "decision", _decision)
    _rewrite(connection, _events, ("id",), "detail", _decision, _events.c.kind == "rung")
    for row in connection.execute(sa.select(_slots).where(_slots.c.outcome.is_not(None))).all():
        here = sa.and_(_slots.c.study == row.study, _slots.c.stage == row.stage, _slots.c.slot == row.slot)
        outcome = json.dumps(_outcome(connection, row, json.loads(row.outcome)))
        values: dict[str, str | None] = {"outcome": outcome}
        if row.state == "paused":
            values = {"state": "waiting", "outcome": None, "if_not_promoted": outcome}
        connection.execute(sa.update(_slots).where(here).values(values))


def _rewrite(
    connection: Connection,
    table: sa.TableClause,
    key: tuple[str, ...],
    column: str,
    change: Callable[[dict[str, Any]], dict[str, Any]],
    condition: sa.ColumnElement[bool] | None = None,
) -> None:
    """Replace the JSON of a column in every row where it is not null."""
    query = sa.select(*(table.c[name] for name in key), table.c[column]).where(table.c[column].is_not(None))
    rows = connection.execute(query if condition is None else query.where(condition)).mappings().all()
    update = sa.update(table).where(*(table.c[name] == sa.bindparam(f"old_{name}") for name in key))
    update = update.values({column: sa.bindparam("new")})
    for start in range(0, len(rows), _N_AT_ONCE):
        changes = [
            {**{f"old_{name}": row[name] for name in key}, "new": json.dumps(change(json.loads(row[column])))}
            for row in rows[start : start + _N_AT_ONCE]
        ]
        connection.execute(update, changes)


def _decision(old: dict[str, Any]) -> dict[str, Any]:
    """Return a decision with one verdict. Other keys are kept."""
    if "verdict" in old:
        return old
    new = {name: value for name, value in old.items() if name not in ("prune", "pause", "n_rivals")}
    verdict = "prune" if old["prune"] else "wait" if old.get("pause") else "go on"
    return {"verdict": verdict, **new, "n_competitors": old["n_rivals"]}


def _outcome(connection: Connection, row: sa.Row[Any], old: dict[str, Any]) -> dict[str, Any]:
    """Return an outcome whose value is the objective. For a trial that ended early it is read from the epochs."""
    new = {name: value for name, value in old.items() if name != "best_value" and value is not None}
    if "decision" in new:
        new["decision"] = _decision(new["decision"])
    best_score = old.get("best_value")
    if old["state"] != "COMPLETE" and old.get("stopped_epoch"):
        here = sa.and_(_epochs.c.study == row.study, _epochs.c.stage == row.stage, _epochs.c.slot == row.slot)
        rows = connection.execute(sa.select(_epochs.c.epoch, _epochs.c.score, _epochs.c.value).where(here))
        epochs = {epoch: (score, value) for epoch, score, value in rows}
        new["value"] = epochs.get(old["stopped_epoch"], (None, None))[1]
        best_score = epochs.get(old.get("best_epoch"), (None, None))[0]
    new["best_score"] = best_score
    return {name: value for name, value in new.items() if value is not None}
