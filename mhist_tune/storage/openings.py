"""Records every opening of the test partition. The records are kept when a study is deleted.

An opening is recorded before any test image is read. Once all images were read, their fingerprint is recorded and the
slots of the opening are added; if the images do not fit, the opening has failed before any prediction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy
from sqlalchemy import Connection

from mhist_tune.storage import opening_chain, studies, tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.opening_chain import Kind
from mhist_tune.storage.payloads import DescriptivePayload, RetrainPayload
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.storage.studies import Study


@dataclass(frozen=True)
class OpeningRow:
    """One opening of the test partition.

    Attributes:
        study: the UUID of the study, which may be deleted.
        study_name: its name; None for a study that an older version deleted.
        definition_sha256: the hash of its definition.
        comparison: the comparison that the definition names.
        opened_at: epoch seconds.
        by: the person who opened it.
        code_version: the version of the code.
        reason: as given by that person.
        payload: the trials and seeds that it was opened for, JSON.
        test_rows: the hash of the test rows of the table; None for an opening by an older version without predictions.
        fingerprint: of the test images; empty until all of them were read.
        failed: why it failed before any prediction; None if it did not.
        hash: of its entry in the chain; None if the entry was removed.
    """

    id: int
    study: str
    study_name: str | None
    definition_sha256: str | None
    comparison: str | None
    opened_at: float
    by: str
    code_version: str
    reason: str | None
    payload: dict[str, Any]
    test_rows: str | None
    fingerprint: str
    failed: str | None
    hash: str | None

    @property
    def is_look(self) -> bool:
        """Whether results on the images are known from it, or may become known."""
        return self.failed is None

    def is_of_images(self, test_rows: str | None, fingerprint: str) -> bool:
        """Return whether it is of the test images with these rows and this fingerprint.

        The fingerprints decide where both are known, and otherwise the rows.
        """
        if self.fingerprint and fingerprint:
            return self.fingerprint == fingerprint
        return test_rows is not None and self.test_rows == test_rows


def record_opening(
    storage: Storage,
    study: Study,
    *,
    by: str,
    code_version: str,
    reason: Callable[[Sequence[OpeningRow]], str],
    payload: dict[str, Any],
    test_rows: str | None,
    fingerprint: str = "",
) -> OpeningRow:
    """Record an opening of the test partition and return it. No slot is added before `record_reading`.

    If the study has an opening with the same payload that has not failed, it is returned and nothing is written.

    Args:
        storage: the database of the study.
        study: the study.
        by: the person who opens it.
        code_version: the version of mhist-tune.
        reason: returns the reason, from the earlier openings of these images by any study, or raises an error.
        payload: the trials and seeds that it is opened for, JSON.
        test_rows: the hash of the test rows of the table.
        fingerprint: of the test images, if an earlier opening of the study has read them.

    Raises:
        StudyNotFoundError: the study was deleted meanwhile.
    """
    table = tables.openings

    def work(connection: Connection) -> OpeningRow:
        studies.lock_study(connection, study)
        opening_chain.lock(storage, connection)
        rows = _load(connection)
        for row in rows:
            if row.study == study.uuid and row.payload == payload and row.is_look:
                return row
        values = {
            "study": study.uuid,
            "study_name": study.name,
            "definition_sha256": study.definition.sha256,
            "comparison": study.definition.comparison,
            "opened_at": connection.execute(sqlalchemy.select(storage.clock)).scalar_one(),
            "by": by,
            "code_version": code_version,
            "reason": reason([row for row in rows if row.is_of_images(test_rows, fingerprint)]),
            "payload": payload,
            "test_rows": test_rows,
        }
        inserted = sqlalchemy.insert(table).values(**values, fingerprint="").returning(table.c.id)
        opening = int(connection.execute(inserted).scalar_one())
        opening_chain.append(connection, opening, Kind.OPENED, values)
        return next(row for row in _load(connection) if row.id == opening)

    return storage.transaction(work)


def record_reading(
    storage: Storage,
    study: Study,
    opening: int,
    *,
    fingerprint: str,
    slots: Sequence[RetrainPayload | DescriptivePayload] = (),
    stage: Stage = Stage.RETRAIN,
) -> None:
    """Record the fingerprint of the test images that were read, and add the slots of the opening. Once only.

    Args:
        storage: the database of the study.
        study: the study.
        opening: its id.
        fingerprint: of the test images.
        slots: the payload of each slot to add; its `opening` is set to the id.
        stage: the stage of these slots.
    """
    table = tables.openings
    is_unread = sqlalchemy.and_(table.c.id == opening, table.c.fingerprint == "", table.c.failed.is_(None))

    def work(connection: Connection) -> None:
        studies.lock_study(connection, study)
        opening_chain.lock(storage, connection)
        update = sqlalchemy.update(table).where(is_unread).values(fingerprint=fingerprint)
        if connection.execute(update).rowcount != 1:  # another process was faster
            return
        opening_chain.append(connection, opening, Kind.READ, {"fingerprint": fingerprint})
        studies.insert_slots(connection, study.uuid, stage, [replace(slot, opening=opening) for slot in slots])

    storage.transaction(work)


def record_failure(storage: Storage, study: Study, opening: int, reason: str) -> None:
    """Record that an opening failed before any prediction, and cancel its slots, if it has any."""
    table, slots = tables.openings, tables.slots
    of_study = sqlalchemy.and_(slots.c.study == study.uuid, slots.c.stage.in_((Stage.RETRAIN, Stage.DESCRIPTIVE)))

    def work(connection: Connection) -> None:
        studies.lock_study(connection, study)
        opening_chain.lock(storage, connection)
        update = sqlalchemy.update(table).where(table.c.id == opening, table.c.failed.is_(None)).values(failed=reason)
        if connection.execute(update).rowcount != 1:
            return
        opening_chain.append(connection, opening, Kind.FAILED, {"failed": reason})
        for row in connection.execute(sqlalchemy.select(slots).where(of_study)).all():
            if row.payload.get("opening") == opening:
                is_slot = sqlalchemy.and_(of_study, slots.c.stage == row.stage, slots.c.slot == row.slot)
                cancelled = {"state": SlotState.CANCELLED, "token": slots.c.token + 1, "expires_at": None}
                connection.execute(sqlalchemy.update(slots).where(is_slot).values(cancelled))

    storage.transaction(work)


def has_predictions(storage: Storage, study: Study, opening: int) -> bool:
    """Return whether a test probability of an opening is stored."""
    slots, stored = tables.slots, tables.predictions
    is_slot = sqlalchemy.and_(
        stored.c.study == slots.c.study, stored.c.stage == slots.c.stage, stored.c.slot == slots.c.slot
    )
    query = sqlalchemy.select(slots.c.payload).join(stored, is_slot)
    query = query.where(slots.c.study == study.uuid, stored.c.image_set == "test")
    payloads = storage.read(lambda connection: connection.execute(query).scalars().all())
    return any(payload.get("opening") == opening for payload in payloads)


def load_openings(storage: Storage, study: Study) -> list[OpeningRow]:
    """Return all openings of the test partition for a study in their order."""
    return [row for row in load_all_openings(storage) if row.study == study.uuid]


def load_all_openings(storage: Storage) -> list[OpeningRow]:
    """Return the openings by all studies, deleted ones too, in their order."""
    return storage.read(_load)


def openings_of_images(storage: Storage, study: Study) -> list[OpeningRow]:
    """Return the openings of a study's test images by all studies, deleted ones too, in their order.

    The study's own openings are among them.
    """
    rows = load_all_openings(storage)
    own = [row for row in rows if row.study == study.uuid]
    test_rows = study.dataset.get("test_rows_sha256")
    known = {(row.test_rows or test_rows, row.fingerprint) for row in own if row.is_look} or {(test_rows, "")}
    return [row for row in rows if row.study == study.uuid or any(row.is_of_images(*identity) for identity in known)]


def _load(connection: Connection) -> list[OpeningRow]:
    table, chain = tables.openings, tables.opening_chain
    is_first = sqlalchemy.and_(chain.c.opening == table.c.id, chain.c.kind == Kind.OPENED)
    columns = [table.c[name] for name in OpeningRow.__dataclass_fields__ if name != "hash"]
    query = sqlalchemy.select(*columns, chain.c.hash).outerjoin(chain, is_first).order_by(table.c.id)
    return [OpeningRow(**row._mapping) for row in connection.execute(query)]
