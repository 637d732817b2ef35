import numpy as np
import pytest

from mhist_tune.statistics.binary_metrics import METRICS, metrics_of
from mhist_tune.statistics.resampling import crossed_bootstrap


def predictions(n_seeds=5, n=120, *, decimals=16, data_seed=0):
    """Labels [n] and probabilities [n_seeds, n] that share the images' difficulty; few decimals make ties."""
    rng = np.random.default_rng(data_seed)
    labels = (rng.random(n) < 0.37).astype(np.int64)
    shared = 1.5 * (labels - 0.5) + rng.normal(size=n)
    logits = shared + 0.7 * rng.normal(size=(n_seeds, n))
    return labels, np.round(1 / (1 + np.exp(-logits)), decimals)


def test_bootstrap_equals_a_plain_loop_over_resampled_rows():
    """The vectorised intervals are those of a loop that copies rows of a table, up to Monte Carlo error."""
    labels, table = predictions(n_seeds=3, n=200, decimals=2)
    rng = np.random.default_rng(1)
    means = []
    for _ in range(1000):
        images = rng.integers(labels.size, size=labels.size)
        seeds = rng.integers(3, size=3)
        drawn = [metrics_of(labels[images], table[seed, images]) for seed in seeds]
        means.append({name: np.mean([one[name] for one in drawn]) for name in METRICS})
    ours = crossed_bootstrap(labels, table, n_boot=4000)
    assert set(ours) == set(METRICS) - {"ece"}
    for name, (low, high) in ours.items():
        plain = np.quantile([one[name] for one in means], (0.025, 0.975))
        assert (low, high) == pytest.approx(plain, abs=0.12 * (high - low)), name


def test_images_are_resampled_once_for_all_seeds():
    """Ten copies of one model are as uncertain as that model: the seeds do not average the images' noise away."""
    labels, table = predictions(n_seeds=1, n=150)
    one = crossed_bootstrap(labels, table, n_boot=3000)["auroc"]
    ten = crossed_bootstrap(labels, np.repeat(table, 10, axis=0), n_boot=3000)["auroc"]
    assert ten[1] - ten[0] == pytest.approx(one[1] - one[0], rel=0.1)


def test_seeds_are_resampled_too():
    """Seeds that differ widen the interval beyond what the images alone give: (high - low)/3.92 near their SE."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 2000)
    table = np.stack([np.clip(labels * share + rng.random(4000) * (1 - share), 0, 1) for share in (0.1, 0.3, 0.5)])
    values = [metrics_of(labels, p)["brier"] for p in table]
    low, high = crossed_bootstrap(labels, table, n_boot=2000)["brier"]
    assert (high - low) > 2 * np.std(values) / np.sqrt(3)


def test_the_same_seed_gives_the_same_intervals():
    """Intervals are repeatable, and another bootstrap seed moves them a little."""
    labels, table = predictions()
    again = crossed_bootstrap(labels, table, seed=3, n_boot=300)
    assert crossed_bootstrap(labels, table, seed=3, n_boot=300) == again
    assert crossed_bootstrap(labels, table, seed=4, n_boot=300) != again


def test_resamples_of_one_class_are_left_out():
    """With two SSA images many resamples hold none; the interval comes from the others and is finite."""
    labels = np.array([1, 1, 0, 0, 0, 0])
    low, high = crossed_bootstrap(labels, [[0.9, 0.4, 0.5, 0.1, 0.2, 0.3]], n_boot=500)["auroc"]
    assert 0 <= low <= high <= 1


@pytest.mark.slow
def test_intervals_cover_the_true_mean(record_property):
    """Over 1,000 simulated studies of ten seeds and 300 images the intervals hold the truth in 92% to 98%."""
    rng = np.random.default_rng(0)

    def draw(n_seeds, n):
        labels = (rng.random(n) < 0.37).astype(np.int64)
        item = 2.0 * (labels - 0.5) + rng.normal(size=n)
        shift = 0.3 * rng.normal(size=(n_seeds, 1))
        return labels, 1 / (1 + np.exp(-(item + shift + 0.5 * rng.normal(size=(n_seeds, n)))))

    labels, table = draw(200, 20_000)
    of_each = [metrics_of(labels, p) for p in table]
    hits = dict.fromkeys(("auroc", "f1", "recall"), 0)
    for study in range(1000):
        intervals = crossed_bootstrap(*draw(10, 300), n_boot=400, seed=study, names=hits)
        for name in hits:
            low, high = intervals[name]
            hits[name] += bool(low <= np.mean([one[name] for one in of_each]) <= high)
    for name, n_hits in hits.items():
        record_property(f"coverage of {name}", n_hits / 1000)
    assert all(0.92 <= n_hits / 1000 <= 0.98 for n_hits in hits.values()), hits
