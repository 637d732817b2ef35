"""The validation split: stratified on the votes, repeatable, groups whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhist_tune.arrays import Int64Array
from mhist_tune.data.splits import split_folds, split_train
from mhist_tune.errors import DataError
from mhist_tune.mhist import MHIST_VOTES


def votes_of(counts: tuple[int, ...] | list[int]) -> Int64Array:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(8), counts)).astype(np.int64)


def labels_of(votes: Int64Array) -> Int64Array:
    return (votes >= 4).astype(np.int64)


def test_mhist_gives_a_fifth_of_every_vote_count() -> None:
    """2,175 train images: 435 for validation, of every vote count its fifth to within one image, 126 of 630 SSA."""
    votes = votes_of(MHIST_VOTES["train"])
    train, val = split_train(votes, labels_of(votes), None, val_fraction=0.2, seed=0)
    assert len(val) == 435
    assert labels_of(votes)[val].sum() == 126
    assert np.abs(np.bincount(votes[val], minlength=8) - 0.2 * np.array(MHIST_VOTES["train"])).max() < 1
    assert len(train) == 1740


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 40), min_size=8, max_size=8).filter(lambda c: sum(c[:4]) > 1 and sum(c[4:]) > 1),
    val_fraction=st.floats(0.05, 0.5),
    seed=st.integers(0, 2**32),
)
def test_any_counts_are_split_in_proportion(counts: list[int], val_fraction: float, seed: int) -> None:
    """Each image is on one side, each class on both, and each vote count within one image of its class's share."""
    votes = votes_of(counts)
    labels = labels_of(votes)
    train, val = split_train(votes, labels, None, val_fraction=val_fraction, seed=seed)
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(len(votes)))
    assert np.array_equal(val, np.sort(val))
    for label in (0, 1):
        members = labels == label
        n_val = int(members[val].sum())
        assert n_val == max(1, round(val_fraction * members.sum()))
        shares = np.bincount(votes[members], minlength=8) * n_val / members.sum()
        taken = np.bincount(votes[val][labels[val] == label], minlength=8)
        assert np.abs(taken - shares).max() < 1 + 1e-9


def test_the_seed_chooses_the_images() -> None:
    """One seed, one split; another seed, other images of the same counts."""
    votes = votes_of([20] * 8)
    splits = [split_train(votes, labels_of(votes), None, val_fraction=0.2, seed=seed)[1] for seed in (1, 1, 2)]
    assert np.array_equal(splits[0], splits[1])
    assert not np.array_equal(splits[0], splits[2])
    assert np.array_equal(np.bincount(votes[splits[0]]), np.bincount(votes[splits[2]]))


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole_and_counts_come_near(seed: int) -> None:
    """120 patients with 1 to 12 images: none on both sides, validation within 3% of its share, in each class too."""
    rng = np.random.default_rng(seed)
    groups = [f"p{patient}" for patient in range(120) for _ in range(rng.integers(1, 13))]
    votes = rng.choice(8, size=len(groups), p=np.array(MHIST_VOTES["train"]) / 2175).astype(np.int64)
    labels = labels_of(votes)
    train, val = split_train(votes, labels, groups, val_fraction=0.2, seed=seed)
    assert {groups[index] for index in train}.isdisjoint(groups[index] for index in val)
    assert len(train) + len(val) == len(groups)
    assert abs(len(val) / len(groups) - 0.2) < 0.03
    for label in (0, 1):
        assert abs((labels[val] == label).sum() / (labels == label).sum() - 0.2) < 0.03
    again = split_train(votes, labels, groups, val_fraction=0.2, seed=seed)[1]
    assert np.array_equal(val, again)
    assert not np.array_equal(val, split_train(votes, labels, groups, val_fraction=0.2, seed=seed + 1)[1])


def test_two_large_groups_of_a_class_go_to_either_side() -> None:
    """A class of two groups has one on each side, though half is far from a fifth."""
    votes = np.array([0] * 10 + [7] * 4)
    groups = ["a"] * 5 + ["b"] * 5 + ["c"] * 2 + ["d"] * 2
    train, val = split_train(votes, labels_of(votes), groups, val_fraction=0.2, seed=0)
    assert len(val) == 7
    assert len(train) == 7


@pytest.mark.parametrize(
    ("votes", "groups"),
    [([0, 1, 2, 7], None), ([0, 1, 2, 3], None), ([0, 1, 6, 7], ["a", "b", "c", "c"])],
    ids=["one positive image", "no positive image", "one positive group"],
)
def test_a_class_that_cannot_be_on_both_sides_is_refused(votes: list[int], groups: list[str] | None) -> None:
    """The error names the class."""
    array = np.array(votes)
    with pytest.raises(DataError, match="SSA images in both parts"):
        split_train(array, labels_of(array), groups, val_fraction=0.2, seed=0)


def test_folds_hold_every_image_once_and_every_vote_count_in_proportion() -> None:
    """MHIST in five folds of 435 images: of every vote count a fifth to within two images."""
    votes = votes_of(MHIST_VOTES["train"])
    folds = split_folds(votes, labels_of(votes), None, n_folds=5, seed=1)
    assert np.array_equal(np.sort(np.concatenate(folds)), np.arange(2175))
    for fold in folds:
        assert len(fold) == 435
        assert np.abs(np.bincount(votes[fold], minlength=8) - np.array(MHIST_VOTES["train"]) / 5).max() < 2


def test_folds_tear_no_group() -> None:
    """120 patients in four folds: each in one of them, and the folds nearly equal."""
    rng = np.random.default_rng(0)
    groups = [f"p{patient}" for patient in range(120) for _ in range(rng.integers(1, 13))]
    votes = rng.choice(8, size=len(groups)).astype(np.int64)
    folds = split_folds(votes, labels_of(votes), groups, n_folds=4, seed=0)
    owners = [{groups[index] for index in fold} for fold in folds]
    assert sum(len(one) for one in owners) == 120
    assert max(len(fold) for fold in folds) - min(len(fold) for fold in folds) < 0.05 * len(groups)


def test_a_class_with_fewer_images_than_folds_is_refused() -> None:
    """Two SSA images cannot be in three folds."""
    votes = np.array([0, 1, 2, 3, 0, 1, 6, 7])
    with pytest.raises(DataError, match="SSA images in both parts"):
        split_folds(votes, labels_of(votes), None, n_folds=3, seed=0)
