"""Features of images, by which adasyn and tomek find nearest neighbours.

The features are counts of pixels, not the output of a trained model, so they are equal on every device and machine.
A run records their hash. Flips and rotations by 90 degrees do not change them.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEVELS = tuple(range(16, 256, 16))
STEPS = (2, 4, 8, 16, 32, 64)
N_FEATURES = 3 * (len(LEVELS) + len(STEPS))
_CHUNK_SIZE = 64  # images at a time, to bound the memory


def image_features(images: Tensor) -> NDArray[np.int64]:
    """Return the features of each image, int64 [n, N_FEATURES].

    For each channel they are the number of pixels of at least each level in LEVELS, then the number of pairs of
    neighbouring pixels (horizontal and vertical together) that differ by at least each step in STEPS. The counts are
    cumulative, so the distance between two images grows with the distance between their histograms.

    Args:
        images: uint8 [n, 3, H, W], on any device.
    """
    return np.concatenate([_count(chunk).cpu().numpy() for chunk in torch.split(images, _CHUNK_SIZE)])


def _count(images: Tensor) -> Tensor:
    signed = images.to(torch.int16)
    across, down = signed.diff(dim=3).abs(), signed.diff(dim=2).abs()
    counts = [(images >= level).sum(dim=(2, 3)) for level in LEVELS]
    counts += [(across >= step).sum(dim=(2, 3)) + (down >= step).sum(dim=(2, 3)) for step in STEPS]
    return torch.cat(counts, dim=1)
