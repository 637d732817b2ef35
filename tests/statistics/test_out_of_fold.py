"""Out-of-fold scores and the repeated choice: by hand, and by a simulated search whose truth is known."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from mhist_tune.data.splits import split_folds, split_train
from mhist_tune.mhist import MHIST_VOTES
from mhist_tune.statistics import out_of_fold
from mhist_tune.statistics.mean_f1 import mean_f1


def test_f1_is_pooled_and_auroc_averaged_over_folds():
    """A fold whose model is bolder by 0.3 leaves each fold's AUROC, and so the mean, but not a pooled one."""
    rng = np.random.default_rng(0)
    labels, folds = rng.integers(0, 2, size=200), np.repeat(np.arange(4), 50)
    p = np.clip(0.25 + 0.2 * labels + 0.1 * rng.normal(size=200), 0, 0.6)
    bold = p + 0.3 * (folds == 1)
    found = out_of_fold.scores(labels, folds, bold)
    assert found.f1 == pytest.approx(f1_score(labels, bold > 0.5))
    assert found.auroc == pytest.approx(np.mean([roc_auc_score(labels[folds == k], p[folds == k]) for k in range(4)]))
    assert abs(found.auroc - roc_auc_score(labels, bold)) > 0.05


def test_the_choice_is_repeated_in_resamples_of_the_images():
    """What is right on all that others are right on, and more, is chosen every time; equal ones share that."""
    labels = np.array([0, 1] * 30)
    right = np.where(labels == 1, 0.9, 0.1)
    wrong = np.where(np.arange(60) < 30, right, 1 - right)
    found = out_of_fold.selection(
        "f1", labels, np.zeros(len(labels), dtype=np.int64), [wrong, right, right], n_boot=300
    )
    assert found.shares == [0.0, 0.5, 0.5]
    low, high = found.intervals[1]
    assert 0.8 < low < high == 1.0
    low, high = found.intervals[0]
    assert low < f1_score(labels, wrong > 0.5) < high


def test_two_equally_good_configurations_share_the_choice():
    """Two that are wrong on different images are each chosen in about half of the resamples, group by group too."""
    labels = np.array([0, 1] * 50)
    right = np.where(labels == 1, 0.9, 0.1)
    pair = [np.where(np.arange(100) // 10 == block, 1 - right, right) for block in (2, 7)]
    groups = [f"g{index // 10}" for index in range(100)]
    for known in (None, groups):
        shares = out_of_fold.selection(
            "f1", labels, np.zeros(len(labels), dtype=np.int64), pair, groups=known, n_boot=2000
        ).shares
        assert sum(shares) == pytest.approx(1)
        assert shares[0] > 0.3
        assert shares[1] > 0.3


def test_equal_f1_is_decided_by_auroc_in_each_resample():
    """Of two that never call SSA, so that F1 is 0 in every resample, the one that ranks better is chosen mostly."""
    rng = np.random.default_rng(0)
    labels, folds = np.array([0, 1] * 60), np.arange(120) // 60
    worse, better = (np.clip(0.2 + by * labels + 0.1 * rng.normal(size=120), 0, 0.49) for by in (0.05, 0.12))
    found = out_of_fold.selection("f1", labels, folds, [worse, better], n_boot=400)
    assert all(low == 0 < high for low, high in found.intervals)
    assert 0.8 < found.shares[1] < 1
    assert sum(found.shares) == pytest.approx(1)


def test_one_configuration_needs_no_correction():
    """Without a choice the estimate is its F1, to within the resampling, and its gain over itself is 0."""
    labels, folds = np.array([0, 0, 1] * 100), np.arange(300) // 150
    p = np.clip(0.35 + 0.3 * labels + 0.2 * np.random.default_rng(0).normal(size=300), 0, 1)
    found = out_of_fold.selection("f1", labels, folds, [p], default=0, n_boot=1000)
    assert found.corrected.estimate == pytest.approx(f1_score(labels, p > 0.5), abs=0.006)
    assert found.corrected.ci95 == pytest.approx(found.intervals[0], abs=0.02)
    assert (found.gain.estimate, found.gain.ci95) == (0, (0, 0))


def test_too_few_images_have_no_corrected_score():
    """Where no resample leaves out images of both classes, nothing can score the choice."""
    found = out_of_fold.selection("f1", [0, 1], np.array([0, 0]), [[0.1, 0.9], [0.2, 0.8]], default=1, n_boot=50)
    assert (found.corrected, found.gain) == (None, None)


def corrected_study(rng, *, n_images, n_configurations, spread):
    """Return the errors of the highest F1 and of the corrected one, and whether the interval holds the truth.

    Configurations differ in skill by `spread`. The images and what is hard about each are drawn anew in each study.
    The last two values are the error of the corrected gain over the first configuration, and whether it is covered.
    """

    def logits_of(skills, labels, hard):
        return skills[:, None] * (2 * labels - 1) + hard + 0.57 * rng.normal(size=(len(skills), labels.size))

    labels, many = ((np.arange(n) < 0.29 * n).astype(int) for n in (n_images, 20000))
    skills = 1.1 + spread * rng.normal(size=n_configurations)
    true = f1_of(logits_of(skills, many, 0.8 * rng.normal(size=many.size)) > 0, many)
    predicted = 1 / (1 + np.exp(-logits_of(skills, labels, 0.8 * rng.normal(size=n_images))))
    found = out_of_fold.selection("f1", labels, np.zeros(n_images, dtype=np.int64), predicted, default=0, n_boot=300)
    f1 = f1_of(predicted > 0.5, labels)
    best = f1.argmax()
    gain = true[best] - true[0]
    low, high = found.corrected.ci95
    return (
        f1[best] - true[best],
        found.corrected.estimate - true[best],
        low <= true[best] <= high,
        found.gain.estimate - gain,
        found.gain.ci95[0] <= gain <= found.gain.ci95[1],
    )


def test_the_highest_confirmed_score_is_corrected():
    """Five equal configurations on 800 images: the highest F1 is too high by .01, the corrected one errs by < .003."""
    rng = np.random.default_rng(0)
    studies = [corrected_study(rng, n_images=800, n_configurations=5, spread=0.0) for _ in range(60)]
    highest, corrected, covers, gain, _ = np.mean(studies, axis=0)
    assert highest > 0.008
    assert abs(corrected) < 0.006  # its own standard error in this short form is .002
    assert abs(gain) < 0.006
    assert covers > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.05])
