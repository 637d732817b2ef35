"""The epochs and the device seconds of each slot, added up in the database.

Device seconds are those of recorded epochs, with their validation. An epoch is recorded once, so it is counted once,
whatever happened to the workers. Time between epochs, and epochs that are computed again after a kill, are not counted.
"""

import statistics
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, Connection

from mhist_tune.storage import tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.leases import SlotKey
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study

ENOUGH_TRIALS = 5
"""The recorded epochs of so many trials give the seconds of an epoch."""


@dataclass(frozen=True)
class Spent:
    """Recorded epochs: their number and the device seconds that they took."""

    n_epochs: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.n_epochs + other.n_epochs, self.seconds + other.seconds)


def by_slot(connection: Connection, storage: Storage, study: Study) -> dict[SlotKey, Spent]:
    """Return what each slot of a study has spent. Slots without an epoch are left out."""
    table = tables.epochs.c
    total = sqlalchemy.func.coalesce(sqlalchemy.func.sum(_elapsed_s(storage)), 0.0)
    query = sqlalchemy.select(table.stage, table.slot, sqlalchemy.func.count(), total)
    query = query.where(table.study == study.uuid).group_by(table.stage, table.slot)
    return {(stage, slot): Spent(n, float(seconds)) for stage, slot, n, seconds in connection.execute(query)}


def seconds_until(storage: Storage, study: Study, at: float) -> float:
    """Return the device seconds of all epochs that a study had recorded at a time, in epoch seconds."""
    table = tables.epochs.c
    query = sqlalchemy.select(sqlalchemy.func.sum(_elapsed_s(storage)))
    query = query.where(table.study == study.uuid, table.recorded_at <= at)
    return float(storage.read(lambda connection: connection.execute(query).scalar()) or 0.0)


def by_stage(spent: dict[SlotKey, Spent]) -> dict[Stage, Spent]:
    """Return the sums of `by_slot` for each stage."""
    sums = dict.fromkeys(Stage, Spent())
    for (stage, _), of_slot in spent.items():
        sums[stage] += of_slot
    return sums


def typical_epoch_s(spent: dict[SlotKey, Spent]) -> float | None:
    """Return the seconds of an epoch of the search: the median over its trials; None with fewer than `ENOUGH_TRIALS`.

    A worker's first epoch takes longer, since libraries are loaded and kernels are compiled. A median leaves it out.
    """
    of_trials = [one.seconds / one.n_epochs for (stage, _), one in spent.items() if stage == Stage.SEARCH]
    return statistics.median(of_trials) if len(of_trials) >= ENOUGH_TRIALS else None


def _elapsed_s(storage: Storage) -> ColumnElement[Any]:
    metrics = sqlalchemy.type_coerce(tables.epochs.c.metrics, sqlalchemy.Text)
    if storage.dialect == "sqlite":
        return sqlalchemy.func.json_extract(metrics, "$.elapsed_s")
    from sqlalchemy.dialects import postgresql  # SQLite does not need it, see `Storage.insert`

    return sqlalchemy.cast(sqlalchemy.cast(metrics, postgresql.JSON).op("->>")("elapsed_s"), sqlalchemy.Double)
