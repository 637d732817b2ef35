"""Flips, rotations, perspective and affine warps of a whole batch as one warp, on the device of the images.

Each image has its own map from output to input coordinates, both in -1..1 as in `torch.nn.functional.grid_sample`.
Agrees with torchvision's functional transforms image by image: `hflip`, `vflip`, `rotate(expand=True)` followed by
`resize` to the old size, except that one interpolation replaces torchvision's two and the expanded canvas is not
rounded to whole pixels; `perspective`; `affine`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ROTATION_DEGREES = 180.0
PERSPECTIVE_DISTORTION = 0.5  # a corner moves inwards by at most this share of half the image
MAX_TRANSLATION = 0.1  # of the image's width and height
MAX_SCALE_CHANGE = 0.2
MAX_SHEAR_DEGREES = 10.0
_AFFINE = ("flip", "rotate", "flip_rotate")


def draw_warps(
    n: int, name: str, probs: tuple[float, float], generator: torch.Generator, *, height: int, width: int
) -> Tensor | None:
    """Draw the warps of n images, on the CPU, or None where images stay as they are.

    `probs` are the probabilities of each flip and of what follows the flips; they are drawn independently.

    Returns:
        float32, [n, 2, 3] where all are affine, else homographies [n, 3, 3].

    Raises:
        ValueError: if `name` is unknown.
    """
    if name == "none":
        return None
    if name not in (*_AFFINE, "perspective", "affine", "flip_choice"):
        raise ValueError(f'unknown augmentation "{name}"')
    flip_prob, warp_prob = probs
    is_chosen = torch.rand(n, 3, generator=generator) < torch.tensor([flip_prob, flip_prob, warp_prob])
    degrees = (torch.rand(n, generator=generator) * 2 - 1) * MAX_ROTATION_DEGREES
    if name in _AFFINE:
        may_flip, may_rotate = "flip" in name, "rotate" in name
        return warp_matrices(
            is_chosen[:, 0] & may_flip,
            is_chosen[:, 1] & may_flip,
            degrees * (is_chosen[:, 2] & may_rotate),
            height=height,
            width=width,
        )
    perspectives = _draw_perspectives(n, generator, height=height, width=width)
    affines = _draw_affines(n, generator, height=height, width=width)
    if name == "perspective":
        return only(perspectives, is_chosen[:, 2])
    if name == "affine":
        return only(affines, is_chosen[:, 2])
    no_flip = torch.zeros(n, dtype=torch.bool)
    rotations = warp_matrices(no_flip, no_flip, degrees, height=height, width=width)
    kinds = torch.stack([_square(rotations), perspectives, _square(affines)])
    chosen = kinds[torch.randint(len(kinds), (n,), generator=generator), torch.arange(n)]
    flips = _square(warp_matrices(is_chosen[:, 0], is_chosen[:, 1], torch.zeros(n), height=height, width=width))
    return flips @ only(chosen, is_chosen[:, 2])


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


def perspective_matrices(corners: Tensor, *, height: int, width: int) -> Tensor:
    """Return the homographies that move an image's corners as torchvision's `perspective` does.

    Args:
        corners: float [n, 4, 2], where (x, y) in pixels the corners (0, 0), (W - 1, 0), (W - 1, H - 1) and (0, H - 1)
            come to lie.
        height, width: of the images, in pixels.

    Returns:
        float32 [n, 3, 3], from output to input coordinates, both in -1..1.
    """
    x, y = corners.double().unbind(-1)
    sources = _corners(height, width)
    to_x, to_y = (sources[:, axis].expand_as(x) for axis in (0, 1))
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    equations = torch.cat(
        [
            torch.stack([x, y, one, zero, zero, zero, -to_x * x, -to_x * y], dim=-1),
            torch.stack([zero, zero, zero, x, y, one, -to_y * x, -to_y * y], dim=-1),
        ],
        dim=1,
    )
    coefficients = torch.linalg.solve(equations, torch.cat([to_x, to_y], dim=1))
    in_pixels = torch.cat([coefficients, one[:, :1]], dim=1).view(-1, 3, 3)
    half = torch.tensor(
        [[width / 2, 0.0, width / 2], [0.0, height / 2, height / 2], [0.0, 0.0, 1.0]], dtype=torch.float64
    )
    return (half.inverse() @ in_pixels @ half).float()


def affine_matrices(translations: Tensor, scales: Tensor, shear_degrees: Tensor, *, height: int, width: int) -> Tensor:
    """Return the warps that shear, scale and move an image about its centre as torchvision's `affine` does.

    Args:
        translations: float [n, 2], to the right and downwards, in pixels.
        scales: float [n].
        shear_degrees: float [n, 2], along x and along y.
        height, width: of the images, in pixels.

    Returns:
        float32 [n, 2, 3], from output to input coordinates, both in -1..1.
    """
    tan_x, tan_y = torch.deg2rad(shear_degrees.double()).tan().unbind(-1)
    one = torch.ones_like(tan_x)
    # The inverse of the shear [[1, -tan_x], [-tan_y, 1 + tan_x tan_y]], whose determinant is 1.
    linear = torch.stack([1 + tan_x * tan_y, tan_x, tan_y, one], dim=-1).view(-1, 2, 2) / scales.double()[:, None, None]
    half = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    offset = -(linear @ translations.double()[:, :, None]) / half[:, None]
    return torch.cat([linear * half / half[:, None], offset], dim=2).float()


def warp(images: Tensor, matrices: Tensor | None) -> Tensor:
    """Return float32 images in 0..1, warped by `matrices` (bilinear, 0 outside the image).

    Args:
        images: [B, 3, H, W], uint8 in 0..255 or float in 0..1.
        matrices: [B, 2, 3] or [B, 3, 3] on the device of the images, or None to only convert.
    """
    floats = to_floats(images)
    if matrices is None:
        return floats
    return F.grid_sample(floats, _grid(matrices, images), mode="bilinear", padding_mode="zeros", align_corners=False)


def only(drawn: Tensor, is_chosen: Tensor) -> Tensor:
    """Return the maps [n, R, C] of the chosen images and the identity for the others."""
    return torch.where(is_chosen[:, None, None], drawn, torch.eye(*drawn.shape[1:]))


def to_floats(images: Tensor) -> Tensor:
    """Return float32 images in 0..1; uint8 ones are in 0..255."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images.float()


