"""The options of a worker. Imports nothing heavy, so that starting workers is fast."""

from dataclasses import dataclass
from pathlib import Path

from mhist_tune.storage.stages import Stage


@dataclass(frozen=True)
class WorkerOptions:
    """The options of a worker. They can be pickled, since every device has a process of its own.

    Attributes:
        storage_url: see `open_storage`.
        data_root: the folder of the data set.
        study: the study to serve; None for every study that has slots.
        stages: the stages to serve; None for all, see `worker.WORK`.
        wait: stay when no slot is left, and wait for more.
        checkpoints: the place of training states, see `open_checkpoints`; None for the storage folder.
        checkpoints_gb: the space that they may take, in GB; None for no limit.
    """

    storage_url: str
    data_root: Path
    study: str | None = None
    stages: tuple[Stage, ...] | None = None
    wait: bool = False
    checkpoints: str | None = None
    checkpoints_gb: float | None = None
