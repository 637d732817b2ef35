"""The format of checkpoints: safetensors files, written whole or not at all and checked when they are read. No pickle.

The metadata of a file holds the values that are not tensors, as JSON, and a SHA-256 of everything. The two newest
files of a key are kept, so that a damaged one falls back to the one before.
"""

import contextlib
import hashlib
import io
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from mhist_tune.errors import DiskFullError, StorageError
from mhist_tune.training.checkpoints.files import Files, Folder
from mhist_tune.writing import PARTIAL

FORMAT = "mhist-tune checkpoint 1"
N_KEPT = 2
_GB = 1e9
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*")
_NAME = re.compile(r"epoch-(\d+)\.token-(\d+)\.safetensors")
_TENSOR = "$tensor"
_PIECE_BYTES = 2**20
_DTYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of types in safetensors, the widest first: in this order every tensor of a file is aligned."""


class Cancelled(Exception):
    """A save was cancelled; it leaves no file."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A copy of a state, which training no longer changes.

    Attributes:
        text: the state as JSON, with a reference in place of each tensor.
        tensors: the tensors by their references, contiguous, on the CPU.
    """

    text: str
    tensors: dict[str, Tensor]

    @property
    def n_bytes(self) -> int:
        """The bytes of its file without the header."""
        return len(self.text) + sum(tensor.nbytes for tensor in self.tensors.values())


def snapshot(state: Mapping[str, Any]) -> Snapshot:
    """Copy a state: dicts with text keys, lists, plain JSON values and tensors, nested."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_take_tensors(state, "", tensors))
    return Snapshot(text, tensors)


class CheckpointStore:
    """The checkpoints of many runs, each under its key; several processes may use one store at once.

    A key consists of letters, digits, ``. _ -`` and slashes. No key is another key up to a slash.

    Args:
        files: the files of the checkpoints; a path means a folder.
        budget_bytes: the most that all of them may take; None for no limit.
    """

    def __init__(self, files: Files | Path, budget_bytes: int | None = None) -> None:
        self.files: Files = Folder(files) if isinstance(files, Path) else files
        self.budget_bytes = budget_bytes

    @property
    def place(self) -> str:
        """The place of the checkpoints."""
        return self.files.place

    def save(
        self, key: str, saved: Snapshot, *, epoch: int, token: int, cancelled: threading.Event | None = None
    ) -> None:
        """Write the state of a run after `epoch`, under the lease `token`, and remove all but the two newest files.

        Where there is no space for it, the run's own older files make room: first the oldest one, if need be all.

        Raises:
            Cancelled: `cancelled` was set meanwhile.
            DiskFullError: no space is left, or the file would exceed the budget, and the run has no older file.
            StoreUnreachableError: the store is unreachable.
            StorageError: the store cannot be written. No part of a file stays.
        """
        name = f"{_checked(key)}/epoch-{epoch:05d}.token-{token:05d}.safetensors"
        with self._explaining(f"cannot write the checkpoint {name}"):
            while True:
                try:
                    self._check_budget(saved)
                    with io.BufferedReader(_Body(key, saved, cancelled or threading.Event()), _PIECE_BYTES) as body:
                        self.files.write(name, body)
                except DiskFullError:
                    if not self._drop_oldest(key, token):
                        raise
                else:
                    break
            self._drop_old(key, token)

    def load(self, key: str) -> dict[str, Any] | None:
        """Return the newest intact state of a run with its tensors on the CPU, or None if there is none.

        Raises:
            StoreUnreachableError: the store is unreachable.
            StorageError: the store cannot be read.
        """
        with self._explaining(f"cannot read the checkpoints {key}"):
            names = self._generations(key)
        for name in reversed(names):
            state = _state_in(self._content(name), key)
            if state is not None:
                return state
        return None

    def keys(self, prefix: str) -> set[str]:
        """Return the keys below a prefix such as ``a/``."""
        with self._explaining(f"cannot read the checkpoints {prefix}"):
            return {name.rpartition("/")[0] for name in self.files.sizes(prefix)}

    def remove(self, key: str) -> None:
        """Remove all files under a key, or under all keys that begin with it and a slash; there may be none."""
        with self._explaining(f"cannot remove the checkpoints {key}"):
            for name in self.files.sizes(f"{_checked(key)}/"):
                self.files.remove(name)

    @contextlib.contextmanager
    def _explaining(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"{what} in {self.place}: {error}",
                hint="make it readable and writable, or choose another place with --checkpoints",
            ) from error

    def _content(self, name: str) -> bytes:
        try:
            return self.files.read(name)
        except OSError:  # removed meanwhile, or not readable
            return b""

    def _generations(self, key: str) -> list[str]:
        """Return the names of a key's checkpoints, oldest epoch first, then oldest token."""
        names = self.files.sizes(f"{_checked(key)}/")
        matches = [(match, name) for name in names if (match := _NAME.fullmatch(name.rpartition("/")[2]))]
        return [name for _, name in sorted(matches, key=lambda item: (int(item[0][1]), int(item[0][2])))]

    def _drop_old(self, key: str, token: int) -> None:
        # The holder of an older token may do the same at the same time; its removals are no error.
        for name in self._generations(key)[:-N_KEPT]:
            self.files.remove(name)
        for name in self.files.sizes(f"{key}/"):
            match = _NAME.fullmatch(name.rpartition("/")[2].removesuffix(PARTIAL))
            if name.endswith(PARTIAL) and match and int(match[2]) <= token:
                self.files.remove(name)

    def _drop_oldest(self, key: str, token: int) -> bool:
        """Remove the oldest file of a run, unfinished ones first. Return False if there is none.

        The files of a newer lease stay: its holder goes on with the run.
        """
        files = []
        for name in self.files.sizes(f"{key}/"):
            match = _NAME.fullmatch(name.rpartition("/")[2].removesuffix(PARTIAL))
            if match and int(match[2]) <= token:
                files.append((not name.endswith(PARTIAL), int(match[1]), int(match[2]), name))
        for *_, name in sorted(files)[:1]:
            self.files.remove(name)
        return bool(files)

    def _check_budget(self, saved: Snapshot) -> None:
        if self.budget_bytes is None:
            return
        taken = sum(self.files.sizes("").values())
        if taken + saved.n_bytes > self.budget_bytes:
            raise DiskFullError(
                f"the checkpoints in {self.place} take {taken / _GB:.2g} GB, and {saved.n_bytes / _GB:.2g} GB more "
                f"would be over their budget of {self.budget_bytes / _GB:.3g} GB",
                hint="raise --checkpoints-gb, or delete studies that are no longer needed",
            )


