"""Records the epochs of a slot, each with its decision, and reads them.

An epoch is recorded only while the claim of its slot holds. The first record of an epoch is final.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy.typing as npt
import sqlalchemy
from sqlalchemy import Connection, Executable

from mhist_tune.storage import tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.decision import Decision
from mhist_tune.storage.leases import Claim, StaleTokenError, fence, is_claimed, prolong
from mhist_tune.storage.predictions import insert_predictions, to_bytes
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study


@dataclass(frozen=True)
class EpochRow:
    """One recorded epoch.

    Attributes:
        epoch: 1-based.
        token: the token of the claim that recorded it.
        score: of this epoch: the study's score on the validation images, or the training loss without validation.
        value: the trial's objective up to and including this epoch; None without validation.
        metrics: all measurements by name.
        decision: the decision after it; None if there was none.
        recorded_at: epoch seconds.
    """

    epoch: int
    token: int
    score: float | None
    value: float | None
    metrics: dict[str, float | None]
    decision: Decision | None
    recorded_at: float


@dataclass(frozen=True)
class RecordedEpoch:
    """The result of `record_epoch`.

    Attributes:
        is_new: False if the epoch had been recorded before; that record is unchanged.
        decision: the decision in the database, which is that of the first record.
    """

    is_new: bool
    decision: Decision | None


def record_epoch(
    storage: Storage,
    claim: Claim,
    *,
    epoch: int,
    score: float,
    value: float | None,
    metrics: Mapping[str, float | None],
    decision: Decision | None = None,
    predictions: npt.ArrayLike | None = None,
    image_set: str = "val",
    lease_s: float | None = None,
    alongside: Executable | None = None,
) -> RecordedEpoch:
    """Record an epoch with its decision, unless it is recorded already, and renew the lease.

    All of it is one transaction, which checks the claim first. Every epoch costs one such transaction.

    Args:
        storage: the database of the slot.
        claim: must still hold.
        epoch: 1-based.
        score: of this epoch, finite.
        value: the trial's objective up to this epoch; None without validation.
        metrics: all measurements by name; null is stored for those that are not finite.
        decision: the decision after this epoch.
        predictions: probability of SSA for each image of `image_set`, [n] in [0, 1]; replaces an earlier epoch's.
        image_set: the name of the image set that the predictions are for.
        lease_s: seconds from now until the lease ends; None keeps its end.
        alongside: a statement to execute in the same transaction.

    Raises:
        StaleTokenError: the claim no longer holds; nothing was written.
        ValueError: a value is out of range, or the predictions do not fit the images.
    """
    if epoch < 1 or not math.isfinite(score):
        raise ValueError(f"an epoch is at least 1 and its score finite, got epoch {epoch} with {score}")
    table = tables.epochs
    row = {
        "study": claim.study_uuid,
        "stage": claim.stage,
        "slot": claim.slot,
        "epoch": epoch,
        "token": claim.token,
        "score": score,
        "value": value,
        "metrics": {name: _finite(metric) for name, metric in metrics.items()},
        "decision": decision,
        "recorded_at": storage.clock,
    }
    insert = storage.insert_new(table).values(row).returning(table.c.epoch)
    stored = sqlalchemy.select(table.c.decision).where(is_claimed(table, claim), table.c.epoch == epoch)
    blob = None if predictions is None else to_bytes(predictions)

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
            insert_predictions(connection, storage, claim, image_set, epoch, blob)
        return RecordedEpoch(True, decision)

    return storage.transaction(work)


def epochs_of(storage: Storage, study: Study, stage: Stage, slot: int) -> list[EpochRow]:
    """Return the recorded epochs of a slot in their order."""
    table = tables.epochs
    query = sqlalchemy.select(*(table.c[name] for name in EpochRow.__dataclass_fields__))
    query = query.where(table.c.study == study.uuid, table.c.stage == stage, table.c.slot == slot)
    rows = storage.read(lambda connection: connection.execute(query.order_by(table.c.epoch)).all())
    return [EpochRow(**row._mapping) for row in rows]


def elapsed_s(storage: Storage, study: Study, stage: Stage, slots: Sequence[int]) -> dict[int, float]:
    """Return the seconds that the recorded epochs of each of `slots` took; slots without an epoch are left out."""
    table = tables.epochs
    query = sqlalchemy.select(table.c.slot, table.c.metrics)
    query = query.where(table.c.study == study.uuid, table.c.stage == stage, table.c.slot.in_(slots))
    spent: dict[int, float] = {}
    for slot, metrics in storage.read(lambda connection: connection.execute(query).all()):
        spent[slot] = spent.get(slot, 0.0) + (metrics.get("elapsed_s") or 0.0)
    return spent


def metrics_of_study(storage: Storage, study: Study) -> list[tuple[Stage, int, dict[str, float | None]]]:
    """Return stage, slot and metrics of every recorded epoch of a study, in no order."""
    table = tables.epochs.c
    query = sqlalchemy.select(table.stage, table.slot, table.metrics).where(table.study == study.uuid)
    rows = storage.read(lambda connection: connection.execute(query).all())
    return [(Stage(stage), slot, metrics) for stage, slot, metrics in rows]


def trained_since(storage: Storage, study: Study, stage: Stage, at: float) -> set[int]:
    """Return the slots of a stage that have recorded an epoch after `at`, in epoch seconds."""
    table = tables.epochs.c
    query = sqlalchemy.select(table.slot).distinct()
    query = query.where(table.study == study.uuid, table.stage == stage, table.recorded_at > at)
    return set(storage.read(lambda connection: connection.execute(query).scalars().all()))


def _finite(metric: float | None) -> float | None:
    return None if metric is None or not math.isfinite(metric) else metric
