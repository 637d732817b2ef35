"""A trial's value, made of the scores of its epochs, and the values of its competitors.

A score is what one epoch measured. A value is the study's objective: pruners compare values, and trials are ranked by
them.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

import sqlalchemy
from sqlalchemy import Connection

from mhist_tune.storage import tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.storage.studies import Study


def objective(curve: Sequence[float], best_epoch: int, smoothing: int) -> float:
    """Return a trial's value: the mean score over the `smoothing` epochs up to and including `best_epoch`.

    Near the beginning of the curve there are fewer epochs. One lucky epoch on a small validation split raises this mean
    less than the maximum of the curve.

    Args:
        curve: the score of each epoch.
        best_epoch: 1-based; the last epoch in a study with `at = "last"`.
        smoothing: number of epochs.
    """
    return statistics.fmean(curve[max(0, best_epoch - smoothing) : best_epoch])


def is_trivial(metrics: Mapping[str, float | None]) -> bool:
    """Return whether a model calls all validation images one class at 0.5, from the metrics of its epoch.

    Its F1 is 2 p / (1 + p) with a share p of SSA images, or 0, whatever it has learned.
    """
    return (metrics.get("val_recall"), metrics.get("val_specificity")) in ((1.0, 0.0), (0.0, 1.0))


class ValueBook:
    """The values of one stage's trials, as far as this process has read them.

    A recorded value never changes, and a done slot records nothing more. So the values at an epoch are read once. Later
    calls read only the slots from the first one that may still record this epoch. So a call stays cheap with ten
    thousand finished trials, or with hundreds that run or wait.
    """

    def __init__(self, storage: Storage, study: Study, stage: Stage) -> None:
        self._storage, self._study, self._stage = storage, study, stage
        self._known: defaultdict[int, dict[int, float]] = defaultdict(dict)
        self._n_final: defaultdict[int, int] = defaultdict(int)  # by epoch; lower slots are final

    def at(self, epoch: int) -> Mapping[int, float]:
        """Return the value up to `epoch`, by slot, of every slot that has recorded that epoch.

        Later calls change the returned mapping.
        """
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
            # The states are read first: a slot that was done then has already written all its values.
            first = connection.execute(first_open).scalar()
            return first, [(slot, value) for slot, value in connection.execute(news)]

        first, values = self._storage.read(read)
        self._known[epoch].update(values)
        if first is not None:
            self._n_final[epoch] = first
        return self._known[epoch]
