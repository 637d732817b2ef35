"""The race of the finalists: the rule by hand, and its errors in simulated studies whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from mhist_tune.statistics import out_of_fold, racing
from mhist_tune.statistics.binary_metrics import weighted_auroc
from mhist_tune.statistics.mean_f1 import weighted_mean_f1
from mhist_tune.statistics.resampling import image_draws

N_FOLDS = 5


def study(rng, skills, *, n_images=500, training=0.0, shared=0.2):
    """Return labels, folds and out-of-fold probabilities [F, n] of finalists with these skills.

    Args:
        training: the standard deviation of a training's skill; that of its shift of all logits is 1.5 times as large.
        shared: the share of that variance which is common to all folds of a finalist, since they share training images.
    """
    labels = np.tile((np.arange(n_images // N_FOLDS) < 0.3 * n_images // N_FOLDS).astype(int), N_FOLDS)
    folds = np.repeat(np.arange(N_FOLDS), n_images // N_FOLDS)
    n_finalists = len(skills)
    skill, shift = (
        size * (np.sqrt(shared) * rng.normal(size=(n_finalists, 1)) + np.sqrt(1 - shared) * draws)
        for size, draws in zip((training, 1.5 * training), rng.normal(size=(2, n_finalists, N_FOLDS)), strict=True)
    )
    hard = 0.8 * rng.normal(size=n_images) + 0.57 * rng.normal(size=(n_finalists, n_images))
    logits = (np.asarray(skills)[:, None] + skill[:, folds]) * (2 * labels - 1) + hard + shift[:, folds]
    return labels, folds, 1 / (1 + np.exp(-1.5 * logits))


def true_scores(name, training):
    """Return a function from skills to the expected scores of trainings, on images and trainings that no study has."""
    rng = np.random.default_rng(99)
    labels, grid = np.arange(4000) < 1200, np.linspace(-0.2, 2.4, 14)
    noise, skill, shift = rng.normal(size=(40, 4000)), rng.normal(size=40), rng.normal(size=40)
    weighted = weighted_mean_f1 if name == "mean_f1" else weighted_auroc
    means = []
    for point in grid:
        logits = (point + training * skill)[:, None] * (2 * labels - 1) + 0.98 * noise + 1.5 * training * shift[:, None]
        means.append(weighted(labels, 1 / (1 + np.exp(-1.5 * logits)), np.ones((1, 4000)))[0].mean())
    return lambda skills: np.interp(skills, grid, means)


def look(name, labels, folds, probabilities, **options):
    known = {"n_folds": N_FOLDS, "n_finalists": len(probabilities), "level": 0.05}
    return racing.look(name, labels, folds, probabilities, **{**known, **options})


@pytest.mark.parametrize("name", ["mean_f1", "f1", "auroc"])
def test_a_finalist_that_is_clearly_behind_is_found(name):
    """Of four finalists after two folds the worst is clearly behind; the leader and the next best are not."""
    labels, folds, probabilities = study(np.random.default_rng(0), [1.2, 0.3, 1.15, 1.0])
    inside = folds < 2

    found = look(name, labels[inside], folds[inside], probabilities[:, inside])

    scores = [out_of_fold.scores(labels[inside], folds[inside], one[inside]).of(name) for one in probabilities]
    assert found.scores == pytest.approx(scores)
    assert found.leader == int(np.argmax(scores))
    assert {one.place for one in found.against} == {0, 1, 2, 3} - {found.leader}
    assert {one.place for one in found.against if one.is_behind} == {1}
    for one in found.against:
        assert one.difference == pytest.approx(scores[found.leader] - scores[one.place])


def test_the_error_of_images_is_that_of_a_bootstrap():
    """Without noise between folds the variance is twice that of resampled images; the limit is that of a t test."""
    labels, folds, probabilities = study(np.random.default_rng(3), [1.2, 1.0], n_images=1000)
    rng = np.random.default_rng(0)
    drawn = np.concatenate(list(image_draws(rng, 4000, labels.size, None)))
    first, second = out_of_fold.weighted("mean_f1", labels.astype(bool), folds, probabilities, drawn).T

    [one] = look("mean_f1", labels, folds, probabilities).against

    assert one.standard_error == pytest.approx(np.sqrt(2) * np.std(first - second), rel=0.05)
    assert one.allowed == pytest.approx(stats.norm.isf(0.05 / 3) * one.standard_error, rel=0.01)


def test_differences_between_folds_widen_the_error():
    """Of two finalists that each lead on one fold, the error is by hand that of two folds, by Nadeau and Bengio."""
    rng = np.random.default_rng(0)
    labels, folds = np.tile([0, 1, 1, 0], 100), np.repeat([0, 1], 200)
    clear, vague = (np.clip(0.5 + by * (2 * labels - 1) + 0.2 * rng.normal(size=400), 0, 1) for by in (0.3, 0.1))
    finalists = np.stack([np.where(folds == 0, clear, vague), np.where(folds == 0, vague, clear)])
    first, second = (
        [out_of_fold.score("auroc", labels[folds == fold], one[folds == fold]) for fold in (0, 1)] for one in finalists
    )
    of_folds = np.var(np.subtract(first, second), ddof=1) / 2

    [one] = look("auroc", labels, folds, finalists).against

    assert one.standard_error == pytest.approx(np.sqrt(of_folds * (1 + 2 / 4)), rel=0.02)
    assert one.allowed > stats.t.isf(0.05 / 3, 2) * one.standard_error


def test_the_level_is_split_over_the_finalists_and_the_looks():
    """More finalists at the start, more folds to come or a lower level all let a finalist fall further behind."""
    labels, folds, probabilities = study(np.random.default_rng(1), [1.1, 1.0])
    first_two = folds < 2
    part = (labels[first_two], folds[first_two], probabilities[:, first_two])

    def allowed(**options):
        [one] = look("mean_f1", *part, **options).against
        return one.allowed / one.standard_error

    assert allowed() < allowed(n_finalists=4) < allowed(n_finalists=8)
    assert allowed(n_folds=3) < allowed(n_folds=5) < allowed(n_folds=10)
    assert allowed(level=0.2) < allowed(level=0.05) < allowed(level=0.01)
    assert allowed(n_finalists=4) == pytest.approx(allowed(level=0.05 / 3), rel=1e-6)


def test_groups_are_left_out_whole_and_few_drop_nobody():
    """Images that are alike within groups count for less. Fewer than ten groups of a class leave nobody behind."""
    rng, errors = np.random.default_rng(0), []
    for _ in range(10):
        labels, folds, probabilities = study(rng, [1.5, 0.4], n_images=1000)
        order = np.lexsort((labels, folds))[:400]
        labels, folds, probabilities = labels[order], folds[order], probabilities[:, order]
        shared = np.repeat(rng.normal(size=(2, 80)), 5, axis=1)
        alike = 1 / (1 + (1 - probabilities) / probabilities * np.exp(-shared))
        groups = [f"g{place // 5}" for place in range(400)]
        pair = [look("auroc", labels, folds, alike, groups=known).against[0] for known in (None, groups)]
        errors.append([one.standard_error for one in pair])
    alone, grouped = np.mean(errors, axis=0)
    assert grouped > 1.2 * alone

    [one] = look("auroc", labels, folds, alike, groups=[f"g{place // 25}" for place in range(400)]).against
    assert (one.standard_error, one.allowed, one.is_behind) == (None, None, False)
    assert one.difference == pair[1].difference > 0


def test_equal_finalists_stay():
    """Two with the same predictions differ by nothing, and neither is behind. One alone is compared with nobody."""
    labels, folds, probabilities = study(np.random.default_rng(0), [1.0])
    [one] = look("mean_f1", labels, folds, np.concatenate([probabilities, probabilities])).against
    assert (one.place, one.difference, one.standard_error, one.is_behind) == (1, 0.0, 0.0, False)
    assert look("mean_f1", labels, folds, probabilities, n_finalists=1).against == []


@pytest.mark.parametrize("seed", range(5))
def test_a_race_is_its_looks_in_turn(seed):
    """The same finalists stop in any order of the arguments, and one who stops is compared with nobody later.

    What is kept never stops. What the folds after a stop predict changes nothing.
    """
    rng = np.random.default_rng(seed)
    labels, folds, probabilities = study(rng, [1.3, 1.1, 0.9, 0.7, 0.5], training=0.05)
    stopped = racing.race("mean_f1", labels, folds, probabilities, level=0.05)
    assert stopped

    order = rng.permutation(5)
    permuted = racing.race("mean_f1", labels, folds, probabilities[order], level=0.05)
    assert {int(order[place]): n for place, n in permuted.items()} == stopped

    worst = max(stopped)
    kept = racing.race("mean_f1", labels, folds, probabilities, level=0.05, kept={worst})
    assert worst not in kept

    unknown = probabilities.copy()
    for place, n_trained in stopped.items():
        unknown[place, folds >= n_trained] = rng.random((folds >= n_trained).sum())
    assert racing.race("mean_f1", labels, folds, unknown, level=0.05) == stopped

    inside = folds < 2
    first = look("mean_f1", labels[inside], folds[inside], probabilities[:, inside])
    assert {one.place for one in first.against if one.is_behind} == {p for p, n in stopped.items() if n == 2}


def test_two_folds_leave_no_look():
    """After the last of two folds nothing is left to be saved."""
    labels, folds, probabilities = study(np.random.default_rng(0), [2.0, 0.0])
    inside = folds < 2
    assert racing.race("mean_f1", labels[inside], folds[inside], probabilities[:, inside], level=0.05) == {}


def simulate(name, *, n_studies, n_finalists=4, n_images, spread, training, shared, n_boot=0, seed=0):
    """Return the shares of studies and of trainings that the tests below name, and the mean errors of a score.

    With `n_boot` resamples the corrected score of the choice is added, with the race and with all on all folds.
    """
    rng, truth = np.random.default_rng(seed), true_scores(name, training)
    found = []
    for _ in range(n_studies):
        skills = 1.1 + spread * rng.normal(size=n_finalists)
        true = truth(skills)
        labels, folds, probabilities = study(rng, skills, n_images=n_images, training=training, shared=shared)
        stopped = racing.race(name, labels, folds, probabilities, level=0.05)
        scores = np.array([out_of_fold.scores(labels, folds, one).of(name) for one in probabilities])
        without = int(scores.argmax())
        remaining = [place for place in range(n_finalists) if place not in stopped]
        chosen = max(remaining, key=lambda place: scores[place])
        found.append(
            {
                # of equal finalists each one is the best
                "best is dropped": len(stopped) / n_finalists if spread == 0 else float(int(true.argmax()) in stopped),
                "one within .005 is dropped": any(true[place] >= true.max() - 0.005 for place in stopped),
                "choice without race is dropped": without in stopped,
                "lost score": true[without] - true[chosen],
                "trainings saved": sum(N_FOLDS - n for n in stopped.values()) / (N_FOLDS * n_finalists),
            }
        )
        for key, places in (("with the race", remaining), ("without", list(range(n_finalists)))) if n_boot else ():
            corrected = out_of_fold.selection(name, labels, folds, probabilities[places], n_boot=n_boot).corrected
            best = true[max(places, key=lambda place: scores[place])]
            found[-1][f"corrected score {key}"] = corrected.estimate - best
            found[-1][f"its interval covers {key}"] = corrected.ci95[0] <= best <= corrected.ci95[1]
    return {key: float(np.mean([one[key] for one in found])) for key in found[0]}


def test_the_best_finalist_is_seldom_dropped():
    """60 short studies: equal finalists lose a given one in less than 5%, unequal ones keep the best and save."""
    design = {"n_studies": 60, "n_images": 500, "training": 0.05, "shared": 0.2}
    equal = simulate("mean_f1", spread=0.0, **design)
    unequal = simulate("mean_f1", spread=0.3, **design)
    assert equal["best is dropped"] <= 0.05
    assert unequal["best is dropped"] <= 0.02
    assert unequal["trainings saved"] > 0.15
    assert unequal["lost score"] < 0.001


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "spread", "training", "shared", "most"),
    [
        ("mean_f1", 0.0, 0.0, 0.2, 0.05),
        ("mean_f1", 0.0, 0.07, 0.2, 0.05),
        ("mean_f1", 0.0, 0.11, 0.2, 0.1),
        ("mean_f1", 0.0, 0.07, 0.5, 0.1),
        ("auroc", 0.0, 0.07, 0.2, 0.05),
        ("mean_f1", 0.1, 0.07, 0.2, 0.05),
        ("mean_f1", 0.3, 0.07, 0.2, 0.05),
        ("mean_f1", 0.3, 0.11, 0.5, 0.05),
        ("auroc", 0.3, 0.07, 0.2, 0.05),
    ],
)
def test_the_level_holds(record_property, name, spread, training, shared, most):
    """In 1,000 studies of each design the best finalist is dropped no more often than the docs say.

    Folds that share half of a training's luck, and trainings that differ more than images, exceed the level of 5%.
    """
    design = {"spread": spread, "training": training, "shared": shared}
    found = simulate(name, n_studies=1000, n_images=500, **design)
    for key, value in found.items():
        record_property(key, value)
    assert found["best is dropped"] <= most
    assert found["lost score"] < 0.001
    assert spread == 0 or found["trainings saved"] > 0.03


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_the_corrected_score_stays_right(record_property, spread):
    """In 400 studies the corrected score errs as much with the race as without it, to .002, and its interval covers."""
    design = {"spread": spread, "training": 0.07, "shared": 0.2}
    found = simulate("mean_f1", n_studies=400, n_images=500, n_boot=300, **design)
    for key, value in found.items():
        record_property(key, value)
    assert found["corrected score with the race"] == pytest.approx(found["corrected score without"], abs=0.002)
    assert found["its interval covers with the race"] >= found["its interval covers without"] - 0.02
