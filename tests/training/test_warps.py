"""Tests of mhist_tune.training.warps: each image of a batch against torchvision's functional transforms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv
from torchvision.transforms.v2 import functional as tv2

from mhist_tune.training.warps import affine_matrices, draw_warps, perspective_matrices, warp, warp_matrices

NAMES = ["none", "flip", "rotate", "flip_rotate", "perspective", "affine", "flip_choice"]


def smooth_images(n: int, size: int = 64) -> torch.Tensor:
    """Return uint8 images without fine detail, where one and two interpolations agree."""
    coarse = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(7))
    return (torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def augmented(images: torch.Tensor, name: str, prob: float, seed: int = 0) -> torch.Tensor:
    """Return images warped by a fresh draw."""
    return warp(
        images, draw_warps(len(images), name, (prob, prob), seeded(seed), height=images.shape[2], width=images.shape[3])
    )


@pytest.mark.parametrize(("hflip", "vflip"), [(False, False), (True, False), (False, True), (True, True)])
def test_flips_agree_with_torchvision(hflip: bool, vflip: bool) -> None:
    """A flip moves pixels and changes none."""
    image = smooth_images(1)
    expected = tv.hflip(image) if hflip else image
    expected = tv.vflip(expected) if vflip else expected

    matrices = warp_matrices(torch.tensor([hflip]), torch.tensor([vflip]), torch.zeros(1), height=64, width=64)

    torch.testing.assert_close(warp(image, matrices), expected.float() / 255, atol=1e-4, rtol=0)


@pytest.mark.parametrize("degrees", [-180.0, -101.0, -45.0, -10.0, 30.0, 90.0, 137.0])
@pytest.mark.parametrize("hflip", [False, True])
def test_rotation_agrees_with_torchvision(degrees: float, hflip: bool) -> None:
    """Flip, rotate with expansion and resize agree with torchvision; only the blended outline may differ more."""
    image = smooth_images(1, size=224)
    flipped = tv.hflip(image) if hflip else image
    rotated = tv.rotate(flipped.float() / 255, degrees, InterpolationMode.BILINEAR, expand=True)
    expected = tv.resize(rotated, [224, 224], antialias=True)

    matrices = warp_matrices(
        torch.tensor([hflip]), torch.tensor([False]), torch.tensor([degrees]), height=224, width=224
    )
    difference = (warp(image, matrices) - expected).abs()
    covered = warp(torch.ones(1, 3, 224, 224), matrices) > 0.999
    is_inside = torch.nn.functional.avg_pool2d(covered.float(), 7, stride=1, padding=3) == 1

    assert difference.mean() < 0.01
    assert difference[is_inside].max() < 0.03


def test_an_oblong_image_is_expanded_too() -> None:
    """A quarter turn of a 32 x 64 image fills the whole frame again."""
    image = torch.full((1, 3, 32, 64), 255, dtype=torch.uint8)

    matrices = warp_matrices(torch.tensor([False]), torch.tensor([False]), torch.tensor([90.0]), height=32, width=64)
    turned = warp(image, matrices)

    # The outermost pixels blend with the outside, because the image was stretched to fill the frame.
    torch.testing.assert_close(turned[:, :, 1:-1, 1:-1], torch.ones(1, 3, 30, 62), atol=1e-4, rtol=0)
    assert turned.min() > 0.2


def test_no_corner_is_cut() -> None:
    """Marks in the four corners are still there after a rotation by 45 degrees."""
    image = torch.zeros(1, 3, 64, 64)
    for rows in (slice(0, 6), slice(58, 64)):
        for columns in (slice(0, 6), slice(58, 64)):
            image[:, :, rows, columns] = 1.0

    rotated = warp(
        image,
        warp_matrices(torch.tensor([False]), torch.tensor([False]), torch.tensor([45.0]), height=64, width=64),
    )

    # The image shrinks by sqrt(2) in each direction, so half of the mass is left.
    assert rotated.sum() == pytest.approx(image.sum().item() / 2, rel=0.05)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(NAMES), st.floats(0, 1), st.integers(0, 2**31))
def test_shape_dtype_and_range_are_kept(name: str, prob: float, seed: int) -> None:
    """Any augmentation gives float32 in 0..1 of the same shape."""
    warped = augmented(smooth_images(3, size=16), name, prob, seed)

    assert warped.shape == (3, 3, 16, 16)
    assert warped.dtype == torch.float32
    assert warped.min() >= 0
    assert warped.max() <= 1 + 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_probability_zero_is_the_identity(name: str) -> None:
    """With prob 0 images are only converted."""
    images = smooth_images(2)

    torch.testing.assert_close(augmented(images, name, 0.0), images.float() / 255, atol=1e-4, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(NAMES[1:]), st.integers(0, 2**31), st.integers(0, 3))
def test_images_do_not_depend_on_each_other(name: str, seed: int, place: int) -> None:
    """Changing one image of a batch leaves the others as they were."""
    images = smooth_images(4, size=16)
    changed = images.clone()
    changed[place] = 0
    others = [index for index in range(4) if index != place]

    first, second = augmented(images, name, 1.0, seed), augmented(changed, name, 1.0, seed)

    assert torch.equal(first[others], second[others])
    assert not torch.equal(first[place], second[place])


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(NAMES[1:]), st.integers(0, 2**31))
def test_the_draw_belongs_to_the_seed(name: str, seed: int) -> None:
    """The same seed draws the same warps; the next one draws others."""
    draws = [draw_warps(40, name, (0.5, 0.5), seeded(one), height=32, width=32) for one in (seed, seed, seed + 1)]

    assert all(draw is not None for draw in draws)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(
    ("name", "n_kinds"),
    [("none", 1), ("flip", 4), ("rotate", 21), ("flip_rotate", 24), ("perspective", 21), ("affine", 21)],
)
def test_each_name_does_what_it_says(name: str, n_kinds: int) -> None:
    """Flips give four kinds of image; rotations give another image nearly each time."""
    images = smooth_images(1, size=16).expand(48, 3, 16, 16)

    kinds = {tuple((image * 50).round().int().flatten().tolist()) for image in augmented(images, name, 0.5)}
    assert len(kinds) == n_kinds if name in ("none", "flip") else len(kinds) >= n_kinds - 6


def test_rotation_alone_never_flips() -> None:
    """The determinant of a flip is negative; rotations and double flips are positive."""
    rotations = draw_warps(50, "rotate", (1.0, 1.0), seeded(), height=8, width=8)

    assert rotations is not None
    assert (torch.linalg.det(rotations[:, :, :2]) > 0).all()


@pytest.mark.parametrize("size", [(48, 48), (40, 56)])
@pytest.mark.parametrize("seed", range(4))
def test_perspective_agrees_with_torchvision(size: tuple[int, int], seed: int) -> None:
    """Corners moved anywhere within half of the image give torchvision's picture, for each image of a batch."""
    height, width = size
    images = smooth_images(3, size=64)[:, :, :height, :width]
    starts = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    inwards = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    reach = torch.rand(3, 4, 2, generator=seeded(seed)) * torch.tensor([width // 4, height // 4])
    ends = (torch.tensor(starts) + inwards * reach).round().int()

    warped = warp(images, perspective_matrices(ends, height=height, width=width))

    for image, corners, result in zip(images, ends, warped, strict=True):
        expected = tv2.perspective(image.float() / 255, starts, corners.tolist(), InterpolationMode.BILINEAR)
        torch.testing.assert_close(result, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("size", [(48, 48), (40, 56)])
@pytest.mark.parametrize("seed", range(4))
def test_affine_agrees_with_torchvision(size: tuple[int, int], seed: int) -> None:
    """Shear, scale and translation give torchvision's picture, for each image of a batch."""
    height, width = size
    images = smooth_images(3, size=64)[:, :, :height, :width]
    shares = torch.rand(3, 5, generator=seeded(seed)) * 2 - 1
    translations, scales, shears = (shares[:, :2] * 8).round(), 1 + shares[:, 2] / 2, shares[:, 3:] * 30

    warped = warp(images, affine_matrices(translations, scales, shears, height=height, width=width))

    for image, move, scale, shear, result in zip(images, translations, scales, shears, warped, strict=True):
        expected = tv2.affine(
            image.float() / 255, 0.0, move.tolist(), float(scale), shear.tolist(), InterpolationMode.BILINEAR
        )
        torch.testing.assert_close(result, expected, atol=2e-3, rtol=0)


def test_a_perspective_pulls_corners_inwards_by_at_most_a_quarter() -> None:
    """Each drawn corner lies within a quarter of the image from where it was, and some move far."""
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    drawn = draw_warps(200, "perspective", (1.0, 1.0), seeded(), height=224, width=224)
    assert drawn is not None

    points = torch.nn.functional.pad(corners, (0, 1), value=1.0) @ drawn.double().inverse().transpose(1, 2).float()
    moved = (points[..., :2] / points[..., 2:] - corners).abs()

    assert moved.max() < 0.52
    assert moved.max() > 0.45


def test_flip_choice_uses_all_three_kinds_and_flips() -> None:
    """A third of the images each is rotated, seen in perspective and sheared; flips are independent of that."""
    drawn = draw_warps(600, "flip_choice", (1.0, 1.0), seeded(), height=64, width=64)
    assert drawn is not None
    linear = drawn[:, :2, :2]
    is_perspective = drawn[:, 2, :2].abs().sum(dim=1) > 1e-6
    is_rotation = (
        ~is_perspective
        & ((linear @ linear.transpose(1, 2))[:, 0, 1].abs() < 1e-4)
        & (drawn[:, :2, 2].abs().sum(dim=1) < 1e-6)
    )

    assert 150 < is_perspective.sum() < 250
    assert 150 < is_rotation.sum() < 250
    unflipped = draw_warps(600, "flip_choice", (0.5, 0.5), seeded(), height=64, width=64)
    assert unflipped is not None
    n_plain = (unflipped - torch.eye(3)).abs().amax(dim=(1, 2)).lt(1e-6).sum()
    assert 40 < n_plain < 115


def test_one_half_of_the_perspectives_is_left_out() -> None:
    """The probability decides for each image on its own."""
    drawn = draw_warps(400, "perspective", (0.5, 0.5), seeded(), height=64, width=64)
    assert drawn is not None

    assert 160 < (drawn == torch.eye(3)).all(dim=(1, 2)).sum() < 240


def test_an_unknown_augmentation_is_refused() -> None:
    """A name that is not implemented raises."""
    with pytest.raises(ValueError, match='unknown augmentation "mixup"'):
        draw_warps(1, "mixup", (0.5, 0.5), seeded(), height=8, width=8)
