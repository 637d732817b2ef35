"""The first seed's weights of each retrained trial, in the storage folder of the machine that trained it.

It is the first seed, not the best one: to choose by test scores would be to choose on the test partition.
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
    """Return the path of the weights of a retraining slot; `payload` is the slot's."""
    name = f"opening-{payload.opening}-trial-{payload.trial}-seed-{payload.seed}.safetensors"
    return _folder(storage, study) / name


def remove(storage: Storage, study: Study) -> None:
    """Remove all weights of a study from this storage folder; nothing happens if there are none.

    Raises:
        OSError: they cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(_folder(storage, study))


def _folder(storage: Storage, study: Study) -> Path:
    return storage.root / "models" / study.folder_name
