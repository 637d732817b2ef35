"""Tests of mhist_tune.training.sampling."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from imblearn.over_sampling import ADASYN

from mhist_tune.training.sampling import STRATEGIES, EpochDraw, Sampling, cut_updates, prepare

LABELS = np.array([0, 0, 1, 0, 0, 0, 1, 0, 0], dtype=np.float32)
OVER = ("random_over", "smote", "adasyn", "adasyn_votes")


def overlapping(n_rarer: int, n_other: int, *, seed: int = 0, rarer: int = 1) -> tuple[Any, Any]:
    """Return labels and features of two classes that overlap, shuffled."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([rarer, 1 - rarer], [n_rarer, n_other]))
    return labels, np.round(rng.normal(size=(len(labels), 3)) * 100 + 60 * labels[:, None]).astype(np.int64)


def planned(strategy: str, labels: Any, features: Any = None) -> Sampling:
    rng = np.random.default_rng(1)
    given = rng.integers(0, 100, size=(len(labels), 3)) if features is None else features
    votes = np.where(np.asarray(labels) > 0.5, 5, 2)
    return prepare(strategy, labels, votes, lambda: given)


def drawn(strategy: str, labels: Any, *, seed: int = 0, epoch: int = 1, features: Any = None) -> EpochDraw:
    return planned(strategy, labels, features).draw(seed=seed, epoch=epoch)


def test_none_takes_every_image_once() -> None:
    """Without sampling an epoch is a permutation, and not the identity."""
    indices = drawn("none", LABELS).indices

    assert sorted(indices) == list(range(9))
    assert list(indices) != list(range(9))
    assert indices.dtype == np.int64


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(OVER), st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 2**31))
def test_over_sampling_balances_and_keeps_every_image(strategy: str, labels: list[bool], seed: int) -> None:
    """Twice the larger class exactly, both classes equal, the larger one taken once; whichever class is the rarer."""
    result = drawn(strategy, labels, seed=seed)

    classes = np.array(labels)[result.indices]
    n_larger = max(sum(labels), len(labels) - sum(labels))
    assert set(result.indices) == set(range(len(labels)))
    if len(set(labels)) == 2:
        assert classes.sum() == n_larger
        assert len(classes) == 2 * n_larger
    if strategy == "random_over":
        assert not result.is_new.any()
    else:
        # The images that are not new are every image once: what is added is what is new.
        assert sorted(result.indices[~result.is_new]) == list(range(len(labels)))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 2**31))
def test_random_under_thins_the_larger_class(labels: list[bool], seed: int) -> None:
    """The smaller class occurs whole and once, the larger one as often without repeats."""
    indices = drawn("random_under", labels, seed=seed).indices

    n_smaller = min(sum(labels), len(labels) - sum(labels))
    assert len(set(indices)) == len(indices)
    if n_smaller:
        assert np.array(labels)[indices].sum() == n_smaller
        assert len(indices) == 2 * n_smaller
    else:
        assert sorted(indices) == list(range(len(labels)))


def test_random_under_changes_from_epoch_to_epoch() -> None:
    """Over a few epochs the larger class is seen whole."""
    seen = {int(index) for epoch in range(1, 30) for index in drawn("random_under", LABELS, epoch=epoch).indices}

    assert seen == set(range(9))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 30), st.integers(2, 30), st.integers(0, 99))
def test_tomek_only_removes_from_the_larger_class(n_one: int, n_other: int, seed: int) -> None:
    """Every image is drawn once or never, and the rarer class is always whole."""
    labels, features = overlapping(n_one, n_other, seed=seed)
    plan_ = planned("tomek", labels, features)

    indices = plan_.draw(seed=seed, epoch=1).indices

    assert sorted(indices) == plan_.kept.tolist()
    rarer = int(2 * labels.sum() < len(labels))
    if n_one != n_other:
        assert set(np.flatnonzero(labels == rarer)) <= set(indices)


