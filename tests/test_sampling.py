"""Tests of mhist_tune.sampling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhist_tune.sampling import epoch_indices, plan_updates

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


def sizes(n_images: int, effective: int, micro: int, *, is_coupled: bool) -> list[list[int]]:
    """Return the micro-batch sizes of each update, after checking that they cover the epoch in order."""
    updates = plan_updates(n_images, effective_batch_size=effective, micro_batch_size=micro, is_coupled=is_coupled)
    parts = [part for update in updates for part in update]
    assert [index for part in parts for index in range(n_images)[part]] == list(range(n_images))
    return [[part.stop - part.start for part in update] for update in updates]


@pytest.mark.parametrize(
    ("n_images", "effective", "micro", "is_coupled", "expected"),
    [
        (16, 8, 8, False, [[8], [8]]),
        (16, 8, 2, False, [[2, 2, 2, 2], [2, 2, 2, 2]]),
        (16, 8, 32, False, [[8], [8]]),
        (10, 8, 3, False, [[2, 3, 3], [2]]),
        (9, 8, 8, False, [[8], [1]]),
        (9, 8, 8, True, [[4, 5]]),
        (17, 8, 4, True, [[4, 4], [3, 3, 3]]),
        (17, 8, 7, True, [[4, 4], [4, 5]]),
        (3, 8, 2, True, [[3]]),
        (1, 8, 8, True, [[1]]),
    ],
)
def test_updates_and_micro_batches(
    n_images: int, effective: int, micro: int, is_coupled: bool, expected: list[list[int]]
) -> None:
    """Micro-batches are nearly equal; with BatchNorm a last single image joins the update before."""
    assert sizes(n_images, effective, micro, is_coupled=is_coupled) == expected


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 200), st.integers(2, 40), st.integers(2, 40))
def test_batch_norm_never_sees_one_image(n_images: int, effective: int, micro: int) -> None:
    """Whatever the sizes, no micro-batch holds one image, and none exceeds its size by more than one."""
    parts = [size for update in sizes(n_images, effective, micro, is_coupled=True) for size in update]

    assert min(parts) >= 2
    assert max(parts) <= micro + 1


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 40))
def test_without_batch_norm_the_micro_batch_is_a_limit(n_images: int, effective: int, micro: int) -> None:
    """Updates have the effective size except for the last; no micro-batch is larger than asked for."""
    updates = sizes(n_images, effective, micro, is_coupled=False)

    assert all(sum(update) == effective for update in updates[:-1])
    assert all(size <= micro for update in updates for size in update)
    assert all(len(update) == -(-sum(update) // micro) for update in updates)
