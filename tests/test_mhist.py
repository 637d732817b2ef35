"""The facts of MHIST agree with each other."""

from mhist_tune.mhist import MHIST_VOTES, N_ANNOTATORS, N_TEST_IMAGES, N_TEST_SSA


def test_the_counts_are_the_published_ones() -> None:
    """2,175 and 977 images, 360 of the test images SSA; one count for each number of votes."""
    assert sum(MHIST_VOTES["train"]) == 2175
    assert (N_TEST_IMAGES, N_TEST_SSA) == (977, 360)
    assert all(len(counts) == N_ANNOTATORS + 1 for counts in MHIST_VOTES.values())