@pytest.mark.parametrize(("n_images", "n_configurations"), [(2175, 6), (825, 4)])
def test_the_correction_is_right_on_average(record_property, n_images, n_configurations, spread):
    """Over 1,000 studies the corrected F1 errs by at most .003 and the gain by less than .005; intervals cover 93%.

    The correction of the gain is pessimistic where few images decide: a resample chooses with more noise than the
    study did.
    """
    rng = np.random.default_rng(1)
    design = {"n_images": n_images, "n_configurations": n_configurations, "spread": spread}
    studies = np.array([corrected_study(rng, **design) for _ in range(1000)])
    for name, value in zip(
        ("highest", "corrected", "covers", "gain", "gain covers"), studies.mean(axis=0), strict=True
    ):
        record_property(name, float(value))
    assert studies[:, 0].mean() > 0.003  # the highest is too high, so the simulation can tell
    assert abs(studies[:, 1].mean()) <= 0.003
    assert studies[:, 2].mean() >= 0.93
    assert abs(studies[:, 3].mean()) < 0.005
    assert studies[:, 4].mean() >= 0.93


VOTES = np.repeat(np.arange(8), MHIST_VOTES["train"])
LABELS = (VOTES >= 4).astype(np.int64)
N_TRIALS, N_EPOCHS, N_FOLDS = 30, 12, 5


def logits(rng, images, labels, n_fits):
    """Return [fits, epochs, n]: equal configurations that learn, with noise of images, fits, epochs, and of all three.

    Args:
        images: what is hard about each image for every configuration and fit, [n].
    """
    skill = 1.1 * (1 - np.exp(-np.arange(1, N_EPOCHS + 1) / 2))[:, None] * (2 * labels - 1)
    of_fit = 0.4 * rng.normal(size=(n_fits, 1, labels.size)) + 0.15 * rng.normal(size=(n_fits, 1, 1))
    of_epoch = 0.4 * rng.normal(size=(n_fits, N_EPOCHS, labels.size)) + 0.25 * rng.normal(size=(n_fits, N_EPOCHS, 1))
    return skill + images + of_fit + of_epoch


def f1_of(calls, labels):
    tp = (calls & (labels == 1)).sum(axis=-1)
    return 2 * tp / (calls.sum(axis=-1) + labels.sum())


