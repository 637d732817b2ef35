"""A worker's data, device and records of one study."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mhist_tune.data import cache
from mhist_tune.data.images import ImageSet
from mhist_tune.definition.hyperparameters import PROBED, Hyperparameters
from mhist_tune.errors import DataError
from mhist_tune.events import Emit, StopRequest
from mhist_tune.search.rungs import RungBook, waiting
from mhist_tune.search.sampler_storage import SamplerStorage
from mhist_tune.search.values import ValueBook
from mhist_tune.storage import studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.leases import LeaseObserver, SlotKey
from mhist_tune.storage.predictions import image_rows
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study
from mhist_tune.training import memory, probe, weight_files
from mhist_tune.training.checkpoints.store import CheckpointStore
from mhist_tune.worker import plan, weight_lookup
from mhist_tune.worker.checkpoint_places import open_checkpoints


@dataclass(frozen=True)
class SkippedSlot:
    """A slot that this worker skips because it cannot read the trial's checkpoint.

    Attributes:
        place: the place of the checkpoint; None if this worker's own store is unreachable.
        n_epochs: the number of recorded epochs.
        again_at: the time from which this worker may claim it if no other slot is free, in seconds of the monotonic
            clock.
    """

    place: str | None
    n_epochs: int
    again_at: float

    def is_unchanged(self, other: "SkippedSlot") -> bool:
        """Return whether no worker has trained the trial between the two observations."""
        return (self.place, self.n_epochs) == (other.place, other.n_epochs)


@dataclass(frozen=True)
class Session:
    """A worker's data, device and records of one study.

    Attributes:
        train: all images of the train partition.
        cache_dir: the folder of decoded partitions.
        checkpoints: the store of training states.
        emit: receives events.
        micro_batch_size: the most images of a micro-batch that fit this worker's device; None for any number.
        weight_files: where each weight file of the study is here, see `weight_lookup.find`.
        skipped: the slots that this worker skips.
        observer: watches the leases of other workers.

    The other attributes are those of `open_session`.
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
    stages: Sequence[Stage] = ()
    weight_files: Mapping[str, str] = field(default_factory=dict)
    skipped: dict[SlotKey, SkippedSlot] = field(default_factory=dict)
    observer: LeaseObserver = field(default_factory=LeaseObserver)
    _subsets: dict[str, ImageSet] = field(default_factory=dict)
    _values: dict[Stage, ValueBook] = field(default_factory=dict)
    _rungs: dict[Stage, RungBook] = field(default_factory=dict)

    def subset(self, image_set: str) -> ImageSet:
        """Return the images of a stored set (`train` or `val`) in their stored order."""
        if image_set not in self._subsets:
            self._subsets[image_set] = self.train.take(self.positions(image_set))
        return self._subsets[image_set]

    def positions(self, image_set: str) -> npt.NDArray[np.int64]:
        """Return the positions [n] of a stored set's images in the train partition, in their stored order."""
        position = {name: index for index, name in enumerate(self.train.names)}
        names = image_rows(self.storage, self.study, image_set).names
        return np.array([position[name] for name in names], dtype=np.int64)

    def values(self, stage: Stage) -> ValueBook:
        """Return the values of a stage's trials that this process has read."""
        if stage not in self._values:
            self._values[stage] = ValueBook(self.storage, self.study, stage)
        return self._values[stage]

    def rungs(self, stage: Stage) -> RungBook:
        """Return the rungs of a stage that this process has read. Only the pruner `promotion` has rungs."""
        if stage not in self._rungs:
            self._rungs[stage] = RungBook(self.storage, self.study, stage)
        return self._rungs[stage]

    @functools.cached_property
    def sampler_storage(self) -> SamplerStorage:
        """Optuna's storage as the search's sampler sees it."""
        return SamplerStorage(self.storage.rdb, lambda: waiting(self.storage, self.study, Stage.SEARCH))

    def hyperparameters(self, params: Mapping[str, Any]) -> Hyperparameters:
        """Return `studies.hyperparameters` with a micro-batch that fits the device, unless it is part of the method."""
        hp = weight_files.renamed(studies.hyperparameters(self.study, params), self.weight_files)
        if self.micro_batch_size is None or hp.micro_batch_size <= self.micro_batch_size or memory.is_coupled(hp):
            return hp
        return replace(hp, micro_batch_size=self.micro_batch_size)


def open_session(
    storage: Storage,
    study: Study,
    *,
    data_root: Path,
    device: str,
    worker: str,
    emit: Emit,
    stop: StopRequest,
    checkpoints: CheckpointStore | None = None,
    stages: Sequence[Stage] = (),
    weights: Sequence[Path] = (),
    observer: LeaseObserver | None = None,
) -> Session:
    """Check the data and the weight files against the study, measure its settings if none are stored, load the images.

    Args:
        storage: the storage of the study.
        study: the study.
        data_root: the folder of the data set.
        device: torch's name of the device.
        worker: the name of the worker.
        emit: receives events.
        stop: the request to stop.
        checkpoints: the store of checkpoints; None for the one in the storage folder.
        stages: the stages from which the worker claims slots.
        weights: weight files of this machine, see `weight_lookup.find`.
        observer: that of this process; None for a new one.

    Raises:
        DataError: the images or a weight file differ from those of the study.
    """
    fingerprint = cache.fingerprint(data_root)
    if fingerprint != study.dataset["fingerprint"]:
        raise DataError(
            f"the images under {data_root} are not those that {study.name} was created with",
            hint="point --data to the same copy of the data set",
        )
    found_weights = weight_lookup.find(study, weights)
    hp = study.definition.hyperparameters(study.definition.default_params())
    torch_device = torch.device(device)
    study, micro_batch_size = _measured_settings(storage, study, hp, torch_device, emit)
    study = plan.ensure(storage, study, torch_device, emit)
    cache_dir = storage.root / "cache"
    return Session(
        storage=storage,
        study=study,
        data_root=data_root,
        cache_dir=cache_dir,
        checkpoints=checkpoints or open_checkpoints(None, storage.root),
        train=cache.load_train(data_root, image_size=hp.image_size, cache_dir=cache_dir).to(torch_device),
        device=torch_device,
        worker=worker,
        emit=emit,
        stop=stop,
        micro_batch_size=micro_batch_size,
        stages=stages,
        weight_files=found_weights,
        observer=observer or LeaseObserver(),
    )


def _measured_settings(
    storage: Storage, study: Study, hp: Hyperparameters, device: torch.device, emit: Emit
) -> tuple[Study, int | None]:
    """Return the study with its measured settings, and the micro-batch that fits this device; None for any.

    The settings stay on another kind of device than the measured one, so that trials are comparable. Only the
    micro-batch is measured again.
    """
    name = probe.device_name(device)
    if "probed" not in study.settings:
        study = studies.set_setting(storage, study, "probed", probe.measure(hp, device, study.definition.space))
    probed = study.settings["probed"]
    micro_batch_size: int | None = probed.get("micro_batch_size")
    emit("setting", study=study.name, **{key: probed.get(key) for key in (*PROBED, "micro_batch_size")})
    if probed.get("device", name) != name:
        default = studies.hyperparameters(study, study.definition.default_params())
        micro_batch_size = probe.micro_batch_size(default, device)
        fields = {"device": name, "probed_on": probed["device"], "micro_batch_size": micro_batch_size}
        emit("hardware", study=study.name, **fields)
    return study, micro_batch_size