def _draw_perspectives(n: int, generator: torch.Generator, *, height: int, width: int) -> Tensor:
    """Return homographies [n, 3, 3] that pull each corner inwards, as torchvision's RandomPerspective draws them."""
    reach = PERSPECTIVE_DISTORTION * torch.tensor([width // 2, height // 2])
    inwards = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    moved = _corners(height, width) + torch.rand(n, 4, 2, generator=generator) * reach * inwards
    return perspective_matrices(moved, height=height, width=width)


def _draw_affines(n: int, generator: torch.Generator, *, height: int, width: int) -> Tensor:
    shares = torch.rand(n, 5, generator=generator) * 2 - 1
    return affine_matrices(
        shares[:, :2] * MAX_TRANSLATION * torch.tensor([width, height]),
        1 + shares[:, 2] * MAX_SCALE_CHANGE,
        shares[:, 3:] * MAX_SHEAR_DEGREES,
        height=height,
        width=width,
    )


def _corners(height: int, width: int) -> Tensor:
    right, bottom = width - 1.0, height - 1.0
    return torch.tensor([[0.0, 0.0], [right, 0.0], [right, bottom], [0.0, bottom]], dtype=torch.float64)


def _square(matrices: Tensor) -> Tensor:
    """Return affine warps [n, 2, 3] as homographies [n, 3, 3]."""
    return torch.cat([matrices, torch.eye(3)[2].expand(len(matrices), 1, 3)], dim=1)


def _grid(matrices: Tensor, images: Tensor) -> Tensor:
    """Return where each output pixel comes from, [B, H, W, 2].

    What `F.affine_grid` gives for affine warps, as one sum of columns and rows: its product of matrices took as long as
    the warp itself.
    """
    height, width = images.shape[-2:]
    x, y = (((torch.arange(n, device=matrices.device) * 2 + 1) / n - 1)[:, None] for n in (width, height))
    columns = matrices[:, None, None, :, 0] * x
    rows = matrices[:, None, None, :, 1] * y[:, None] + matrices[:, None, None, :, 2]
    moved = columns + rows
    return moved if matrices.shape[1] == 2 else moved[..., :2] / moved[..., 2:]
