"""Weights of retrained models: of each retrained trial the first seed's, below the storage folder of who trained it.

The first seed, not the best one: a choice by test scores would be a choice on the test partition.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from mhist_tune.storage import Storage
from mhist_tune.studies import Study

SEED = 0
"""The seed whose weights are kept."""


def path_of(storage: Storage, study: Study, payload: Mapping[str, Any]) -> Path:
    """Return where the weights of a retraining slot lie; `payload` is the slot's."""
    name = f"opening-{payload['opening']}-trial-{payload['trial']}-seed-{payload['seed']}.safetensors"
    return storage.root / "models" / f"{study.name}-{study.uuid[:8]}" / name


def write(path: Path, state_dict: Mapping[str, Tensor]) -> None:
    """Write weights as a safetensors file, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Tensor]:
    """Return weights on the CPU.

    Raises:
        OSError: there is no such file.
        SafetensorError: it is damaged.
    """
    return load_file(path)
