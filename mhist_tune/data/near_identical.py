"""Near-identical images in two sets: candidates by difference hashes, confirmed on pixels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mhist_tune.arrays import FloatArray

HASH_SIZE = 16
"""Cells on a side of the small grey copy; a difference hash has HASH_SIZE squared bits."""
MAX_NEAR_BITS = 32
"""Two images are candidates if at most this many of their 256 bits differ.

Measured on real H&E photographs: copies saved as JPEG (quality 40 to 90), or halved and enlarged again, differed in at
most 17 bits. Of 300,000 pairs of different photographs, each differed in at least 66 bits.
"""
MIN_CONTRAST = 4
"""An image with a lower standard deviation of its grey levels (0..255) is blank: its hash would be noise."""
MAX_DISTANCE = 0.01
"""Copies are at most this far from each other: 1 - correlation of their small grey copies.

Copies of generated H&E images saved as JPEG (quality 40) or halved and enlarged again were at most 0.003 apart.
"""
MIN_JUMP = 16
"""Copies are at least this many times nearer than the next image. Images with little detail are all near each other."""

_NOISE = 1e-6  # the distance of two images that are the same but for rounding

HashBits: TypeAlias = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Signature:
    """What two images are compared by.

    Attributes:
        bits: the difference hash, 256 bits as uint64 [4]. A bit says whether a cell of a small grey copy is lighter
            than its left neighbour.
        grey: the cells of another small grey copy, [256], with mean 0 and length 1.
    """

    bits: HashBits
    grey: FloatArray


def signature(image: Image.Image) -> Signature | None:
    """Return the signature of an image; None if the image is blank."""
    grey = image.convert("L")
    cells = np.asarray(grey.resize((HASH_SIZE + 1, HASH_SIZE), Image.Resampling.BICUBIC), dtype=np.int16)
    if cells.std() < MIN_CONTRAST:
        return None
    levels = np.asarray(grey.resize((HASH_SIZE, HASH_SIZE), Image.Resampling.BICUBIC), dtype=np.float64).ravel()
    levels -= levels.mean()
    return Signature(np.packbits(cells[:, 1:] > cells[:, :-1]).view(np.uint64), levels / np.linalg.norm(levels))


def copies(some: Mapping[str, Signature], others: Mapping[str, Signature]) -> Iterator[tuple[str, str]]:
    """Yield (name, other name) of every near-identical pair, one image from each mapping.

    The images of `some` that are near an image of `others` are copies of it if they are much nearer than the rest.
    """
    if not some:
        return
    names = list(some)
    hashes = np.stack([one.bits for one in some.values()])
    greys = np.stack([one.grey for one in some.values()])
    for other, found in others.items():
        is_candidate = np.bitwise_count(hashes ^ found.bits).sum(axis=1) <= MAX_NEAR_BITS
        if not is_candidate.any():
            continue
        distances = 1 - greys @ found.grey
        order = np.argsort(distances, kind="stable")
        is_far = distances[order] > MAX_DISTANCE
        jumps = np.append(distances[order][1:], np.inf) > MIN_JUMP * np.maximum(distances[order], _NOISE)
        n_near = int(np.flatnonzero(jumps & ~is_far).max(initial=-1)) + 1
        for index in order[:n_near]:
            if is_candidate[index]:
                yield names[index], other
