"""Flips, rotations, perspective and affine warps of a whole batch, on the device of the images.

Each image has its own map from output to input coordinates, both in -1..1 as in `torch.nn.functional.grid_sample`, so
all its changes take one interpolation. The results agree with torchvision's functional transforms `hflip`, `vflip`,
`perspective`, `affine`, and `rotate(expand=True)` followed by `resize` to the old size. The rotation differs in two
points: torchvision interpolates twice, and it rounds the expanded canvas to whole pixels.
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
    """Draw the warps of n images on the CPU.

    Args:
        n: number of images.
        name: as `Hyperparameters.augmentation`.
        probs: the probability of each of the two flips, and the probability of the warp that follows them. All three
            are drawn independently.
        generator: a CPU generator.
        height, width: of the images, in pixels.

    Returns:
        float32 affine maps [n, 2, 3] or homographies [n, 3, 3]; None if `name` is "none".

    Raises:
        ValueError: `name` is unknown.
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
    warps = kinds[torch.randint(len(kinds), (n,), generator=generator), torch.arange(n)]
    flips = _square(warp_matrices(is_chosen[:, 0], is_chosen[:, 1], torch.zeros(n), height=height, width=width))
    return flips @ only(warps, is_chosen[:, 2])


def warp_matrices(
    is_hflipped: Tensor, is_vflipped: Tensor, rotation_degrees: Tensor, *, height: int, width: int
) -> Tensor:
    """Return the warps that flip and then rotate counter-clockwise. The canvas grows so that no corner is cut off.

    Args:
        is_hflipped, is_vflipped: bool [n].
        rotation_degrees: float [n].
        height, width: of the images, in pixels.

    Returns:
        float32 [n, 2, 3], from output to input coordinates, both in -1..1.
    """
    radians = torch.deg2rad(rotation_degrees.double())
    cos, sin = radians.cos(), radians.sin()
    # The rotated image fills this canvas. Resizing the canvas to H x W scales output coordinates by canvas / size.
    canvas_width = width * cos.abs() + height * sin.abs()
    canvas_height = width * sin.abs() + height * cos.abs()
    flip_x = 1 - 2 * is_hflipped.double()
    flip_y = 1 - 2 * is_vflipped.double()
    zero = torch.zeros_like(cos)
    x_row = torch.stack([cos * canvas_width / width, -sin * canvas_height / width, zero], dim=-1)
    y_row = torch.stack([sin * canvas_width / height, cos * canvas_height / height, zero], dim=-1)
    return torch.stack([flip_x[:, None] * x_row, flip_y[:, None] * y_row], dim=1).float()


def perspective_matrices(corners: Tensor, *, height: int, width: int) -> Tensor:
    """Return the homographies that move the corners of an image, as torchvision's `perspective` does.

    Args:
        corners: float [n, 4, 2], the new positions (x, y), in pixels, of the corners (0, 0), (W - 1, 0),
            (W - 1, H - 1) and (0, H - 1).
        height, width: of the images, in pixels.

    Returns:
        float32 [n, 3, 3], from output to input coordinates, both in -1..1.
    """
    x, y = corners.double().unbind(-1)
    sources = _corners(height, width)
    to_x, to_y = (sources[:, axis].expand_as(x) for axis in (0, 1))
    ones, zeros = torch.ones_like(x), torch.zeros_like(x)
    equations = torch.cat(
        [
            torch.stack([x, y, ones, zeros, zeros, zeros, -to_x * x, -to_x * y], dim=-1),
            torch.stack([zeros, zeros, zeros, x, y, ones, -to_y * x, -to_y * y], dim=-1),
        ],
        dim=1,
    )
    coefficients = torch.linalg.solve(equations, torch.cat([to_x, to_y], dim=1))
    in_pixels = torch.cat([coefficients, ones[:, :1]], dim=1).view(-1, 3, 3)
    half = torch.tensor(
        [[width / 2, 0.0, width / 2], [0.0, height / 2, height / 2], [0.0, 0.0, 1.0]], dtype=torch.float64
    )
    return (half.inverse() @ in_pixels @ half).float()


def affine_matrices(translations: Tensor, scales: Tensor, shear_degrees: Tensor, *, height: int, width: int) -> Tensor:
    """Return the warps that shear, scale and shift an image about its centre, as torchvision's `affine` does.

    Args:
        translations: float [n, 2], right and down, in pixels.
        scales: float [n], above 0; 1 keeps the size.
        shear_degrees: float [n, 2], along x and along y.
        height, width: of the images, in pixels.

    Returns:
        float32 [n, 2, 3], from output to input coordinates, both in -1..1.
    """
    tan_x, tan_y = torch.deg2rad(shear_degrees.double()).tan().unbind(-1)
    ones = torch.ones_like(tan_x)
    # The inverse of the shear [[1, -tan_x], [-tan_y, 1 + tan_x tan_y]], whose determinant is 1.
    linear = (
        torch.stack([1 + tan_x * tan_y, tan_x, tan_y, ones], dim=-1).view(-1, 2, 2) / scales.double()[:, None, None]
    )
    half = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    offset = -(linear @ translations.double()[:, :, None]) / half[:, None]
    return torch.cat([linear * half / half[:, None], offset], dim=2).float()


def warp(images: Tensor, matrices: Tensor | None) -> Tensor:
    """Warp images with bilinear interpolation; pixels outside the image are 0. Return float32 [B, 3, H, W] in 0..1.

    Args:
        images: [B, 3, H, W], uint8 in 0..255 or float in 0..1.
        matrices: [B, 2, 3] or [B, 3, 3] on the device of the images; None to convert the images only.
    """
    floats = to_floats(images)
    if matrices is None:
        return floats
    return F.grid_sample(floats, _grid(matrices, images), mode="bilinear", padding_mode="zeros", align_corners=False)


def only(maps: Tensor, is_chosen: Tensor) -> Tensor:
    """Return the maps [n, R, C] of the chosen images (bool [n]), and the identity for the other images."""
    return torch.where(is_chosen[:, None, None], maps, torch.eye(*maps.shape[1:]))


def to_floats(images: Tensor) -> Tensor:
    """Return images as float32 in 0..1; uint8 images in 0..255 are divided by 255."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images.float()


def _draw_perspectives(n: int, generator: torch.Generator, *, height: int, width: int) -> Tensor:
    """Return homographies [n, 3, 3] that move each corner inwards, as torchvision's RandomPerspective draws them."""
    max_shift = PERSPECTIVE_DISTORTION * torch.tensor([width // 2, height // 2])
    inwards = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    corners = _corners(height, width) + torch.rand(n, 4, 2, generator=generator) * max_shift * inwards
    return perspective_matrices(corners, height=height, width=width)


def _draw_affines(n: int, generator: torch.Generator, *, height: int, width: int) -> Tensor:
    """Return affine maps [n, 2, 3] with uniform translation, scale and shear within the limits above."""
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
    """Return the input coordinates (x, y) of each output pixel, [B, H, W, 2].

    For affine maps the result is that of `F.affine_grid`. It is computed as a sum over columns and rows, because the
    matrix product of `affine_grid` took as long as the interpolation itself.
    """
    height, width = images.shape[-2:]
    x, y = (((torch.arange(n, device=matrices.device) * 2 + 1) / n - 1)[:, None] for n in (width, height))
    columns = matrices[:, None, None, :, 0] * x
    rows = matrices[:, None, None, :, 1] * y[:, None] + matrices[:, None, None, :, 2]
    mapped = columns + rows
    return mapped if matrices.shape[1] == 2 else mapped[..., :2] / mapped[..., 2:]
