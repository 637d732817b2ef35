"""Tests of mhist_tune.augment."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from mhist_tune.augment import augment, draw_warps, normalize, warp, warp_matrices

NAMES = ["none", "flip", "rotate", "flip_rotate"]


def smooth_images(n: int, size: int = 64) -> torch.Tensor:
    """Return uint8 images without fine detail, where one and two interpolations agree."""
    coarse = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(7))
    return (torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
    augmented = augment(smooth_images(3, size=16), name, prob, seeded(seed))

    assert augmented.shape == (3, 3, 16, 16)
    assert augmented.dtype == torch.float32
    assert augmented.min() >= 0
    assert augmented.max() <= 1 + 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_probability_zero_is_the_identity(name: str) -> None:
    """With prob 0 images are only converted."""
    images = smooth_images(2)

    torch.testing.assert_close(augment(images, name, 0.0, seeded()), images.float() / 255, atol=1e-4, rtol=0)


def test_images_do_not_depend_on_each_other() -> None:
    """Changing one image of a batch leaves the others as they were."""
    images = smooth_images(4)
    changed = images.clone()
    changed[2] = 0

    first, second = augment(images, "flip_rotate", 1.0, seeded()), augment(changed, "flip_rotate", 1.0, seeded())

    assert torch.equal(first[[0, 1, 3]], second[[0, 1, 3]])
    assert not torch.equal(first[2], second[2])


@pytest.mark.parametrize(("name", "n_kinds"), [("none", 1), ("flip", 4), ("rotate", 21), ("flip_rotate", 24)])
def test_each_name_does_what_it_says(name: str, n_kinds: int) -> None:
    """Flips give four kinds of image; rotations give another image nearly each time."""
    images = smooth_images(1, size=16).expand(48, 3, 16, 16)

    augmented = augment(images, name, 0.5, seeded())

    kinds = {tuple((image * 50).round().int().flatten().tolist()) for image in augmented}
    assert len(kinds) == n_kinds if name in ("none", "flip") else len(kinds) >= n_kinds - 6


def test_rotation_alone_never_flips() -> None:
    """The determinant of a flip is negative; rotations and double flips are positive."""
    rotations = draw_warps(50, "rotate", 1.0, seeded(), height=8, width=8)

    assert rotations is not None
    assert (torch.linalg.det(rotations[:, :, :2]) > 0).all()


def test_an_unknown_augmentation_is_refused() -> None:
    """A name that is not implemented raises."""
    with pytest.raises(ValueError, match='unknown augmentation "perspective"'):
        augment(smooth_images(1), "perspective", 0.5, seeded())


def test_normalize_works_per_channel() -> None:
    """Each channel is shifted and scaled by its own numbers."""
    images = torch.full((1, 3, 2, 2), 0.5)

    normalized = normalize(images, torch.tensor([0.5, 0.25, 0.0]), torch.tensor([1.0, 0.5, 0.25]))

    assert normalized[0, :, 0, 0].tolist() == [0.0, 0.5, 2.0]
