"""Tests of mhist_tune.training.augmentation."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.training.augmentation import STAINS, draw, draw_stains, normalize_, stain

OLD, NEW = torch.zeros(6, dtype=torch.bool), torch.tensor([False, True, False, True, True, False])


def images(n: int = 6, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=seeded(5))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def augmented(is_new: torch.Tensor, *, seed: int = 0, **options: Any) -> torch.Tensor:
    """Return six images as one epoch sees them, in one batch."""
    hp = Hyperparameters(**{"flip_prob": 1.0, "augmentation_prob": 1.0, "stain_prob": 1.0} | options)
    return draw(hp, is_new, seeded(seed), height=16, width=16).apply(images(), slice(0, 6))


def is_changed(result: torch.Tensor) -> list[bool]:
    return [bool(one) for one in (result - images().float() / 255).abs().amax(dim=(1, 2, 3)) > 1e-3]


@pytest.mark.parametrize("name", ["flip_rotate", "perspective", "flip_choice"])
@pytest.mark.parametrize("stain_jitter", [0.0, 0.3])
@pytest.mark.parametrize(("scope", "expected"), [("none", OLD), ("resampled", NEW), ("all", ~OLD)])
def test_the_scope_says_which_images_change(name: str, stain_jitter: float, scope: str, expected: torch.Tensor) -> None:
    """None, the new ones alone, or all; what an image gets does not depend on the scope."""
    result = augmented(NEW, augmentation=name, augment_scope=scope, stain_jitter=stain_jitter)

    assert is_changed(result) == expected.tolist()
    everything = augmented(NEW, augmentation=name, augment_scope="all", stain_jitter=stain_jitter)
    assert torch.equal(result[expected], everything[expected])


@pytest.mark.parametrize("chosen", ["flip_prob", "augmentation_prob", "stain_prob"])
def test_each_kind_of_change_has_a_probability_of_its_own(chosen: str) -> None:
    """One of the three at 1 and the others at 0 touches every image in its way and in no other."""
    options = {"flip_prob": 0.0, "augmentation_prob": 0.0, "stain_prob": 0.0, chosen: 1.0}
    hp = Hyperparameters(augmentation="flip_rotate", stain_jitter=0.3, **options)  # type: ignore[arg-type]

    drawn = draw(hp, OLD, seeded(), height=16, width=16)

    assert drawn.warps is not None
    assert drawn.stains is not None
    is_mirrored = (drawn.warps[:, 0, 0] == -1) & (drawn.warps[:, 1, 1] == -1)
    is_turned = drawn.warps[:, 0, 1] != 0
    is_stained = (drawn.stains != torch.eye(3, 4)).any(dim=(1, 2))
    assert is_mirrored.tolist() == [chosen == "flip_prob"] * 6
    assert is_turned.tolist() == [chosen == "augmentation_prob"] * 6
    assert is_stained.tolist() == [chosen == "stain_prob"] * 6


def test_without_new_images_the_scope_resampled_changes_nothing() -> None:
    """An epoch of old images is trained on as it is, bit by bit."""
    assert torch.equal(augmented(OLD, augment_scope="resampled"), images().float() / 255)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["none", "flip_rotate", "perspective", "flip_choice"]), st.floats(0, 1), st.integers(0, 99))
def test_batches_do_not_matter(name: str, strength: float, seed: int) -> None:
    """Cut in any way, an epoch gives each image the same augmentation, in range."""
    hp = Hyperparameters(augmentation=name, stain_jitter=strength)  # type: ignore[arg-type]
    augmentation = draw(hp, OLD, seeded(seed), height=16, width=16)

    whole = augmentation.apply(images(), slice(0, 6))
    parts = [augmentation.apply(images()[part], part) for part in (slice(0, 1), slice(1, 4), slice(4, 6))]

    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=0)
    assert whole.min() >= 0
    assert whole.max() <= 1 + 1e-6


def test_no_strength_means_no_stain_jitter() -> None:
    """Strength 0 draws nothing, so it leaves the warps' generator where it was."""
    assert draw_stains(4, 0.0, 1.0, seeded()) is None


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 1.0), st.integers(0, 99))
def test_an_unchosen_image_keeps_its_colours(strength: float, seed: int) -> None:
    """With probability 0 the map is the identity, and black and white survive it too."""
    maps = draw_stains(6, strength, 0.0, seeded(seed))
    assert maps is not None

    torch.testing.assert_close(stain(images(), maps), images().float() / 255, atol=1e-4, rtol=0)


def test_stains_change_by_their_own_amounts() -> None:
    """Of a picture of known stain amounts, each amount changes by at most its factor and shift, the residual not."""
    amounts = torch.tensor([[0.9, 0.3, 0.0], [0.2, 0.8, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
    levels = (torch.exp(-(amounts @ STAINS)) * 256 - 1) / 255
    maps = draw_stains(200, 0.2, 1.0, seeded())
    assert maps is not None

    stained = stain(levels.T.reshape(1, 3, 3, 1).expand(200, 3, 3, 1).float(), maps)

    densities = -torch.log((stained.double() * 255 + 1) / 256)
    found = densities[:, :, :, 0].transpose(1, 2) @ STAINS.inverse()
    changes = found[:, :, :2] - amounts[:, :2]
    assert bool((changes.abs() <= 0.2 * amounts[:, :2] + 0.2 + 1e-4).all())
    assert changes.abs().max() > 0.25
    assert found[:, :, 2].abs().max() < 1e-3
    # The two pictures' changes give factor and shift of each stain back; the third must agree with them.
    factors = (changes[:, 0] - changes[:, 1]) / (amounts[0, :2] - amounts[1, :2])
    shifts = changes[:, 0] - factors * amounts[0, :2]
    torch.testing.assert_close(changes[:, 2], factors * amounts[2, :2] + shifts, atol=1e-3, rtol=0)


def test_the_stains_are_unit_vectors_of_their_own_direction() -> None:
    """Haematoxylin absorbs red most against eosin, which absorbs green; the residual is orthogonal to both."""
    assert STAINS.norm(dim=1).tolist() == pytest.approx([1.0] * 3)
    assert STAINS[0, 0] > STAINS[1, 0]
    assert STAINS[1, 1] > STAINS[0, 1]
    assert math.isclose(float(STAINS[2] @ STAINS[0]), 0.0, abs_tol=1e-12)


def test_normalize_works_per_channel() -> None:
    """Each channel is shifted and scaled by its own numbers."""
    images = torch.full((1, 3, 2, 2), 0.5)

    normalized = normalize_(images, torch.tensor([0.5, 0.25, 0.0]), torch.tensor([1.0, 0.5, 0.25]))

    assert normalized[0, :, 0, 0].tolist() == [0.0, 0.5, 2.0]
