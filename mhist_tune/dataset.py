"""The train partition as one tensor: every image decoded once into a cache file that all workers share.

A cache file holds one partition at one image size, uint8 [n, 3, H, W], named by the content it was made from: a
changed table or image gives another name, so a stale file is never read. It is written by one process at a time under
a file lock and appears by a rename.
"""

import fcntl
import hashlib
import io
import json
import mmap
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mhist_tune.annotations import IMAGE_FOLDER, Annotations, read_annotations
from mhist_tune.arrays import Int64Array
from mhist_tune.errors import DataError, StorageError
from mhist_tune.writing import replaced

# Part of every cache file's name: raise it when an image would decode to other pixels than before.
DECODER_VERSION = 1
# A file changed twice within the clock's resolution keeps its stat; younger files are therefore hashed again.
SETTLED_S = 2.0
MAX_SHARE = 0.25


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels and votes.

    Subsets copy no image: they know which of the same pixels are theirs.

    Attributes:
        pixels: uint8 [N, 3, H, W], in memory, in the mapped cache file or on a GPU; this set's images are among them.
        labels: float32 [n], 1 = SSA.
        votes: int64 [n], 0..7.
        groups: None where the data set names none.
        rows: int64 [n] on the device of the pixels, where in them the images lie; None for all in their order.
        mapping: the cache file's, None where the pixels are no file.
        is_pinned: whether batches are read into page-locked memory, from which a GPU fetches them while work goes on.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    votes: torch.Tensor
    names: tuple[str, ...]
    groups: tuple[str, ...] | None
    rows: torch.Tensor | None = None
    mapping: mmap.mmap | None = None
    is_pinned: bool = False

    def __len__(self) -> int:
        return len(self.names)

    @property
    def images(self) -> torch.Tensor:
        """All images of the set, uint8 [n, 3, H, W]; a copy where they are not all of the pixels."""
        return self.pixels if self.rows is None else self._read(self.rows)

    def at(self, indices: torch.Tensor) -> torch.Tensor:
        """Return the images at ``indices`` (int64 [m], on the device of the pixels), uint8 [m, 3, H, W], a copy."""
        return self._read(indices if self.rows is None else self.rows[indices])

    def split(self, n: int) -> Iterator[torch.Tensor]:
        """Yield all images in their order, up to n at a time, as `torch.split` does."""
        for start in range(0, len(self), n):
            yield self.at(torch.arange(start, min(start + n, len(self)), device=self.pixels.device))

    def to(self, device: torch.device) -> "ImageSet":
        """Return the set with its images on a device: itself where they are there, a mapped file on a CPU included.

        On a GPU whose free memory they would take more than `MAX_SHARE` of they stay where they are, and so do all
        subsets, to be sent batch by batch.
        """
        is_there = self.pixels.device.type == device.type and device.index in (None, self.pixels.device.index)
        if is_there or self.is_pinned:
            return self
        n_bytes = len(self) * self.pixels[0].nbytes
        if device.type == "cuda" and n_bytes > MAX_SHARE * torch.cuda.mem_get_info(device)[0]:
            return replace(self, is_pinned=True)
        pixels = self.images.to(device)
        self._forget()
        return replace(self, pixels=pixels, rows=None, mapping=None)

    def take(self, indices: Int64Array | Sequence[int]) -> "ImageSet":
        """Return the set of the images at ``indices`` (any order, repeats allowed)."""
        chosen = np.asarray(indices, dtype=np.int64)
        at = torch.from_numpy(chosen)
        rows = at.to(self.pixels.device)
        return replace(
            self,
            rows=rows if self.rows is None else self.rows[rows],
            labels=self.labels[at],
            votes=self.votes[at],
            names=tuple(self.names[index] for index in chosen),
            groups=None if self.groups is None else tuple(self.groups[index] for index in chosen),
        )

    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        shape = (len(rows), *self.pixels.shape[1:])
        read = torch.empty(shape, dtype=torch.uint8, device=self.pixels.device, pin_memory=self.is_pinned)
        torch.index_select(self.pixels, 0, rows, out=read)  # on a CPU many times faster than self.pixels[rows]
        self._forget()
        return read

    def _forget(self) -> None:
        """Leave what was read from the file to the system's cache, which all processes share, and not to this one."""
        if self.mapping is not None:
            self.mapping.madvise(mmap.MADV_DONTNEED)


def load_train(root: Path, *, image_size: int, cache_dir: Path) -> ImageSet:
    """Return the train partition at ``image_size`` px, decoding it into ``cache_dir`` if that was not done yet.

    Raises:
        DataError: the table or a train image is missing or damaged. Test images are not looked at.
        StorageError: the cache cannot be written.
    """
    return decode_cached(read_annotations(root, "train"), image_size=image_size, cache_dir=cache_dir)


def fingerprint(root: Path) -> str:
    """Return the sha256 (hex) of the train rows of the table and of the bytes of the train images.

    It depends neither on where the folder lies nor on the order or line ends of the table's rows.

    Raises:
        DataError: the table or a train image is missing or damaged.
    """
    return content_fingerprint(read_annotations(root, "train"))


def content_fingerprint(annotations: Annotations) -> str:
    """Return the sha256 (hex) of one partition's rows and of the bytes of its images."""
    return _combine(annotations, _for_each(annotations, lambda index: _digest(_read(annotations, index))))


