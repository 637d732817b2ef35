"""What is done to the training images of an epoch: one warp, then one change of stain for each image.

Drawn for the whole epoch at once on the CPU, applied batch by batch on the device of the images.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mhist_tune.hyperparameters import Hyperparameters
from mhist_tune.warps import draw_warps, only, to_floats, warp

# Unit optical densities of haematoxylin and eosin (Ruifrok and Johnston, 2001); the third row is what neither explains.
_STAINS = F.normalize(torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]], dtype=torch.float64), dim=1)
_RESIDUAL = F.normalize(torch.linalg.cross(_STAINS[0], _STAINS[1]), dim=0)
STAINS = torch.cat([_STAINS, _RESIDUAL[None]])


@dataclass(frozen=True, eq=False)
class Augmentation:
    """What happens to each image of an epoch; drawn for all of it at once, it does not depend on the batches.

    Attributes:
        warps: [n, 2, 3] or [n, 3, 3] as from `draw_warps`, None where images keep their shape.
        stains: [n, 3, 4] as from `draw_stains`, None where images keep their colours.
    """

    warps: Tensor | None
    stains: Tensor | None

    def to(self, device: torch.device) -> "Augmentation":
        """Return the same on a device."""
        warps, stains = (
            None if drawn is None else drawn.to(device, non_blocking=True) for drawn in (self.warps, self.stains)
        )
        return Augmentation(warps, stains)

    def apply(self, images: Tensor, part: slice) -> Tensor:
        """Return float32 [B, 3, H, W] in 0..1 of the images at the places `part` of the epoch.

        Args:
            images: [B, 3, H, W], uint8 in 0..255 or float in 0..1.
            part: their places in the epoch.
        """
        if self.stains is not None:
            images = stain(images, self.stains[part])
        return warp(images, None if self.warps is None else self.warps[part])


def draw(hp: Hyperparameters, is_new: Tensor, generator: torch.Generator, *, height: int, width: int) -> Augmentation:
    """Draw the augmentation of an epoch.

    Args:
        hp: names the augmentation, its probabilities, its scope and the stain jitter.
        is_new: bool [n], whether an image of the epoch is a new one, made from one that is in it already.
        generator: a CPU generator, so that every device draws the same.
        height, width: of the images, in pixels.
    """
    n = len(is_new)
    if hp.augment_scope == "none" or (hp.augment_scope == "resampled" and not is_new.any()):
        return Augmentation(None, None)
    probs = (hp.flip_prob, hp.augmentation_prob)
    warps = draw_warps(n, hp.augmentation, probs, generator, height=height, width=width)
    stains = draw_stains(n, hp.stain_jitter, hp.stain_prob, generator)
    if hp.augment_scope == "resampled":
        warps, stains = (None if drawn is None else only(drawn, is_new) for drawn in (warps, stains))
    return Augmentation(warps, stains)


def draw_stains(n: int, strength: float, prob: float, generator: torch.Generator) -> Tensor | None:
    """Draw the stain jitter of n images, on the CPU, or None where colours stay as they are.

    The amounts of haematoxylin and of eosin are multiplied by a factor in 1 +/- strength and shifted by up to strength,
    each on its own (Tellez et al., 2018), in a share `prob` of the images.

    Returns:
        float32 [n, 3, 4]: a linear map of optical densities (natural logarithm) and a shift.
    """
    if not strength:
        return None
    is_chosen = torch.rand(n, generator=generator) < prob
    amounts = (torch.rand(n, 2, 2, generator=generator, dtype=torch.float64) * 2 - 1) * strength
    factors, shifts = (F.pad(amounts[:, column], (0, 1)) for column in (0, 1))
    linear = STAINS.inverse() @ torch.diag_embed(1 + factors) @ STAINS
    drawn = torch.cat([linear.transpose(1, 2), (shifts @ STAINS)[:, :, None]], dim=2)
    return only(drawn.float(), is_chosen)


def stain(images: Tensor, maps: Tensor) -> Tensor:
    """Return float32 images in 0..1 whose optical densities went through `maps`, kept within what can be shown.

    Args:
        images: [B, 3, H, W], uint8 in 0..255 or float in 0..1.
        maps: [B, 3, 4] on the device of the images, as from `draw_stains`.
    """
    # 256 levels of which none is quite black, so that every density is finite and the identity stays one.
    densities = -torch.log((to_floats(images) * 255 + 1) / 256)
    mapped = torch.einsum("bij,bjhw->bihw", maps[:, :, :3], densities) + maps[:, :, 3, None, None]
    return ((torch.exp(-mapped) * 256 - 1) / 255).clamp(0, 1)


def normalize_(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Make images (images - mean) / std per channel, in place, and return them.

    Args:
        images: float [B, 3, H, W] in 0..1.
        mean, std: [3], already on the device of the images: making them here would wait for the device each time.
    """
    return images.sub_(mean.view(1, -1, 1, 1)).div_(std.view(1, -1, 1, 1))
