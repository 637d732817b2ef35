"""Tests of mhist_tune.training.subsets."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.errors import UsageError
from mhist_tune.training.subsets import training_indices

VOTES = np.arange(80) % 8
LABELS = (VOTES >= 4).astype(np.int64)
NAMES = [f"{index:03}.png" for index in range(80)]


def chosen(*, at: Any = slice(None), **options: Any) -> list[str]:
    """Return the names of the images that a run trains on."""
    names = np.array(NAMES)[at].tolist()
    indices = training_indices(Hyperparameters(**options), votes=VOTES[at], labels=LABELS[at], names=names)
    assert list(indices) == sorted(set(indices))
    return [names[index] for index in indices]


def test_all_images_train_by_default() -> None:
    """By default no image is excluded."""
    assert chosen() == NAMES


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**31))
def test_subsets_have_equal_classes(n_per_class: int, subset_seed: int) -> None:
    """Each class has n_per_class images."""
    names = chosen(n_per_class=n_per_class, subset_seed=subset_seed)

    labels = [LABELS[NAMES.index(name)] for name in names]
    assert labels.count(0) == labels.count(1) == n_per_class


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_subsets_of_one_seed_are_nested(one: int, other: int, subset_seed: int) -> None:
    """The smaller one lies within the larger one."""
    small, large = (set(chosen(n_per_class=n, subset_seed=subset_seed)) for n in sorted((one, other)))

    assert small <= large


def test_another_seed_chooses_others() -> None:
    """The subset belongs to its seed."""
    assert chosen(n_per_class=10) == chosen(n_per_class=10, subset_seed=0)
    assert chosen(n_per_class=10) != chosen(n_per_class=10, subset_seed=1)


def test_a_subset_does_not_depend_on_the_order_of_the_images() -> None:
    """The same images are chosen from a shuffled table."""
    assert set(chosen(n_per_class=10, at=np.random.default_rng(0).permutation(80))) == set(chosen(n_per_class=10))


def test_exclusions_come_first() -> None:
    """A subset is of the images that are left."""
    names = chosen(n_per_class=20, exclude_votes=(3, 4))

    assert len(names) == 40
    assert not {VOTES[NAMES.index(name)] for name in names} & {3, 4}


@pytest.mark.parametrize(("options", "left"), [({}, "40 HP"), ({"exclude_votes": (4,)}, "40 HP")])
def test_a_class_that_is_too_small_is_named(options: dict[str, Any], left: str) -> None:
    """The message gives n_per_class and the number of images that there are."""
    with pytest.raises(UsageError, match=f"n_per_class = 41, but {left} images are left") as caught:
        chosen(n_per_class=41, **options)
    assert caught.value.hint


def test_the_rarer_class_may_be_either() -> None:
    """Too few SSA images are named as such."""
    with pytest.raises(UsageError, match="but 30 SSA images are left"):
        chosen(n_per_class=35, exclude_votes=(7,))


def test_excluding_everything_is_refused() -> None:
    """Excluding every image is an error."""
    with pytest.raises(UsageError, match="no training image is left"):
        chosen(exclude_votes=tuple(range(8)))