def decode_cached(annotations: Annotations, *, image_size: int, cache_dir: Path) -> ImageSet:
    """Return one partition at ``image_size`` px from its cache file, which is made first if there is none.

    The tensor maps the file copy-on-write: processes share its memory, and nothing written to it reaches the disk.

    Raises:
        DataError: an image is missing, damaged, or changed while it was read.
        StorageError: the cache cannot be written.
    """
    shape = (len(annotations), 3, image_size, image_size)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        key = _known_fingerprint(annotations, cache_dir)
        path = cache_dir / f"{key[:32]}-{image_size}px-v{DECODER_VERSION}.npy"
        pixels = _open_cache(path, shape)
        if pixels is None:
            with _locked(path.with_suffix(".lock")):
                # Another worker may have written it while this one waited.
                pixels = _open_cache(path, shape)
                if pixels is None:
                    _write_cache(path, shape, annotations, key)
                    pixels = _open_cache(path, shape)
    except OSError as error:
        raise StorageError(
            f"cannot write the image cache in {cache_dir}: {error.strerror or error}",
            hint=f"it needs {np.prod(shape) / 1e6:.0f} MB in a folder that can be written",
        ) from error
    if pixels is None:
        raise StorageError(f"the image cache {path} cannot be read back", hint="delete it and run again")
    return ImageSet(
        pixels=torch.from_numpy(pixels),
        labels=torch.from_numpy(annotations.labels.astype(np.float32)),
        votes=torch.from_numpy(annotations.votes.copy()),
        names=annotations.names,
        groups=annotations.groups,
        mapping=cast(mmap.mmap, pixels.base),
    )


def decode(data: bytes) -> Image.Image:
    """Return the RGB image that ``data`` (PNG or JPEG) holds, fully decoded.

    Raises:
        ValueError: the bytes are no image, or a damaged one.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            return image.convert("RGB")
    # Pillow's parsers fail on damaged bytes with many types (OSError, SyntaxError, struct.error, zlib.error, ...).
    except Exception as error:
        raise ValueError(str(error)) from error


def read_images(paths: Sequence[Path], *, image_size: int) -> torch.Tensor:
    """Return image files as uint8 [n, 3, image_size, image_size], decoded and resized as those of a data set are.

    Raises:
        DataError: a file cannot be read or is no image.
    """

    def read(path: Path) -> NDArray[np.uint8]:
        try:
            return _resized(decode(path.read_bytes()), image_size)
        except OSError as error:
            raise DataError(f"cannot read the image {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise DataError(
                f"image {path} cannot be decoded ({error})", hint="it must be a PNG or JPEG file"
            ) from error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return torch.from_numpy(np.stack(list(pool.map(read, paths))))


def _resized(image: Image.Image, image_size: int) -> NDArray[np.uint8]:
    """Return uint8 [3, image_size, image_size]; another size is resampled (bicubic, antialiased), another shape too."""
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)


def _write_cache(path: Path, shape: tuple[int, ...], annotations: Annotations, key: str) -> None:
    with replaced(path, is_only_writer=True) as partial:
        pixels = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)

        def fill(index: int) -> bytes:
            data = _read(annotations, index)
            try:
                pixels[index] = _resized(decode(data), shape[-1])
            except ValueError as error:
                raise _broken(annotations, f"cannot be decoded ({error})", index) from error
            return _digest(data)

        if _combine(annotations, _for_each(annotations, fill)) != key:
            raise DataError(f"images in {annotations.paths[0].parent} changed while they were read", hint="run again")
        pixels.flush()


def _open_cache(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]] | None:
    try:
        pixels: np.memmap[Any, np.dtype[np.uint8]] = np.load(path, mmap_mode="c")
    except (OSError, ValueError):  # not there, or cut short by a full disk or a crash of the machine
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; the kernel frees it when the process ends, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _known_fingerprint(annotations: Annotations, cache_dir: Path) -> str:
    """Return ``content_fingerprint``, from the index when no image file changed its size or time since it was taken."""
    stats = [_stat(annotations, index) for index in range(len(annotations))]
    seen = hashlib.sha256(repr((_rows(annotations), annotations.paths[0].parent.resolve(), stats)).encode()).hexdigest()
    entry = cache_dir / f"{seen[:32]}.fingerprint"
    try:
        return entry.read_text(encoding="ascii")
    except FileNotFoundError:
        key = content_fingerprint(annotations)
    if time.time() - max(changed_ns for _, changed_ns, _, _ in stats) / 1e9 > SETTLED_S:
        with replaced(entry) as partial:
            partial.write_text(key, encoding="ascii")
    return key


def _stat(annotations: Annotations, index: int) -> tuple[int, int, int, int]:
    try:
        stat = annotations.paths[index].stat()
    except OSError as error:
        raise _broken(annotations, error.strerror or str(error), index) from error
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _read(annotations: Annotations, index: int) -> bytes:
    try:
        return annotations.paths[index].read_bytes()
    except OSError as error:
        raise _broken(annotations, error.strerror or str(error), index) from error


def _broken(annotations: Annotations, problem: str, index: int) -> DataError:
    path = annotations.paths[index]
    return DataError(f"image {path}: {problem}", hint=f"mhist-tune data check {_root_of(path)} lists every such image")


def _root_of(path: Path) -> Path:
    return path.parent.parent if path.parent.name == IMAGE_FOLDER else path.parent


def _rows(annotations: Annotations) -> list[tuple[Any, ...]]:
    groups = annotations.groups or (None,) * len(annotations)
    votes, labels = annotations.votes.tolist(), annotations.labels.tolist()
    return list(zip(annotations.names, labels, votes, groups, strict=True))


def _combine(annotations: Annotations, digests: list[bytes]) -> str:
    whole = hashlib.sha256()
    for row, digest in zip(_rows(annotations), digests, strict=True):
        whole.update(json.dumps(row).encode() + digest)
    return whole.hexdigest()


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _for_each(annotations: Annotations, work: Callable[[int], bytes]) -> list[bytes]:
    """Run ``work`` on every index in threads: reading, hashing and Pillow's decoders release the interpreter lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, range(len(annotations))))