class _Body(io.RawIOBase):
    """A snapshot's safetensors file as a stream of pieces, so that memory never holds a second copy."""

    def __init__(self, key: str, saved: Snapshot, cancelled: threading.Event) -> None:
        self._cancelled = cancelled
        names = sorted(saved.tensors, key=lambda name: (list(_DTYPES).index(saved.tensors[name].dtype), name))
        checksum = _checksum(key, saved.text, saved.tensors)
        header: dict[str, Any] = {
            "__metadata__": {"format": FORMAT, "key": key, "state": saved.text, "sha256": checksum}
        }
        end = 0
        for name in names:
            tensor = saved.tensors[name]
            start, end = end, end + tensor.nbytes
            header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        head = len(text).to_bytes(8, "little") + text
        self._pieces = iter([memoryview(head), *(_bytes_of(saved.tensors[name]) for name in names)])
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        """Return True: the stream can be read, not written."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from the current piece and return the number of bytes; 0 at the end."""
        if self._cancelled.is_set():
            raise Cancelled
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._piece = piece
        n_bytes = min(len(buffer), len(self._piece))
        buffer[:n_bytes] = self._piece[:n_bytes]
        self._piece = self._piece[n_bytes:]
        return n_bytes


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f'"{key}" is not a checkpoint key')
    return key


def _state_in(content: bytes, key: str) -> dict[str, Any] | None:
    """Return the state in a file, or None if the file is cut short, damaged, empty or of another key."""
    try:
        tensors = load(content)
    except SafetensorError:
        return None
    n_bytes = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + n_bytes]).get("__metadata__", {})
    text = metadata.get("state", "")
    if metadata.get("format") != FORMAT or metadata.get("key") != key:
        return None
    if metadata.get("sha256") != _checksum(key, text, tensors):
        return None
    state: dict[str, Any] = _put_tensors(json.loads(text), tensors)
    return state


def _take_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return `value` with a reference in place of each tensor, and add copies of the tensors to `tensors`."""
    if isinstance(value, Tensor):
        copied = value.detach().to("cpu", copy=True)
        tensors[name] = copied.contiguous()
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


def _checksum(key: str, text: str, tensors: dict[str, Tensor]) -> str:
    checksum = hashlib.sha256(f"{key}\n{text}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        checksum.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        checksum.update(_bytes_of(tensor))
    return checksum.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else memoryview(b"")
