import numpy as np
import pytest

from mhist_tune.mhist import MHIST_VOTES
from mhist_tune.statistics.by_votes import Mistake, arrays, error_rates, mistakes, overall
from mhist_tune.statistics.resampling import crossed_bootstrap


def test_error_rates_are_rates_averaged_over_seeds():
    """Of two images with 7 votes, wrong in 1 and 0 of 2 seeds, a quarter is wrong; absent votes have no rate."""
    rates = error_rates([7, 7, 0], [1, 1, 0], [[0.4, 0.8, 0.3], [0.6, 0.9, 0.2]])
    assert [rate.votes for rate in rates] == list(range(8))
    assert (rates[7].n_images, rates[7].error_rate) == (2, 0.25)
    assert (rates[0].n_images, rates[0].error_rate) == (1, 0.0)
    assert (rates[3].n_images, rates[3].error_rate, rates[3].ci95) == (0, None, None)


def test_each_pathologist_is_compared_with_the_other_six():
    """The rate is that of a loop over seven ballots, each judged by the other six, where a tie counts half."""
    rates = error_rates([0, 7], [0, 1], [[0.1, 0.9]])
    for votes, rate in enumerate(rates):
        ballots = [1] * votes + [0] * (7 - votes)
        wrong = []
        for own, ballot in enumerate(ballots):
            others = ballots[:own] + ballots[own + 1 :]
            wrong.append(0.5 if sum(others) == 3 else float(ballot != (sum(others) > 3)))
        assert rate.human_error_rate == pytest.approx(np.mean(wrong))


def test_a_pathologist_errs_on_a_fifth_of_mhists_test_images():
    """Over MHIST's published votes one pathologist agrees with the other six on .781 of the test images."""
    votes = np.repeat(np.arange(8), MHIST_VOTES["test"])
    found = overall(error_rates(votes, votes >= 4, [np.where(votes >= 3, 0.9, 0.1)]))
    assert 1 - found.human_error_rate == pytest.approx(0.781, abs=5e-4)
    assert found.error_rate == pytest.approx(MHIST_VOTES["test"][3] / 977)


def test_interval_of_a_group_of_votes_is_that_of_its_own_images():
    """Images of one vote only: the interval is about one minus that of the accuracy over the same images."""
    rng = np.random.default_rng(0)
    table = np.clip(rng.random(200) + 0.1 * rng.normal(size=(5, 200)), 0, 1)
    rate = error_rates([5] * 200, [1] * 200, table)[5]
    low, high = crossed_bootstrap([1] * 200, table)["accuracy"]
    assert rate.ci95 == pytest.approx((1 - high, 1 - low), abs=0.015)


def test_no_error_among_few_images_is_no_proof():
    """Ten images, all right: up to 27.8% may be wrong, Wilson's limit; all wrong mirrors it."""
    rates = error_rates([0] * 10 + [7] * 10, [0] * 10 + [1] * 10, [[0.1] * 20])
    assert rates[0].ci95 == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert rates[7].ci95 == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_one_error_in_one_seed_bounds_no_more_tightly_than_none():
    """Thirty images, one of 300 calls wrong: up to 12% may be wrong, as with no wrong call; it was 2%."""
    table = np.full((10, 30), 0.1)
    without = error_rates([0] * 30, [0] * 30, table)[0].ci95[1]
    table[0, 0] = 0.9
    rate = error_rates([0] * 30, [0] * 30, table)[0]
    assert rate.error_rate == pytest.approx(1 / 300)
    assert without == pytest.approx(0.1135, abs=1e-3)
    assert rate.ci95[1] == pytest.approx(without, abs=0.01)


def test_few_groups_have_no_interval():
    """Nine groups of images with six votes give the rate alone, and the figure's bar no error bar."""
    groups = [f"slide{index % 9}" for index in range(90)]
    rates = error_rates([6] * 90, [1] * 90, np.random.default_rng(0).random((2, 90)), groups=groups)
    assert rates[6].error_rate > 0
    assert rates[6].ci95 is None
    assert arrays(rates).spread.tolist() == [[0.0], [0.0]]


def test_groups_widen_the_interval():
    """Images that are right or wrong together by slide count as few."""
    rng = np.random.default_rng(1)
    table = np.repeat(rng.random((1, 20)), 10, axis=1)
    votes, labels, groups = [6] * 200, [1] * 200, [f"slide{i // 10}" for i in range(200)]
    alone, together = (error_rates(votes, labels, table, groups=g)[6].ci95 for g in (None, groups))
    assert together[1] - together[0] > 1.5 * (alone[1] - alone[0])


def test_mistakes_are_ranked_by_confidence():
    """The surest mistake comes first, by the seeds' mean; what the mean gets right is left out."""
    labels, votes = [1, 0, 1, 0], [7, 3, 4, 0]
    table = [[0.3, 0.9, 0.45, 0.1], [0.3, 0.8, 0.45, 0.6]]
    found = mistakes(["a", "b", "c", "d"], votes, labels, table)
    assert [one.index for one in found] == [1, 0, 2]
    assert found[0] == Mistake(
        image_name="b", index=1, label=0, votes=3, probability=pytest.approx(0.85), share_of_seeds=1.0
    )
