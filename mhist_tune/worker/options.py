"""The options of a worker. Imports nothing heavy, so that starting workers is fast."""

from dataclasses import dataclass
from pathlib import Path

from mhist_tune.storage.stages import Stage


@dataclass(frozen=True)
class Limits:
    """When a worker leaves though slots are left.

    Attributes:
        max_idle_s: seconds without a slot; None for no limit.
        count: the number of slots that the workers begin, all of them together; None for no limit.
        max_outage_s: seconds for which an unreachable database is waited for.
    """

    max_idle_s: float | None = None
    count: int | None = None
    max_outage_s: float = 600.0


@dataclass(frozen=True)
class WorkerOptions:
    """The options of a worker. They can be pickled: every worker process gets them.

    Attributes:
        storage_url: see `open_storage`.
        data_root: the folder of the data set.
        study: the study to serve; None for every study that has slots.
        stages: the stages to serve; None for all, in the order of `loop.WORK`.
        wait: whether to wait for more slots when none is left.
        checkpoints: the place of the checkpoints, see `checkpoint_places.open_files`; None for the storage folder.
        checkpoints_gb: the space that they may take, in GB (1e9 bytes); None for no limit.
        weights: weight files of this machine, see `weight_lookup.find`.
        mix_versions: whether to train rows of a table that another version of the code trains.
        limits: when to leave though slots are left.
        job: the job of a cluster's engine, for the names of its workers; None for none.
    """

    storage_url: str
    data_root: Path
    study: str | None = None
    stages: tuple[Stage, ...] | None = None
    wait: bool = False
    checkpoints: str | None = None
    checkpoints_gb: float | None = None
    weights: tuple[Path, ...] = ()
    mix_versions: bool = False
    limits: Limits = Limits()
    job: str | None = None
