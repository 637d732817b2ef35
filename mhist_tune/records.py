"""What workers write down of slots: epochs with their decisions, predictions and images.

Writes that belong to a slot are fenced: they happen only while the claim holds, and the first writer wins.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy
from sqlalchemy import Connection, Executable

from mhist_tune import studies, tables
from mhist_tune.errors import DataError
from mhist_tune.leases import Claim, StaleTokenError, fence, prolong
from mhist_tune.storage import Storage
from mhist_tune.studies import Study

FloatArray = npt.NDArray[np.float64]

_STORED = np.dtype("<f8")


@dataclass(frozen=True)
class EpochRow:
    """One recorded epoch.

    Attributes:
        epoch: 1-based.
        token: of the claim that recorded it.
        value: the objective after this epoch.
        best_value: the best objective up to and with this epoch.
        metrics: everything that was measured.
        decision: whether to prune, with its reason; None if nothing was decided.
        recorded_at: epoch seconds.
    """

    epoch: int
    token: int
    value: float | None
    best_value: float | None
    metrics: dict[str, float | None]
    decision: dict[str, Any] | None
    recorded_at: float


@dataclass(frozen=True)
class RecordedEpoch:
    """What came of recording an epoch.

    Attributes:
        is_new: False if the epoch was there already, which then stays as it is.
        decision: the one that stands, the first one.
    """

    is_new: bool
    decision: dict[str, Any] | None


@dataclass(frozen=True)
class ImageRows:
    """The images of a stored set, in the order of the stored probabilities; each [n].

    Attributes:
        labels: 0 or 1, int64.
        votes: 0 to 7, int64.
        groups: patients or slides; None if they are not known.
    """

    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    votes: npt.NDArray[np.int64]
    groups: tuple[str, ...] | None


def record_epoch(
    storage: Storage,
    claim: Claim,
    *,
    epoch: int,
    value: float,
    best_value: float | None,
    metrics: Mapping[str, float | None],
    decision: Mapping[str, Any] | None = None,
    predictions: npt.ArrayLike | None = None,
    image_set: str = "val",
    lease_s: float | None = None,
    alongside: Executable | None = None,
) -> RecordedEpoch:
    """Record an epoch and what was decided after it, unless it is recorded already, and renew the lease.

    One transaction does all of it, and begins by making sure of the claim: this is what every epoch costs.

    Args:
        storage: where the slot is.
        claim: must still hold.
        epoch: 1-based.
        value: the objective after this epoch, finite.
        best_value: the best objective so far.
        metrics: all that was measured; what is not finite is stored as null.
        decision: whether to prune, with its reason, JSON.
        predictions: probability of SSA for each image of `image_set`, [n] in [0, 1]; replaces an earlier epoch's.
        image_set: the stored images that the predictions are for.
        lease_s: lets the lease end so many seconds from now; None leaves it as it is.
        alongside: one more statement for the same transaction.

    Raises:
        StaleTokenError: the claim no longer holds; nothing was written.
        ValueError: a value out of range, or predictions that do not fit the images.
    """
    if epoch < 1 or not math.isfinite(value):
        raise ValueError(f"an epoch is at least 1 and its value finite, got epoch {epoch} with {value}")
    table = tables.epochs
    row = {
        "study": claim.study_uuid,
        "stage": claim.stage,
        "slot": claim.slot,
        "epoch": epoch,
        "token": claim.token,
        "value": value,
        "best_value": best_value,
        "metrics": {name: None if one is None or not math.isfinite(one) else one for name, one in metrics.items()},
        "decision": decision,
        "recorded_at": storage.clock,
    }
    insert = storage.insert_new(table).values(row).returning(table.c.epoch)
    stored = sqlalchemy.select(table.c.decision).where(_is_slot(table, claim), table.c.epoch == epoch)
    blob = None if predictions is None else _blob(predictions)

    def work(connection: Connection) -> RecordedEpoch:
        if lease_s is None:
            fence(connection, claim)
        elif not prolong(connection, storage, claim, lease_s):
            raise StaleTokenError(claim)
        if alongside is not None:
            connection.execute(alongside)
        if connection.execute(insert).first() is None:
            return RecordedEpoch(False, connection.execute(stored).scalar())
        if blob is not None:
            _insert_predictions(connection, storage, claim, image_set, epoch, blob)
        return RecordedEpoch(True, None if decision is None else dict(decision))

    return storage.transaction(work)


def epochs(storage: Storage, study: Study, stage: str, slot: int) -> list[EpochRow]:
    """Return the recorded epochs of a slot, the first one first."""
    table = tables.epochs
    query = sqlalchemy.select(*(table.c[name] for name in EpochRow.__dataclass_fields__))
    query = query.where(table.c.study == study.uuid, table.c.stage == stage, table.c.slot == slot)
    rows = storage.read(lambda connection: connection.execute(query.order_by(table.c.epoch)).all())
    return [EpochRow(**row._mapping) for row in rows]


def elapsed_s(storage: Storage, study: Study, stage: str, slots: Sequence[int]) -> dict[int, float]:
    """Return the seconds that the recorded epochs of each of `slots` took; slots without an epoch are left out."""
    table = tables.epochs
    query = sqlalchemy.select(table.c.slot, table.c.metrics)
    query = query.where(table.c.study == study.uuid, table.c.stage == stage, table.c.slot.in_(slots))
    spent: dict[int, float] = {}
    for slot, metrics in storage.read(lambda connection: connection.execute(query).all()):
        spent[slot] = spent.get(slot, 0.0) + (metrics.get("elapsed_s") or 0.0)
    return spent


def trained_since(storage: Storage, study: Study, stage: str, at: float) -> set[int]:
    """Return the slots of a stage that have recorded an epoch after `at`, in epoch seconds."""
    table = tables.epochs.c
    query = sqlalchemy.select(table.slot).distinct()
    query = query.where(table.study == study.uuid, table.stage == stage, table.recorded_at > at)
    return set(storage.read(lambda connection: connection.execute(query).scalars().all()))


def record_predictions(storage: Storage, claim: Claim, image_set: str, probabilities: npt.ArrayLike) -> bool:
    """Store a slot's final predictions for a stored image set; False if there are some already, which stay.

    Args:
        storage: where the slot is.
        claim: must still hold.
        image_set: the stored images that the predictions are for.
        probabilities: of SSA, [n] in [0, 1].

    Raises:
        StaleTokenError: the claim no longer holds.
        ValueError: the predictions do not fit the images.
    """
    blob = _blob(probabilities)

    def work(connection: Connection) -> bool:
        fence(connection, claim)
        return _insert_predictions(connection, storage, claim, image_set, None, blob)

    return storage.transaction(work)


def predictions(storage: Storage, study: Study, stage: str, image_set: str) -> dict[int, FloatArray]:
    """Return the stored probabilities of SSA, [n] each, by slot."""
    table = tables.predictions
    query = sqlalchemy.select(table.c.slot, table.c.probabilities).where(
        table.c.study == study.uuid, table.c.stage == stage, table.c.image_set == image_set
    )
    rows = storage.read(lambda connection: connection.execute(query.order_by(table.c.slot)).all())
    return {slot: np.frombuffer(blob, dtype=_STORED).astype(np.float64) for slot, blob in rows}


def predicted_sets(storage: Storage, study: Study) -> list[tuple[str, str]]:
    """Return each stage and image set that there are predictions for."""
    columns = tables.predictions.c
    query = sqlalchemy.select(columns.stage, columns.image_set).where(columns.study == study.uuid).distinct()
    rows = storage.read(lambda connection: connection.execute(query).all())
    return sorted((stage, name) for stage, name in rows)


def image_set(storage: Storage, study: Study, name: str) -> ImageRows:
    """Return a stored image set.

    Raises:
        KeyError: the study has none of that name.
    """
    table = tables.image_sets
    query = sqlalchemy.select(table.c.rows).where(table.c.study == study.uuid, table.c.image_set == name)
    rows = storage.read(lambda connection: connection.execute(query).scalar())
    if rows is None:
        raise KeyError(f"study {study.name} has no image set {name!r}")
    groups = tuple(row[3] for row in rows)
    return ImageRows(
        names=tuple(row[0] for row in rows),
        labels=np.array([row[1] for row in rows], dtype=np.int64),
        votes=np.array([row[2] for row in rows], dtype=np.int64),
        groups=None if any(group is None for group in groups) else groups,
    )


def save_image_set(storage: Storage, study: Study, name: str, rows: Sequence[Sequence[Any]]) -> None:
    """Store an image set as rows [name, label, votes, group or None]; the same again changes nothing.

    Raises:
        DataError: the study has other images under that name.
    """
    wanted = [list(row) for row in rows]
    table = tables.image_sets
    query = sqlalchemy.select(table.c.rows).where(table.c.study == study.uuid, table.c.image_set == name)

    def work(connection: Connection) -> bool:
        studies.lock_study(connection, study)
        stored = connection.execute(query).scalar()
        if stored is None:
            studies.insert_image_set(connection, study.uuid, name, wanted)
        return stored is None or stored == wanted

    if not storage.transaction(work):
        raise DataError(
            f'the "{name}" images of {study.name} are not those that were stored before',
            hint="use the same copy of the data set on every worker",
        )


def _is_slot(table: sqlalchemy.Table, claim: Claim) -> sqlalchemy.ColumnElement[bool]:
    return sqlalchemy.and_(table.c.study == claim.study_uuid, table.c.stage == claim.stage, table.c.slot == claim.slot)


def _blob(probabilities: npt.ArrayLike) -> bytes:
    array = np.asarray(probabilities, dtype=_STORED)
    if array.ndim != 1 or not bool(np.all((array >= 0) & (array <= 1))):  # also false for NaN
        raise ValueError(f"probabilities are one row of numbers from 0 to 1, got shape {array.shape}")
    return array.tobytes()


def _insert_predictions(
    connection: Connection, storage: Storage, claim: Claim, image_set: str, epoch: int | None, blob: bytes
) -> bool:
    table, sets = tables.predictions, tables.image_sets
    query = sqlalchemy.select(sets.c.n_images).where(sets.c.study == claim.study_uuid, sets.c.image_set == image_set)
    n_images, n_given = connection.execute(query).scalar(), len(blob) // _STORED.itemsize
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
