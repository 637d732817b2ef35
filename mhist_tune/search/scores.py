"""The values that a trial is judged against: those up to an epoch, of every slot that has recorded it."""

from collections import defaultdict
from collections.abc import Mapping

import sqlalchemy
from sqlalchemy import Connection

from mhist_tune.storage import tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.storage.studies import Study


class ScoreBook:
    """What one process knows of the values of a stage's trials.

    A recorded value never changes, and a slot that is done records nothing more. So the values at an epoch are read
    once, and after that only those of slots behind the first one that may still record one there: a study with ten
    thousand finished trials, or hundreds that run or wait, costs a running one hardly more than an empty one.
    """

    def __init__(self, storage: Storage, study: Study, stage: Stage) -> None:
        self._storage, self._study, self._stage = storage, study, stage
        self._known: defaultdict[int, dict[int, float]] = defaultdict(dict)
        self._n_final: defaultdict[int, int] = defaultdict(int)  # by epoch, the slots before it are known for good

    def at(self, epoch: int) -> Mapping[int, float]:
        """Return the value up to `epoch`, by slot, of every slot that has recorded that epoch; not a copy."""
        n_final, slots, epochs = self._n_final[epoch], tables.slots.c, tables.epochs.c
        is_here = sqlalchemy.and_(epochs.study == self._study.uuid, epochs.stage == self._stage, epochs.epoch == epoch)
        first_open = sqlalchemy.select(sqlalchemy.func.min(slots.slot)).where(
            slots.study == self._study.uuid,
            slots.stage == self._stage,
            slots.slot >= n_final,
            slots.state.not_in((SlotState.DONE, SlotState.CANCELLED)),
            ~sqlalchemy.exists().where(is_here, epochs.slot == slots.slot),
        )
        news = sqlalchemy.select(epochs.slot, epochs.value).where(
            is_here, epochs.slot >= n_final, epochs.value.is_not(None)
        )

        def read(connection: Connection) -> tuple[int | None, list[tuple[int, float]]]:
            # in this order: what could record no more before the values are read has written all of them
            first = connection.execute(first_open).scalar()
            return first, [(slot, value) for slot, value in connection.execute(news)]

        first, values = self._storage.read(read)
        self._known[epoch].update(values)
        if first is not None:
            self._n_final[epoch] = first
        return self._known[epoch]
