"""Records every opening of the test partition."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy
from sqlalchemy import Connection

from mhist_tune.storage import studies, tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.payloads import DescriptivePayload, RetrainPayload
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study


@dataclass(frozen=True)
class OpeningRow:
    """One opening of the test partition.

    Attributes:
        opened_at: epoch seconds.
        by: the person who opened it.
        code_version: the version of mhist-tune.
        reason: as given by that person.
        payload: the trials and seeds that it was opened for, JSON.
        fingerprint: of the images of the test partition.
    """

    id: int
    opened_at: float
    by: str
    code_version: str
    reason: str | None
    payload: dict[str, Any]
    fingerprint: str


def record_opening(
    storage: Storage,
    study: Study,
    *,
    by: str,
    code_version: str,
    reason: str | None,
    payload: dict[str, Any],
    fingerprint: str,
    slots: Sequence[RetrainPayload | DescriptivePayload] = (),
    stage: Stage = Stage.RETRAIN,
) -> int:
    """Record an opening of the test partition with its slots in one transaction, and return its id.

    If the study has an opening with the same payload, its id is returned and nothing is written.

    Args:
        storage: the database of the study.
        study: the study.
        by: the person who opens it.
        code_version: the version of mhist-tune.
        reason: the reason for it.
        payload: the trials and seeds that it is opened for, JSON.
        fingerprint: of the images of the test partition.
        slots: the payload of each slot to add; its `opening` is set to the id.
        stage: the stage of these slots.

    Raises:
        StudyNotFoundError: the study was deleted meanwhile.
    """
    table = tables.openings
    known = sqlalchemy.select(table.c.id, table.c.payload).where(table.c.study == study.uuid)

    def work(connection: Connection) -> int:
        studies.lock_study(connection, study)
        for opening_id, opened_for in connection.execute(known):
            if opened_for == payload:
                return int(opening_id)
        row = {
            "study": study.uuid,
            "opened_at": storage.clock,
            "by": by,
            "code_version": code_version,
            "reason": reason,
            "payload": payload,
            "fingerprint": fingerprint,
        }
        inserted = connection.execute(sqlalchemy.insert(table).values(row).returning(table.c.id)).scalar_one()
        studies.insert_slots(connection, study.uuid, stage, [replace(slot, opening=inserted) for slot in slots])
        return int(inserted)

    return storage.transaction(work)


def load_openings(storage: Storage, study: Study) -> list[OpeningRow]:
    """Return all openings of the test partition for a study in their order."""
    table = tables.openings
    query = sqlalchemy.select(*(table.c[name] for name in OpeningRow.__dataclass_fields__))
    query = query.where(table.c.study == study.uuid).order_by(table.c.id)
    rows = storage.read(lambda connection: connection.execute(query).all())
    return [OpeningRow(**row._mapping) for row in rows]
