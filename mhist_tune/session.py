"""What one worker process holds while it serves one study."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mhist_tune import memory, studies
from mhist_tune.checkpoint_store import CheckpointStore
from mhist_tune.events import Emit, StopRequest
from mhist_tune.hyperparameters import Hyperparameters
from mhist_tune.images import ImageSet
from mhist_tune.leases import SlotKey
from mhist_tune.predictions import image_rows
from mhist_tune.rungs import RungBook, waiting
from mhist_tune.sampler_storage import SamplerStorage
from mhist_tune.scores import ScoreBook
from mhist_tune.stages import Stage
from mhist_tune.storage import Storage
from mhist_tune.studies import Study


@dataclass(frozen=True)
class Elsewhere:
    """A slot that was left to others, since its trial's checkpoint is not reached from here.

    Attributes:
        place: where the checkpoint is; None if this worker's own store is away.
        n_epochs: how many epochs were recorded.
        again_at: when it may be claimed again if there is nothing else to do, monotonic seconds.
    """

    place: str | None
    n_epochs: int
    again_at: float

    def is_unchanged(self, other: "Elsewhere") -> bool:
        """Tell whether nobody has trained it in between."""
        return (self.place, self.n_epochs) == (other.place, other.n_epochs)


@dataclass(frozen=True)
class Session:
    """What one worker process holds while it serves one study.

    Attributes:
        train: the whole train partition.
        cache_dir: where decoded partitions are kept.
        checkpoints: where training states are kept.
        emit: receives events for whoever watches.
        micro_batch_size: how many images of a micro-batch fit this worker's device; None for as many as a trial asks.
        elsewhere: slots that are left to others.
    """

    storage: Storage
    study: Study
    data_root: Path
    cache_dir: Path
    checkpoints: CheckpointStore
    train: ImageSet
    device: torch.device
    worker: str
    emit: Emit
    stop: StopRequest
    micro_batch_size: int | None = None
    elsewhere: dict[SlotKey, Elsewhere] = field(default_factory=dict)
    _subsets: dict[str, ImageSet] = field(default_factory=dict)
    _scores: dict[Stage, ScoreBook] = field(default_factory=dict)
    _rungs: dict[Stage, RungBook] = field(default_factory=dict)

    def subset(self, image_set: str) -> ImageSet:
        """Return the images of a stored set (`train` or `val`) in their stored order."""
        if image_set not in self._subsets:
            self._subsets[image_set] = self.train.take(self.positions(image_set))
        return self._subsets[image_set]

    def positions(self, image_set: str) -> npt.NDArray[np.int64]:
        """Return where the images of a stored set lie in the train partition, in their stored order."""
        position = {name: index for index, name in enumerate(self.train.names)}
        names = image_rows(self.storage, self.study, image_set).names
        return np.array([position[name] for name in names], dtype=np.int64)

    def scores(self, stage: Stage) -> ScoreBook:
        """Return the scores of a stage's slots, as far as this process knows them."""
        if stage not in self._scores:
            self._scores[stage] = ScoreBook(self.storage, self.study, stage)
        return self._scores[stage]

    def rungs(self, stage: Stage) -> RungBook:
        """Return the rungs of a stage, as far as this process knows them; only with the pruner `promotion`."""
        if stage not in self._rungs:
            self._rungs[stage] = RungBook(self.storage, self.study, stage)
        return self._rungs[stage]

    @functools.cached_property
    def sampler_storage(self) -> SamplerStorage:
        """Optuna's storage as the search's sampler sees it."""
        return SamplerStorage(self.storage.rdb, lambda: waiting(self.storage, self.study, Stage.SEARCH))

    def hyperparameters(self, params: Mapping[str, Any]) -> Hyperparameters:
        """Return what `fit` takes, see `studies.hyperparameters`, with a micro-batch that fits the device."""
        hp = studies.hyperparameters(self.study, params)
        if self.micro_batch_size is None or hp.micro_batch_size <= self.micro_batch_size or memory.is_coupled(hp):
            return hp
        return replace(hp, micro_batch_size=self.micro_batch_size)
