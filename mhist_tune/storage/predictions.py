"""Stores predicted probabilities and the image sets that they belong to, and reads them.

Predictions are written only while the claim of their slot holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy
from sqlalchemy import Connection

from mhist_tune.arrays import FloatArray
from mhist_tune.errors import DataError
from mhist_tune.storage import damage, studies, tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.leases import Claim, fence
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study

_STORED_DTYPE = np.dtype("<f8")


@dataclass(frozen=True)
class ImageRows:
    """The images of a stored set, in the order of the stored probabilities.

    Attributes:
        names: the file names, [n].
        labels: 0 (HP) or 1 (SSA), [n] int64.
        votes: number of annotators who voted for SSA, 0 to 7, [n] int64.
        groups: the patient or slide of each image, [n]; None if they are not known.
    """

    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    votes: npt.NDArray[np.int64]
    groups: tuple[str, ...] | None


def record_predictions(storage: Storage, claim: Claim, image_set: str, probabilities: npt.ArrayLike) -> bool:
    """Store a slot's final predictions for an image set, unless there are some.

    Args:
        storage: the database of the slot.
        claim: must still hold.
        image_set: the name of the image set.
        probabilities: of SSA, [n] in [0, 1].

    Returns:
        False if there were predictions already; they are unchanged.

    Raises:
        StaleTokenError: the claim no longer holds.
        ValueError: the predictions do not fit the images.
    """
    blob = to_bytes(probabilities)

    def work(connection: Connection) -> bool:
        fence(connection, claim)
        return insert_predictions(connection, storage, claim, image_set, None, blob)

    return storage.transaction(work)


def predictions_of(storage: Storage, study: Study, stage: Stage, image_set: str) -> dict[int, FloatArray]:
    """Return the stored probabilities of SSA by slot, each [n] float64 in the order of the image set."""
    table = tables.predictions
    query = sqlalchemy.select(table.c.slot, table.c.probabilities).where(
        table.c.study == study.uuid, table.c.stage == stage, table.c.image_set == image_set
    )
    rows = storage.read(lambda connection: connection.execute(query.order_by(table.c.slot)).all())
    with damage.explained("predictions"):
        return {slot: np.frombuffer(blob, dtype=_STORED_DTYPE).astype(np.float64) for slot, blob in rows}


def predicted_sets(storage: Storage, study: Study) -> list[tuple[Stage, str]]:
    """Return each pair of a stage and an image set that has predictions, sorted."""
    columns = tables.predictions.c
    query = sqlalchemy.select(columns.stage, columns.image_set).where(columns.study == study.uuid).distinct()
    rows = storage.read(lambda connection: connection.execute(query).all())
    return sorted((stage, name) for stage, name in rows)


def image_rows(storage: Storage, study: Study, name: str) -> ImageRows:
    """Return the image set `name` of a study.

    Raises:
        KeyError: the study has no image set of that name.
    """
    table = tables.image_sets
    query = sqlalchemy.select(table.c.rows).where(table.c.study == study.uuid, table.c.image_set == name)
    rows = storage.read(lambda connection: connection.execute(query).scalar())
    if rows is None:
        raise KeyError(f"study {study.name} has no image set {name!r}")
    with damage.explained(f'the image set "{name}"'):
        names, labels, votes, groups = ([row[column] for row in rows] for column in range(4))
        return ImageRows(
            names=tuple(names),
            labels=np.array(labels, dtype=np.int64),
            votes=np.array(votes, dtype=np.int64),
            groups=None if any(group is None for group in groups) else tuple(groups),
        )


def save_image_set(storage: Storage, study: Study, name: str, rows: Sequence[Sequence[Any]]) -> None:
    """Store an image set as rows [name, label, votes, group or None]. Storing equal rows again changes nothing.

    Raises:
        DataError: the study has other images under that name.
    """
    new = [list(row) for row in rows]
    table = tables.image_sets
    query = sqlalchemy.select(table.c.rows).where(table.c.study == study.uuid, table.c.image_set == name)

    def work(connection: Connection) -> bool:
        studies.lock_study(connection, study)
        stored = connection.execute(query).scalar()
        if stored is None:
            studies.insert_image_set(connection, study.uuid, name, new)
        return stored is None or stored == new

    if not storage.transaction(work):
        raise DataError(
            f'the "{name}" images of {study.name} are not those that were stored before',
            hint="use the same copy of the data set on every worker",
        )


def to_bytes(probabilities: npt.ArrayLike) -> bytes:
    """Return probabilities, [n] in [0, 1], as little-endian float64.

    Raises:
        ValueError: they have another shape or range.
    """
    array = np.asarray(probabilities, dtype=_STORED_DTYPE)
    if array.ndim != 1 or not bool(np.all((array >= 0) & (array <= 1))):  # also false for NaN
        raise ValueError(f"probabilities are one row of numbers from 0 to 1, got shape {array.shape}")
    return array.tobytes()


def insert_predictions(
    connection: Connection, storage: Storage, claim: Claim, image_set: str, epoch: int | None, blob: bytes
) -> bool:
    """Insert a slot's predictions or replace those of an earlier epoch. The caller has checked the claim.

    Args:
        connection: of an open transaction.
        storage: the database of the slot.
        claim: the claim of the slot.
        image_set: the name of the image set.
        epoch: the epoch of the predictions, 1-based; None for final ones, which replace nothing.
        blob: from `to_bytes`.

    Returns:
        Whether something was written.

    Raises:
        ValueError: the image set has another number of images.
    """
    table, sets = tables.predictions, tables.image_sets
    query = sqlalchemy.select(sets.c.n_images).where(sets.c.study == claim.study_uuid, sets.c.image_set == image_set)
    n_images, n_given = connection.execute(query).scalar(), len(blob) // _STORED_DTYPE.itemsize
    if n_images != n_given:
        raise ValueError(f'{n_given} predictions for the image set "{image_set}", which has {n_images} images')
    insert = storage.insert(table).values(
        study=claim.study_uuid,
        stage=claim.stage,
        slot=claim.slot,
        image_set=image_set,
        epoch=epoch,
        token=claim.token,
        probabilities=blob,
    )
    upsert = insert.on_conflict_do_update(
        index_elements=list(table.primary_key),
        set_={name: insert.excluded[name] for name in ("epoch", "token", "probabilities")},
        where=insert.excluded.epoch > table.c.epoch,
    )
    return connection.execute(upsert.returning(table.c.slot)).first() is not None
