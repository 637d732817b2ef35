"""The first seed's weights of each retrained trial, in the storage folder of the machine that trained it.

The first seed, not the best one: a choice by test scores would be a choice on the test partition.
"""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mhist_tune.storage import Storage
from mhist_tune.studies import Study

SEED = 0
"""The seed whose weights are kept."""


def path_of(storage: Storage, study: Study, payload: Mapping[str, Any]) -> Path:
    """Return where the weights of a retraining slot lie; `payload` is the slot's."""
    name = f"opening-{payload['opening']}-trial-{payload['trial']}-seed-{payload['seed']}.safetensors"
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