@pytest.mark.parametrize("rarer", [0, 1])
def test_tomek_removes_the_link_and_nothing_else(rarer: int) -> None:
    """Of two mutual nearest neighbours of different classes the one of the larger class goes."""
    labels = np.array([rarer, rarer, 1 - rarer, 1 - rarer, 1 - rarer])
    features = np.array([[0], [100], [101], [300], [303]])

    assert planned("tomek", labels, features).kept.tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("rarer", [0, 1])
def test_adasyn_prefers_images_among_the_other_class(rarer: int) -> None:
    """An image's weight is the share of the other class among its five neighbours, over the sum of these shares."""
    # Six of the rarer class at 0..5, with six of it one lies among eight of the larger class.
    points = [*range(7), *(100 + 2 * index for index in range(8)), *range(200, 210), 103]
    labels = np.array([rarer] * 7 + [1 - rarer] * 18 + [rarer])
    sampling = planned("adasyn", labels, np.array(points)[:, None])

    assert sampling.fallback is None
    assert sampling.weights is not None
    assert sampling.weights.tolist() == [0.0] * 25 + [1.0]
    result = sampling.draw(seed=0, epoch=1)
    assert set(result.indices[result.is_new]) == {25}
    assert result.is_new.sum() == 10


@settings(max_examples=20, deadline=None)
@example(16, 45, 94, 1)
@given(st.integers(8, 20), st.integers(30, 60), st.integers(0, 99), st.integers(0, 1))
def test_adasyn_agrees_with_imbalanced_learn(n_rarer: int, n_other: int, seed: int, rarer: int) -> None:
    """Rounded, the weights times the missing images are what imbalanced-learn would synthesize from each image.

    But for exact halves, which rounding noise sends either way: a share of neighbours over a sum of shares often is.
    """
    labels, features = overlapping(n_rarer, n_other, seed=seed, rarer=rarer)
    sampling = planned("adasyn", labels, features)
    if sampling.fallback:
        return
    weights = sampling.weights
    assert weights is not None

    n_theirs = len(ADASYN(random_state=0).fit_resample(features.astype(float), labels)[1]) - len(labels)

    expected = weights * (n_other - n_rarer)
    is_half = np.isclose(expected % 1, 0.5)
    assert np.rint(expected[~is_half]).sum() + np.floor(expected[is_half]).sum() <= n_theirs
    assert n_theirs <= np.rint(expected[~is_half]).sum() + np.ceil(expected[is_half]).sum()
    assert weights.sum() == pytest.approx(1.0)
    assert not weights[labels != rarer].any()


@pytest.mark.parametrize(
    ("labels", "features", "reason"),
    [
        ([0] * 12 + [1] * 8, [*range(12), *range(900, 908)], "Not any neigbours"),
        ([0] * 21 + [1] * 20, [index % 20 for index in range(41)], "No samples will be generated"),
        ([0] * 12 + [1] * 2, range(14), "n_neighbors"),
    ],
)
def test_adasyn_falls_back_to_uniform(labels: list[int], features: Any, reason: str) -> None:
    """Classes apart, nearly equal or tiny: the draw is smote's, and the reason is recorded in one line."""
    sampling = planned("adasyn", labels, np.array(features)[:, None])

    assert sampling.weights is None
    assert reason in str(sampling.fallback)
    assert "\n" not in str(sampling.fallback)
    uniform, smote = sampling.draw(seed=3, epoch=2), drawn("smote", labels, seed=3, epoch=2)
    assert np.array_equal(uniform.indices, smote.indices)
    assert np.array_equal(uniform.is_new, smote.is_new)


