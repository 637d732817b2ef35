"""Training states on disk: one file for each generation, written whole or not at all, checked when read.

A file is a safetensors file; what is not a tensor stands as JSON in its metadata, beside a SHA-256 of everything. The
two newest generations of a key are kept, so that a torn or damaged one falls back to the one before. No pickle.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mhist_tune.errors import DiskFullError, StorageError

FORMAT = "mhist-tune checkpoint 1"
N_KEPT = 2
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*")
_NAME = re.compile(r"epoch-(\d+)\.token-(\d+)\.safetensors")
_TENSOR = "$tensor"


class CheckpointStore:
    """The checkpoints of many runs below one folder, each under its key.

    A state is a dict of dicts, lists, plain JSON values and tensors; keys of dicts are text. Several processes may
    use one folder at once. A key consists of letters, digits, ``. _ -`` and slashes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, key: str, state: Mapping[str, Any], *, epoch: int, token: int) -> None:
        """Write the state of a run after `epoch`, under the lease `token`, and drop all but two generations.

        Raises:
            DiskFullError: no space is left.
            StorageError: the folder cannot be written. Nothing half-written stays.
        """
        folder = self._folder_of(key)
        path = folder / f"epoch-{epoch:05d}.token-{token:05d}.safetensors"
        partial = path.with_suffix(".partial")
        tensors: dict[str, Tensor] = {}
        text = json.dumps(_take_tensors(state, "", tensors))
        metadata = {"format": FORMAT, "key": key, "state": text, "sha256": _digest(key, text, tensors)}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                save_file(tensors, partial, metadata=metadata)
                _sync(partial)
                partial.replace(path)
                _sync(folder)
            finally:
                partial.unlink(missing_ok=True)
            self._drop_old(folder, token)
        except (OSError, SafetensorError) as error:
            if _is_full(error):
                raise DiskFullError(f"no space is left for the checkpoint {path}", hint="free some space") from error
            raise StorageError(
                f"cannot write the checkpoint {path}: {error}", hint="free some space or make the folder writable"
            ) from error

    def load(self, key: str) -> dict[str, Any] | None:
        """Return the newest intact state of a run with its tensors on the CPU, or None if there is none."""
        for path in reversed(_generations(self._folder_of(key))):
            state = _read(path, key)
            if state is not None:
                return state
        return None

    def remove(self, key: str) -> None:
        """Delete everything under a key; nothing happens if there is nothing."""
        shutil.rmtree(self._folder_of(key), ignore_errors=True)

    def _folder_of(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f'"{key}" is not a checkpoint key')
        return self.folder / key

    def _drop_old(self, folder: Path, token: int) -> None:
        # Another holder of an older token may be at the same work; a file that it deleted first is no error.
        for path in _generations(folder)[:-N_KEPT]:
            path.unlink(missing_ok=True)
        for path in folder.glob("*.partial"):
            match = _NAME.fullmatch(path.with_suffix(".safetensors").name)
            if match and int(match[2]) <= token:
                path.unlink(missing_ok=True)


def _give_up(error: DiskFullError) -> None:
    raise error


@dataclass(frozen=True, slots=True)
class CheckpointSlot:
    """The checkpoints of one run under one lease: what `train.fit` sees of a store.

    Attributes:
        on_full: waits for space; called before every further try to save; it raises to end them.
    """

    store: CheckpointStore
    key: str
    token: int
    on_full: Callable[[DiskFullError], None] = _give_up

    def load(self) -> dict[str, Any] | None:
        """Return the newest intact state, or None."""
        return self.store.load(self.key)

    def save(self, state: Mapping[str, Any], *, epoch: int) -> None:
        """Write the state after `epoch`, as soon as there is space for it."""
        while True:
            try:
                self.store.save(self.key, state, epoch=epoch, token=self.token)
            except DiskFullError as error:
                self.on_full(error)
            else:
                return


def _generations(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest epoch first, then oldest token."""
    found = [(match, path) for path in folder.glob("*.safetensors") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda item: (int(item[0][1]), int(item[0][2])))]


def _read(path: Path, key: str) -> dict[str, Any] | None:
    """Return the state in a file, or None if it is torn, damaged, gone or of another key."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError):
        return None
    text = metadata.get("state", "")
    if metadata.get("format") != FORMAT or metadata.get("key") != key:
        return None
    if metadata.get("sha256") != _digest(key, text, tensors):
        return None
    state: dict[str, Any] = _put_tensors(json.loads(text), tensors)
    return state


def _take_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return `value` with each tensor replaced by a reference, and collect the tensors by that name."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        return {key: _take_tensors(item, f"{name}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_take_tensors(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]
    return value


def _put_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _put_tensors(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_put_tensors(item, tensors) for item in value]
    return value


def _digest(key: str, text: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(f"{key}\n{text}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def _is_full(error: Exception) -> bool:
    codes = (errno.ENOSPC, errno.EDQUOT)
    # safetensors passes the system's error on as text
    return getattr(error, "errno", None) in codes or any(f"(os error {code})" in str(error) for code in codes)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    # Some network file systems know no fsync of folders; the file itself has been synced before.
    with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
        os.fsync(descriptor)
    os.close(descriptor)
