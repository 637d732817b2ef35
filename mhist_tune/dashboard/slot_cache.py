"""The slots of a study in memory. Only rows that have changed are read again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy
from sqlalchemy import Connection

from mhist_tune.storage import tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.slot_rows import SlotRow, StudySlots, read_slot
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study

_N_AT_ONCE = 500  # slots named by one query; SQLite allows 32,766
_VERSION = ("state", "token", "expires_at", "trial_number")


@dataclass
class _Stage:
    versions: dict[int, tuple[object, ...]] = field(default_factory=dict)
    rows: dict[int, SlotRow[Any]] = field(default_factory=dict)


class SlotCache:
    """The slots of one study. Only one thread may use it at a time.

    A claim raises the token of a slot, a renewal moves the end of its lease, and an end changes its state. A query for
    these few columns therefore shows which rows have changed.
    """

    def __init__(self, storage: Storage, study: Study) -> None:
        self._storage, self._study = storage, study
        self._stages: dict[Stage, _Stage] = {}

    def read(self) -> StudySlots:
        """Return all slots of the study, as `ledger.all_slots` does."""
        return StudySlots(
            search=self.slots(Stage.SEARCH),
            confirm=self.slots(Stage.CONFIRM),
            retrain=self.slots(Stage.RETRAIN),
            descriptive=self.slots(Stage.DESCRIPTIVE),
        )

    def slots(self, stage: Stage) -> Sequence[SlotRow[Any]]:
        """Return all slots of a stage by number, as `ledger.slots` does."""
        known = self._stages.setdefault(stage, _Stage())
        table = tables.slots
        is_of_stage = sqlalchemy.and_(table.c.study == self._study.uuid, table.c.stage == stage)
        has_outcome = table.c.outcome.is_not(None).label("has_outcome")
        survey = sqlalchemy.select(table.c.slot, *(table.c[name] for name in _VERSION), has_outcome).where(is_of_stage)

        def read(connection: Connection) -> tuple[dict[int, tuple[object, ...]], dict[int, SlotRow[Any]]]:
            versions = {row[0]: tuple(row[1:]) for row in connection.execute(survey.order_by(table.c.slot))}
            changed = [slot for slot, version in versions.items() if known.versions.get(slot) != version]
            query = sqlalchemy.select(*(table.c[name] for name in SlotRow.__dataclass_fields__)).where(is_of_stage)
            parts = [changed[i : i + _N_AT_ONCE] for i in range(0, len(changed), _N_AT_ONCE)]
            # Both queries belong to one transaction, so no row is newer than its version.
            rows = [read_slot(row) for part in parts for row in connection.execute(query.where(table.c.slot.in_(part)))]
            return versions, {row.slot: row for row in rows}

        versions, changed = self._storage.read(read)
        rows = {**known.rows, **changed}
        self._stages[stage] = _Stage(versions, {slot: rows[slot] for slot in versions if slot in rows})
        return list(self._stages[stage].rows.values())
