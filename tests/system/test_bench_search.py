"""The replay of searches, on curves that are made up, and the record that it reads."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from bench.search import curves, replay
from bench.search.record_curves import to_logits
from bench.search.simulation import Curve, Rules, Simulation, Trial, running_values, stopping

ROOT = Path(__file__).parents[2]
NONE = {"name": "none"}
PROMOTION = {"name": "promotion", "reduction_factor": 3, "min_resource": 1, "max_resource": 1}


def made_up(table: Sequence[Sequence[float]]) -> Callable[[Sequence[Trial]], Curve]:
    """A function that begins trials whose scores are the rows of a table."""

    def begin(trials: Sequence[Trial]) -> Curve:
        scores = np.array(table[len(trials)])
        seconds, trivial = np.ones(len(scores)), np.zeros(len(scores), dtype=bool)
        return Curve({}, dict.fromkeys(curves.SCORES, scores), trivial, seconds, len(trials))

    return begin


def test_scores_are_those_of_scikit_learn() -> None:
    """F1 at 0.5, mean F1 and AUROC of each configuration and epoch equal scikit-learn's."""
    rng = np.random.default_rng(0)
    labels, found = np.array([0, 1, 1, 0, 1]), rng.random((2, 3, 5))
    scores = curves.scores(labels, found)
    for place in np.ndindex(2, 3):
        one = found[place]
        assert scores["auroc"][place] == pytest.approx(roc_auc_score(labels, one))
        assert scores["f1"][place] == pytest.approx(f1_score(labels, one > 0.5))
        at = [f1_score(labels, one > threshold / 10, zero_division=0) for threshold in range(1, 10)]
        assert scores["mean_f1"][place] == pytest.approx(np.mean(at))


def test_log_odds_keep_probabilities() -> None:
    """What is not recorded counts as the probability 0; 0 and 1 stay on their side of every threshold."""
    wanted = np.array([0.0, 0.25, 1.0])
    assert curves.probabilities(to_logits(wanted).astype(np.float16)) == pytest.approx(wanted, abs=1e-3)
    assert curves.probabilities(np.array([np.nan], dtype=np.float16)).tolist() == [0.0]


def test_the_last_epoch_or_the_best_one_is_the_value() -> None:
    """A trial is worth its last score, or its best one; patience ends a training after the best one."""
    scores = np.array([0.1, 0.5, 0.3, 0.2, 0.6])
    last, best = Rules("f1", "last", NONE), Rules("f1", "best", NONE, patience=2)
    assert running_values(scores, last).tolist() == scores.tolist()
    assert running_values(scores, best).tolist() == [0.1, 0.5, 0.5, 0.5, 0.6]
    assert stopping(scores, last) == (5, 5)
    assert stopping(scores, best) == (2, 4)


def test_epochs_are_counted() -> None:
    """Without pruning all are trained. With a rung one of three goes on, and the best of those is chosen."""
    table = [[0.1, 0.9], [0.2, 0.3], [0.3, 0.4], [0.4, 0.5], [0.5, 0.6], [0.6, 0.55]]
    whole = Simulation(made_up(table), 6, Rules("mean_f1", "last", NONE), n_workers=1).run()
    assert (whole.n_epochs, whole.ranked()[0].slot) == (12, 0)
    pruned = Simulation(made_up(table), 6, Rules("mean_f1", "last", PROMOTION), n_workers=1).run()
    complete = [trial.slot for trial in pruned.trials if trial.state == "complete"]
    assert pruned.n_epochs == 6 + len(complete)
    assert {4, 5} <= set(complete)
    assert pruned.ranked()[0].slot == 4


def test_a_capped_rung_promotes_its_share() -> None:
    """Rising scores promote more than one in three trials; with a cap exactly that."""
    table = [[number / 20, 0.5] for number in range(12)]
    free, capped = (
        Simulation(made_up(table), 12, Rules("mean_f1", "last", PROMOTION, is_capped=is_capped), n_workers=1).run()
        for is_capped in (False, True)
    )
    assert capped.n_epochs == 12 + 4
    assert free.n_epochs > capped.n_epochs


def test_an_interval_holds_its_mean() -> None:
    """The interval of results without chance is that result; other results lie around their mean."""
    cells = [(bootstrap, seed) for bootstrap in range(5) for seed in range(3)]
    assert replay.interval(dict.fromkeys(cells, 0.5)) == (0.5, 0.5)
    low, high = replay.interval({cell: float(sum(cell)) for cell in cells})
    assert low < 3 < high


@pytest.mark.slow
def test_curves_are_recorded_once(tmp_path: Path) -> None:
    """All seeds have their own images, no truth is validated on, and the same command again trains nothing."""
    command = [sys.executable, "-m", "bench.search.record_curves", "digits", "--n-configurations", "1"]
    command += ["--epochs", "1", "--processes", "1", "--storage", str(tmp_path / "storage"), "--output", str(tmp_path)]
    written = []
    for n_trained in (3, 0):
        result = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=300)
        assert result.returncode == 0, result.stderr
        assert result.stderr.count("missing") == n_trained
        written.append((tmp_path / "digits.npz").read_bytes())
    assert written[0] == written[1]
    found = curves.read(tmp_path / "digits.npz")
    assert found.val["auroc"].shape == (3, 1, 1)
    with np.load(tmp_path / "digits.npz") as file:
        parts = [set(file[f"{part}_images_{seed}"].tolist()) for part in ("val", "truth") for seed in range(3)]
        fitted = [set(file[f"fit_images_{seed}"].tolist()) for seed in range(3)]
    assert len(set.union(*parts)) == sum(map(len, parts))
    assert all(not fit & (parts[seed] | parts[3 + seed]) for seed, fit in enumerate(fitted))
