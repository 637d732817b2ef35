"""What an image looks like in a few whole numbers, for the samplers that ask which images are neighbours.

They come from no trained model and are counts, so they are the same on every device and machine; their hash is
recorded. They do not change when an image is flipped or turned by a quarter.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEVELS = tuple(range(16, 256, 16))
STEPS = (2, 4, 8, 16, 32, 64)
N_FEATURES = 3 * (len(LEVELS) + len(STEPS))
_N_IN_CHUNK = 64


def image_features(images: Tensor) -> NDArray[np.int64]:
    """Return how light each channel is and how sharply it changes, [n, N_FEATURES].

    For each channel: how many pixels reach each of LEVELS, and how many pairs of neighbouring pixels (horizontal and
    vertical together) differ by each of STEPS at least. Distances between such cumulative counts grow with how far
    two histograms lie apart.

    Args:
        images: uint8 [n, 3, H, W], on any device.
    """
    return np.concatenate([_of_chunk(chunk).cpu().numpy() for chunk in torch.split(images, _N_IN_CHUNK)])


def _of_chunk(images: Tensor) -> Tensor:
    signed = images.to(torch.int16)
    across, down = signed.diff(dim=3).abs(), signed.diff(dim=2).abs()
    counts = [(images >= level).sum(dim=(2, 3)) for level in LEVELS]
    counts += [(across >= step).sum(dim=(2, 3)) + (down >= step).sum(dim=(2, 3)) for step in STEPS]
    return torch.cat(counts, dim=1)
