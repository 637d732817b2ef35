"""Weights of retrained models: of each retrained trial the first seed's, below the storage folder of who trained it.

The first seed, not the best one: a choice by test scores would be a choice on the test partition.
"""

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhist_tune.storage import Storage
from mhist_tune.studies import Study

if TYPE_CHECKING:
    from torch import Tensor

SEED = 0
"""The seed whose weights are kept."""


def path_of(storage: Storage, study: Study, payload: Mapping[str, Any]) -> Path:
    """Return where the weights of a retraining slot lie; `payload` is the slot's."""
    name = f"opening-{payload['opening']}-trial-{payload['trial']}-seed-{payload['seed']}.safetensors"
    return _folder(storage, study) / name


def write(path: Path, state_dict: Mapping[str, "Tensor"]) -> None:
    """Write weights as a safetensors file, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove(storage: Storage, study: Study) -> None:
    """Remove all weights of a study from this storage folder; nothing happens if there are none.

    Raises:
        OSError: they cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(_folder(storage, study))


def read(path: Path) -> dict[str, "Tensor"]:
    """Return weights on the CPU.

    Raises:
        OSError: there is no such file.
        SafetensorError: it is damaged.
    """
    from safetensors.torch import load_file

    return load_file(path)


def _folder(storage: Storage, study: Study) -> Path:
    return storage.root / "models" / f"{study.name}-{study.uuid[:8]}"
