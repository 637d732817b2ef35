"""Tests of mhist_tune.training.features."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mhist_tune.training.features import LEVELS, N_FEATURES, STEPS, image_features


def images(n: int = 5, size: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 130), st.integers(0, 99))
def test_each_image_has_its_own(n: int, seed: int) -> None:
    """Features of many images are those of each alone: non-negative counts of at most all pixels or pairs."""
    many = images(n, size=4, seed=seed)

    features = image_features(many)

    assert features.shape == (n, N_FEATURES)
    assert features.min() >= 0
    assert features.max() <= 2 * 4 * 3
    assert np.array_equal(features[n // 2], image_features(many[n // 2 : n // 2 + 1])[0])


@pytest.mark.parametrize("turn", [lambda x: x.flip(3), lambda x: x.flip(2), lambda x: x.transpose(2, 3)])
def test_flips_and_quarter_turns_change_nothing(turn) -> None:
    """Slides have no up and down, so neighbours do not depend on it."""
    assert np.array_equal(image_features(turn(images())), image_features(images()))


def test_the_counts_are_the_documented_ones() -> None:
    """An even image of one colour reaches the levels up to it and has no step; one edge adds its pairs."""
    image = torch.full((1, 3, 4, 4), 40, dtype=torch.uint8)
    image[:, 0, :, 2:] = 50

    features = image_features(image)[0]

    levels, steps = features[: 3 * len(LEVELS)].reshape(-1, 3), features[3 * len(LEVELS) :].reshape(-1, 3)
    assert levels[:, 1].tolist() == [16, 16] + [0] * 13
    assert levels[:, 0].tolist() == [16, 16, 8] + [0] * 12
    assert steps[:, 0].tolist() == [4 if step <= 10 else 0 for step in STEPS]
    assert not steps[:, 1:].any()
