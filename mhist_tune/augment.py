"""Flips and rotations of a whole batch as one affine warp, on the device of the images.

Agrees with torchvision's `hflip`, `vflip` and `rotate(expand=True)` followed by `resize` to the old size, except that
one interpolation replaces torchvision's two and the expanded canvas is not rounded to whole pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ROTATION_DEGREES = 180.0


def augment(images: Tensor, name: str, prob: float, generator: torch.Generator) -> Tensor:
    """Flip and rotate each image of a batch at random, independently of the others.

    Args:
        images: [B, 3, H, W], uint8 in 0..255 or float in 0..1.
        name: "none", "flip", "rotate" or "flip_rotate".
        prob: probability of the horizontal flip, of the vertical flip and of the rotation, each on its own.
        generator: a CPU generator, so that every device draws the same.

    Returns:
        float32 [B, 3, H, W] in 0..1. A rotated image is shrunk until no corner is cut; what lies outside is 0.
    """
    height, width = images.shape[-2:]
    return warp(images, draw_warps(len(images), name, prob, generator, height=height, width=width))


def draw_warps(n: int, name: str, prob: float, generator: torch.Generator, *, height: int, width: int) -> Tensor | None:
    """Draw the warps of n images, [n, 2, 3] on the CPU, or None where images stay as they are.

    Drawn for a whole epoch at once, they do not depend on how it is cut into batches.

    Raises:
        ValueError: if `name` is unknown.
    """
    if name == "none":
        return None
    if name not in ("flip", "rotate", "flip_rotate"):
        raise ValueError(f'unknown augmentation "{name}"')
    is_chosen = torch.rand(n, 3, generator=generator) < prob
    degrees = (torch.rand(n, generator=generator) * 2 - 1) * MAX_ROTATION_DEGREES
    may_flip, may_rotate = "flip" in name, "rotate" in name
    return warp_matrices(
        is_chosen[:, 0] & may_flip,
        is_chosen[:, 1] & may_flip,
        degrees * (is_chosen[:, 2] & may_rotate),
        height=height,
        width=width,
    )


def warp_matrices(
    is_hflipped: Tensor, is_vflipped: Tensor, rotation_degrees: Tensor, *, height: int, width: int
) -> Tensor:
    """Return the warps that flip first and then rotate counter-clockwise with expansion, for `affine_grid`.

    Args:
        is_hflipped, is_vflipped: bool [n].
        rotation_degrees: float [n].
        height, width: of the images, in pixels.

    Returns:
        float32 [n, 2, 3], from output to input coordinates, both in -1..1.
    """
    radians = torch.deg2rad(rotation_degrees.double())
    cos, sin = radians.cos(), radians.sin()
    # The rotated image spans this canvas; resizing it to H x W stretches output coordinates by canvas / size.
    canvas_width = width * cos.abs() + height * sin.abs()
    canvas_height = width * sin.abs() + height * cos.abs()
    flip_x = 1 - 2 * is_hflipped.double()
    flip_y = 1 - 2 * is_vflipped.double()
    zero = torch.zeros_like(cos)
    x_row = torch.stack([cos * canvas_width / width, -sin * canvas_height / width, zero], dim=-1)
    y_row = torch.stack([sin * canvas_width / height, cos * canvas_height / height, zero], dim=-1)
    return torch.stack([flip_x[:, None] * x_row, flip_y[:, None] * y_row], dim=1).float()


def warp(images: Tensor, matrices: Tensor | None) -> Tensor:
    """Return float32 images in 0..1, warped by `matrices` (bilinear, 0 outside the image).

    Args:
        images: [B, 3, H, W], uint8 in 0..255 or float in 0..1.
        matrices: [B, 2, 3] on the device of the images, or None to only convert.
    """
    floats = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    if matrices is None:
        return floats
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(floats, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return (images - mean) / std per channel.

    Args:
        images: float [B, 3, H, W] in 0..1.
        mean, std: [3], already on the device of the images: making them here would wait for the device each time.
    """
    return (images - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