def true_f1(rng):
    """Return the mean F1 of a fit after each epoch, [epochs], over fits and images that no search has seen."""
    many = np.tile(LABELS, 2)
    runs = [f1_of(logits(rng, 0.8 * rng.normal(size=many.size), many, 1) > 0, many)[0] for _ in range(400)]
    return np.mean(runs, axis=0)


def simulate(rng, seed):
    """Return a study's best search value, its confirmed F1, the stop epoch, and the F1 when stopped on the fold."""
    images = 0.8 * rng.normal(size=LABELS.size)
    _, val = split_train(VOTES, LABELS, None, val_fraction=0.2, seed=seed)
    searched = f1_of(logits(rng, images[val], LABELS[val], N_TRIALS) > 0, LABELS[val])
    inner, outer = np.zeros(N_FOLDS, dtype=np.int64), np.zeros((N_EPOCHS, LABELS.size))
    in_fold = np.zeros(LABELS.size, dtype=np.int64)
    for fold, held_out in enumerate(split_folds(VOTES, LABELS, None, n_folds=N_FOLDS, seed=seed + 10**6)):
        in_fold[held_out] = fold
        outside = np.setdiff1d(np.arange(LABELS.size), held_out)
        part = outside[split_train(VOTES[outside], LABELS[outside], None, val_fraction=0.2, seed=seed)[1]]
        inner[fold] = f1_of(logits(rng, images[part], LABELS[part], 1)[0] > 0, LABELS[part]).argmax() + 1
        outer[:, held_out] = logits(rng, images[held_out], LABELS[held_out], 1)[0]
    stop_epoch = int(np.sort(inner)[N_FOLDS // 2])
    confirmed = out_of_fold.scores(LABELS, in_fold, 1 / (1 + np.exp(-outer[stop_epoch - 1])))
    stopped = [f1_of(outer[:, in_fold == k] > 0, LABELS[in_fold == k]).argmax() for k in range(N_FOLDS)]
    peeked = out_of_fold.scores(LABELS, in_fold, 1 / (1 + np.exp(-outer[np.array(stopped)[in_fold], np.arange(2175)])))
    return searched.max(), confirmed.f1, stop_epoch, peeked.f1


@pytest.mark.slow
def test_the_estimated_optimism_is_right_on_average(record_property):
    """Equal configurations, so that all of the best one's lead is luck: over 400 studies the estimate errs by < .005.

    Stopped on the fold that scores it instead, it would err by more than .01, so the simulation can tell.
    """
    rng = np.random.default_rng(0)
    truth = true_f1(rng)
    studies = np.array([simulate(rng, seed) for seed in range(400)])
    at_stop = truth[studies[:, 2].astype(int) - 1]
    error = at_stop - studies[:, 1]  # (search - confirmed) - (search - true)
    record_property("true optimism", float((studies[:, 0] - at_stop).mean()))
    record_property("mean error", float(error.mean()))
    record_property("spread per study", float(error.std(ddof=1)))
    record_property("mean error stopped on the fold", float((at_stop - studies[:, 3]).mean()))
    assert (studies[:, 0] - at_stop).mean() > 0.03
    assert abs(error.mean()) < 0.005
    assert (at_stop - studies[:, 3]).mean() < -0.01


def test_mean_f1_is_pooled_over_the_folds() -> None:
    """It is the mean F1 of all images together; one fold alone has the same scores as its images."""
    rng = np.random.default_rng(0)
    labels, probabilities = np.tile([0, 1, 1], 20), rng.random(60)
    folds = np.repeat([0, 1], 30)

    found = out_of_fold.scores(labels, folds, probabilities)

    assert found.of("mean_f1") == pytest.approx(mean_f1(labels, probabilities).value)
    assert out_of_fold.score("f1", labels, probabilities) == pytest.approx(found.f1)


@pytest.mark.parametrize("name", ["mean_f1", "auroc"])
def test_the_choice_is_repeated_by_the_score(name: str) -> None:
    """The configuration that is better by the named score is chosen in the resamples, whatever its F1 at 0.5 is."""
    labels, folds = np.tile([0, 1], 50), np.repeat([0, 1], 50)
    noise = np.random.default_rng(0).random(100) / 10
    shifted = 0.6 + 0.1 * labels + noise  # ranks well, and calls every image SSA at .5
    by_chance = np.random.default_rng(1).random(100)

    found = out_of_fold.selection(name, labels, folds, [shifted, by_chance], n_boot=200)

    assert found.shares[0] > 0.95
    low, high = found.intervals[0]
    assert low <= out_of_fold.scores(labels, folds, shifted).of(name) <= high