def test_smote_draws_what_random_over_draws() -> None:
    """The two differ in which images count as new, and in nothing else."""
    over, smote = drawn("random_over", LABELS), drawn("smote", LABELS)

    assert np.array_equal(over.indices, smote.indices)
    assert smote.is_new.sum() == 5


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_draw_belongs_to_seed_and_epoch(strategy: str) -> None:
    """The same seed and epoch draw the same; another of either draws otherwise."""
    labels, features = overlapping(9, 25)
    first, again, later, other = (
        drawn(strategy, labels, features=features, seed=seed, epoch=epoch).indices
        for seed, epoch in ((3, 2), (3, 2), (3, 3), (4, 2))
    )

    assert np.array_equal(first, again)
    assert not np.array_equal(first, later)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("strategy", OVER)
def test_repeats_change_from_epoch_to_epoch(strategy: str) -> None:
    """Which images are repeated is drawn anew for each epoch."""
    labels, features = overlapping(9, 25)
    counts = {
        tuple(np.bincount(drawn(strategy, labels, features=features, epoch=epoch).indices)) for epoch in range(1, 9)
    }

    assert len(counts) > 1


@pytest.mark.parametrize("strategy", ["none", "random_over", "random_under", "smote", "adasyn_votes"])
def test_features_are_not_asked_for_without_need(strategy: str) -> None:
    """Only adasyn and tomek look at images; the others record no hash of features."""

    def never() -> Any:
        raise AssertionError("features were computed")

    assert prepare(strategy, LABELS, 5 * LABELS, never).features_sha256 is None


def test_the_features_are_recorded_by_their_hash() -> None:
    """Other features have another hash."""
    labels, features = overlapping(9, 25)

    first, second = planned("adasyn", labels, features), planned("tomek", labels, features)

    assert first.features_sha256 == second.features_sha256
    assert first.features_sha256 != planned("adasyn", labels, features + 1).features_sha256


@pytest.mark.parametrize(
    ("votes", "repeated"),
    [
        ([0, 1, 2, 3, 3, 2, 1, 0, 4, 4, 5, 7], {8, 9}),
        ([0, 1, 2, 3, 3, 2, 1, 0, 5, 6, 5, 7], {8, 10}),
        ([7, 6, 5, 4, 4, 5, 6, 7, 3, 0, 3, 1], {8, 10}),
    ],
    ids=["4 of 7", "5 of 7 where no image has 4", "HP is rarer"],
)
def test_adasyn_votes_repeats_the_images_with_the_closest_vote(votes: list[int], repeated: set[int]) -> None:
    """Every image occurs once; only the rarer class's closest votes are repeated, uniformly, and count as new."""
    labels = np.array(votes) >= 4
    sampling = prepare("adasyn_votes", labels, votes, lambda: np.zeros((len(votes), 1), dtype=np.int64))
    epochs = [sampling.draw(seed=0, epoch=epoch) for epoch in range(1, 200)]
    drawn_again = np.concatenate([epoch.indices[epoch.is_new] for epoch in epochs])

    assert all(sorted(epoch.indices[~epoch.is_new]) == list(range(12)) for epoch in epochs)
    assert len(drawn_again) == 4 * len(epochs)
    assert set(drawn_again) == repeated
    shares = np.bincount(drawn_again)[sorted(repeated)] / len(drawn_again)
    assert np.allclose(shares, 0.5, atol=0.07)


def test_an_unknown_sampling_is_refused() -> None:
    """A name that is not implemented raises instead of training on something else."""
    with pytest.raises(ValueError, match='unknown sampling "borderline"'):
        planned("borderline", LABELS)


def sizes(n_images: int, effective: int, micro: int, *, is_coupled: bool) -> list[list[int]]:
    """Return the micro-batch sizes of each update, after checking that they cover the epoch in order."""
    updates = cut_updates(n_images, effective_batch_size=effective, micro_batch_size=micro, is_coupled=is_coupled)
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
    """Updates have the effective size except for the last; no micro-batch exceeds its size."""
    updates = sizes(n_images, effective, micro, is_coupled=False)

    assert all(sum(update) == effective for update in updates[:-1])
    assert all(size <= micro for update in updates for size in update)
    assert all(len(update) == -(-sum(update) // micro) for update in updates)
