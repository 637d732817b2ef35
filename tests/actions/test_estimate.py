"""The estimate before a study is created."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mhist_tune.actions import estimate
from mhist_tune.definition import study_file

Run = Callable[..., tuple[int, str, str]]


def test_the_smallest_difference_is_that_of_simulated_trials() -> None:
    """Its standard error agrees with F1 scores drawn under its assumptions."""
    rng = np.random.default_rng(0)
    true, false = rng.binomial(128, 0.75, 100_000), rng.binomial(307, 32 / 307, 100_000)
    drawn = 2 * true / (true + false + 128)

    assert estimate.smallest_f1_difference(128, 307) == pytest.approx(1.96 * drawn.std(), rel=0.03)


def test_a_dry_run_writes_nothing(run: Run, generated: Path, tmp_path: Path) -> None:
    """It prints the complete definition, the cost of search and finalists, and the smallest visible difference."""
    code, out, err = run("create-study", "demo", "--dry-run", "--set", "epochs=5", "--data", str(generated))

    assert code == 0, err
    planned = study_file.parse(out, "stdout")
    assert planned.fixed["epochs"] == 5
    confirm = "confirm    4 trainings"  # two folds, of the best trial and the default
    for line in (
        "slots      8",
        "at most  device h  at most",
        "report in about",
        confirm,
        "MB of checkpoints",
        "differences in F1",
        "the primary test finds AUROC",
    ):
        assert line in err
    assert not (tmp_path / "storage").exists()


def test_waiting_trials_are_counted_by_rung() -> None:
    """Of sixty trials a third may wait at the first of the rungs 3, 9 and 27; no other pruner has waiting trials."""
    halving = {"min_resource": 3, "reduction_factor": 3}
    assert estimate._n_waiting({"name": "promotion", **halving}, 60, 30) == 20 + 6 + 2
    assert estimate._n_waiting({"name": "hyperband", **halving}, 60, 30) == 0
