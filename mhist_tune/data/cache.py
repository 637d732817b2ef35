"""Images of a partition, decoded once to uint8 into a cache file that all workers share; loads the train partition.

A cache file holds one partition at one image size, uint8 [n, 3, H, W]. Its name is made from the content of the table
and the images: where these change, the name changes, so an outdated file is never read. One process at a time writes
it, under a file lock. Its SHA-256 lies beside it, and a process that maps the file compares the two first: a file that
was changed or damaged is made again.
"""

import hashlib
import json
import mmap
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from mhist_tune.data.annotations import IMAGE_FOLDER, Annotations, read_annotations
from mhist_tune.data.decoding import decode
from mhist_tune.data.images import ImageSet
from mhist_tune.errors import DataError, StorageError
from mhist_tune.reading import open_file, read_file
from mhist_tune.writing import private_folder, replaced

DECODER_VERSION = 2
"""Part of the name of every cache file; to be raised when an image would decode to other pixels than before."""

_Version = tuple[int, int, int]
_compared: dict[Path, _Version] = {}
"""The cache files that this process has compared with their hashes: size, time of change and inode of each."""


def load_train(root: Path, *, image_size: int, cache_dir: Path) -> ImageSet:
    """Return the train partition at ``image_size`` px, from ``cache_dir`` or decoded into it. No test image is read.

    Raises:
        DataError: the table or a train image is missing or damaged.
        StorageError: the cache cannot be written.
    """
    return decode_cached(read_annotations(root, "train"), image_size=image_size, cache_dir=cache_dir)


def fingerprint(root: Path) -> str:
    """Return the sha256 (hex) of the train rows of the table and of the bytes of the train images.

    It depends neither on the place of the folder nor on the order or the line ends of the table's rows.

    Raises:
        DataError: the table or a train image is missing or damaged.
    """
    return content_fingerprint(read_annotations(root, "train"))


def content_fingerprint(annotations: Annotations) -> str:
    """Return the sha256 (hex) of one partition's rows and of the bytes of its images."""
    return _combine(annotations, file_hashes(annotations))


def file_hashes(annotations: Annotations) -> list[bytes]:
    """Return the sha256 of each image file of one partition."""
    return _for_each(annotations, lambda index: _fingerprint(_read(annotations, index)))


def decode_cached(annotations: Annotations, *, image_size: int, cache_dir: Path) -> ImageSet:
    """Return one partition at ``image_size`` px from its cache file, which is made first if there is none.

    The tensor maps the file copy-on-write: processes share its memory, and no write to it reaches the disk.

    Raises:
        DataError: an image is missing, damaged, or changed while it was read.
        StorageError: the cache cannot be written.
    """
    shape = (len(annotations), 3, image_size, image_size)
    try:
        private_folder(cache_dir)
        key = content_fingerprint(annotations)
        path = cache_dir / f"{key[:32]}-{image_size}px-v{DECODER_VERSION}.npy"
        pixels = _open_cache(path, shape)
        if pixels is None:
            with FileLock(path.with_suffix(".lock"), mode=0o600):
                # Another worker may have written the file while this one waited for the lock.
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


def read_images(paths: Sequence[Path], *, image_size: int) -> torch.Tensor:
    """Return image files as uint8 [n, 3, image_size, image_size], decoded and resized like a data set's images.

    Raises:
        DataError: a file cannot be read or is no image.
    """

    def read(path: Path) -> NDArray[np.uint8]:
        try:
            return _resized(decode(read_file(path)), image_size)
        except OSError as error:
            raise DataError(f"cannot read the image {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise DataError(
                f"image {path} cannot be decoded ({error})", hint="it must be a PNG or JPEG file"
            ) from error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return torch.from_numpy(np.stack(list(pool.map(read, paths))))


def _resized(image: Image.Image, image_size: int) -> NDArray[np.uint8]:
    """Return uint8 [3, image_size, image_size]. Another size or shape is resampled (bicubic, antialiased)."""
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)


def _write_cache(path: Path, shape: tuple[int, ...], annotations: Annotations, key: str) -> None:
    with replaced(path, is_only_writer=True, is_private=True) as partial:
        pixels = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)

        def fill(index: int) -> bytes:
            data = _read(annotations, index)
            try:
                pixels[index] = _resized(decode(data), shape[-1])
            except ValueError as error:
                raise _broken(annotations, f"cannot be decoded ({error})", index) from error
            return _fingerprint(data)

        if _combine(annotations, _for_each(annotations, fill)) != key:
            raise DataError(f"images in {annotations.paths[0].parent} changed while they were read", hint="run again")
        pixels.flush()
        with open_file(partial) as file, replaced(_hash_path(path), is_only_writer=True, is_private=True) as hashed:
            hashed.write_text(hashlib.file_digest(file, "sha256").hexdigest(), encoding="ascii")


def _open_cache(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]] | None:
    """Map a cache file; return None if it is missing, changed, or cut short by a crash of the machine."""
    try:
        if not _is_as_written(path):
            return None
        pixels: np.memmap[Any, np.dtype[np.uint8]] = np.load(path, mmap_mode="c")
    except (OSError, ValueError):
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _is_as_written(path: Path) -> bool:
    """Return whether a file has the content that was written. Each version of it is read once in a process.

    Raises:
        OSError: the file or its hash is not there.
    """
    with open_file(path) as file:
        stat = os.fstat(file.fileno())
        version = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if _compared.get(path) != version:
            if hashlib.file_digest(file, "sha256").hexdigest() != _hash_path(path).read_text(encoding="ascii"):
                return False
            _compared[path] = version
    return True


def _hash_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _read(annotations: Annotations, index: int) -> bytes:
    try:
        return read_file(annotations.paths[index])
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


def _combine(annotations: Annotations, fingerprints: list[bytes]) -> str:
    whole = hashlib.sha256()
    for row, fingerprint_of_image in zip(_rows(annotations), fingerprints, strict=True):
        whole.update(json.dumps(row).encode() + fingerprint_of_image)
    return whole.hexdigest()


def _fingerprint(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _for_each(annotations: Annotations, work: Callable[[int], bytes]) -> list[bytes]:
    """Run ``work`` on every index, in threads: reading, hashing and Pillow's decoders release the interpreter lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, range(len(annotations))))
