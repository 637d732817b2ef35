"""The files with the first seed's weights of each retrained trial.

They are in the storage folder of the machine that trained it. The first seed is kept, not the best one: choosing the
best would use the test partition.
"""

import contextlib
import shutil
from pathlib import Path

from mhist_tune.storage.database import Storage
from mhist_tune.storage.payloads import RetrainPayload
from mhist_tune.storage.studies import Study

SEED = 0
"""The seed whose weights are kept."""


def path_of(storage: Storage, study: Study, payload: RetrainPayload) -> Path:
    """Return the path of the weights of the retraining slot with `payload`."""
    name = f"opening-{payload.opening}-trial-{payload.trial}-seed-{payload.seed}.safetensors"
    return _folder(storage, study) / name


def remove(storage: Storage, study: Study) -> None:
    """Remove all weights of a study from this storage folder, if there are any.

    Raises:
        OSError: they cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(_folder(storage, study))


def _folder(storage: Storage, study: Study) -> Path:
    return storage.root / "models" / study.folder_name
