"""Augmentation of training images: one warp per image, then one change of its stain.

All random numbers of an epoch are drawn at once on the CPU. The images are changed batch by batch on their device.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.training.warps import draw_warps, only, to_floats, warp

# Optical density of haematoxylin and of eosin in R, G, B (Ruifrok and Johnston, 2001), scaled to unit length.
_STAINS = F.normalize(torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]], dtype=torch.float64), dim=1)
_RESIDUAL = F.normalize(torch.linalg.cross(_STAINS[0], _STAINS[1]), dim=0)
STAINS = torch.cat([_STAINS, _RESIDUAL[None]])
"""Unit vectors of haematoxylin, eosin and the residual orthogonal to both, float64 [3 stains, 3 channels]."""


@dataclass(frozen=True, eq=False)
class Augmentation:
    """The changes of the n images of an epoch. They do not depend on how the epoch is cut into batches.

    Attributes:
        warps: [n, 2, 3] or [n, 3, 3] as from `draw_warps`; None if no image is warped.
        stains: [n, 3, 4] as from `draw_stains`; None if no image changes its colours.
    """

    warps: Tensor | None
    stains: Tensor | None

    def to(self, device: torch.device) -> "Augmentation":
        """Return a copy on `device`."""
        warps, stains = (
            None if maps is None else maps.to(device, non_blocking=True) for maps in (self.warps, self.stains)
        )
        return Augmentation(warps, stains)

    def apply(self, images: Tensor, part: slice) -> Tensor:
        """Return the augmented images of a batch, float32 [B, 3, H, W] in 0..1.

        Args:
            images: [B, 3, H, W], uint8 in 0..255 or float in 0..1.
            part: the B positions of these images in the epoch.
        """
        if self.stains is not None:
            images = stain(images, self.stains[part])
        return warp(images, None if self.warps is None else self.warps[part])


def draw(hp: Hyperparameters, is_new: Tensor, generator: torch.Generator, *, height: int, width: int) -> Augmentation:
    """Draw the augmentation of an epoch.

    Args:
        hp: gives the augmentation, its probabilities, its scope and the stain jitter.
        is_new: bool [n], whether the sampling counts an image of the epoch as new, see `sampling.EpochDraw`.
        generator: a CPU generator, so that the numbers are the same for every device.
        height, width: of the images, in pixels.

    Raises:
        ValueError: `hp.augmentation` is unknown.
    """
    n = len(is_new)
    if hp.augment_scope == "none" or (hp.augment_scope == "resampled" and not is_new.any()):
        return Augmentation(None, None)
    probs = (hp.flip_prob, hp.augmentation_prob)
    warps = draw_warps(n, hp.augmentation, probs, generator, height=height, width=width)
    stains = draw_stains(n, hp.stain_jitter, hp.stain_prob, generator)
    if hp.augment_scope == "resampled":
        warps, stains = (None if maps is None else only(maps, is_new) for maps in (warps, stains))
    return Augmentation(warps, stains)


def draw_stains(n: int, strength: float, prob: float, generator: torch.Generator) -> Tensor | None:
    """Draw the stain jitter of n images on the CPU (Tellez et al., 2018).

    The amount of haematoxylin and the amount of eosin in an image are each multiplied by a factor from
    1 - strength to 1 + strength and shifted by -strength to strength, all four drawn independently and uniformly.

    Args:
        n: number of images.
        strength: 0..1; 0 for no jitter.
        prob: probability that an image is changed.
        generator: a CPU generator.

    Returns:
        float32 [n, 3, 4]: a linear map [3, 3] of the optical densities of R, G, B (natural logarithm) and, in the last
        column, a shift. The identity for images that are not changed. None if `strength` is 0.
    """
    if not strength:
        return None
    is_chosen = torch.rand(n, generator=generator) < prob
    amounts = (torch.rand(n, 2, 2, generator=generator, dtype=torch.float64) * 2 - 1) * strength
    factors, shifts = (F.pad(amounts[:, column], (0, 1)) for column in (0, 1))
    linear = STAINS.inverse() @ torch.diag_embed(1 + factors) @ STAINS
    maps = torch.cat([linear.transpose(1, 2), (shifts @ STAINS)[:, :, None]], dim=2)
    return only(maps.float(), is_chosen)


def stain(images: Tensor, maps: Tensor) -> Tensor:
    """Apply `maps` to the optical densities of the images; return float32 [B, 3, H, W], clipped to 0..1.

    Args:
        images: [B, 3, H, W], uint8 in 0..255 or float in 0..1.
        maps: [B, 3, 4] on the device of the images, as from `draw_stains`.
    """
    # Levels 0..255 become 1/256..1: every density is finite, and an identity map returns the image unchanged.
    densities = -torch.log((to_floats(images) * 255 + 1) / 256)
    mapped = torch.einsum("bij,bjhw->bihw", maps[:, :, :3], densities) + maps[:, :, 3, None, None]
    return ((torch.exp(-mapped) * 256 - 1) / 255).clamp(0, 1)


def normalize_(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Replace images by (images - mean) / std per channel, in place, and return them.

    Args:
        images: float [B, 3, H, W] in 0..1.
        mean, std: [3], on the device of the images. Creating them here would wait for the device in every call.
    """
    return images.sub_(mean.view(1, -1, 1, 1)).div_(std.view(1, -1, 1, 1))
