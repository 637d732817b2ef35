"""Tests of mhist_tune.sampling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhist_tune.sampling import epoch_indices

LABELS = np.array([0, 0, 1, 0, 0, 0, 1, 0, 0], dtype=np.float32)


def test_none_takes_every_image_once() -> None:
    """Without sampling an epoch is a permutation, and not the identity."""
    indices = epoch_indices(LABELS, "none", seed=0, epoch=1)

    assert sorted(indices) == list(range(9))
    assert list(indices) != list(range(9))
    assert indices.dtype == np.int64


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 2**31))
def test_random_over_balances_and_keeps_every_image(labels: list[bool], seed: int) -> None:
    """Both classes become equally frequent; the larger one is taken exactly once, nothing is lost."""
    indices = epoch_indices(labels, "random_over", seed=seed, epoch=1)

    drawn = np.array(labels)[indices]
    n_larger = max(sum(labels), len(labels) - sum(labels))
    assert set(indices) == set(range(len(labels)))
    if len(set(labels)) == 2:
        assert drawn.sum() == n_larger
        assert len(drawn) == 2 * n_larger


@pytest.mark.parametrize("sampling", ["none", "random_over"])
def test_the_draw_belongs_to_seed_and_epoch(sampling: str) -> None:
    """The same seed and epoch draw the same; another of either draws otherwise."""
    first = epoch_indices(LABELS, sampling, seed=3, epoch=2)

    assert np.array_equal(first, epoch_indices(LABELS, sampling, seed=3, epoch=2))
    assert not np.array_equal(first, epoch_indices(LABELS, sampling, seed=3, epoch=3))
    assert not np.array_equal(first, epoch_indices(LABELS, sampling, seed=4, epoch=2))


def test_repeats_change_from_epoch_to_epoch() -> None:
    """Which minority images are repeated is drawn anew for each epoch."""
    counts = {tuple(np.bincount(epoch_indices(LABELS, "random_over", seed=0, epoch=e))) for e in range(1, 9)}

    assert len(counts) > 1


def test_an_unknown_sampling_is_refused() -> None:
    """A name that is not implemented raises instead of training on something else."""
    with pytest.raises(ValueError, match='unknown sampling "smote"'):
        epoch_indices(LABELS, "smote", seed=0, epoch=1)
