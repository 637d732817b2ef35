"""The estimate before a study is created, and the trials that it takes over from another one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mhist_tune.actions import estimate
from mhist_tune.definition import study_file
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.leases import LeaseObserver
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.studies import Study

Run = Callable[..., tuple[int, str, str]]


def finish(storage: Storage, study: Study, *values: float) -> None:
    """Complete a trial with each value, in the order of the slots."""
    for number, value in enumerate(values):
        claim = ledger.claim(storage, study, ["search"], worker="w", observer=LeaseObserver())
        assert claim is not None
        ledger.attach_trial(storage, claim, number, number)
        params = {"learning_rate": 10.0 ** (-number - 1)}
        outcome = Outcome(state=EndState.COMPLETE, value=value, best_epoch=1, params=params)
        ledger.decide(storage, claim, outcome)
        ledger.finish(storage, claim)


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
    slots, epochs = "slots      8", "epochs     at most 40"
    for line in (
        slots,
        epochs,
        "device hours",
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


def test_a_study_starts_from_another_ones_best(run: Run, storage_url_sqlite: str, generated: Path) -> None:
    """The other study's best trials follow the start entries, moved into the space; the study records their origin."""
    text = '[study]\nname = "{}"\nn_trials = 6\n[fixed]\nmodel = "fcnn"\nweights = "random"\nimage_size = 16\n'
    text += "[space]\nlearning_rate = {{ low = {}, high = 0.2, log = true }}\n"
    Path("first.toml").write_text(text.format("first", 1e-9))
    Path("second.toml").write_text(text.format("second", 1e-3))
    assert run("create-study", "first.toml", "--data", str(generated))[0] == 0
    code, _, err = run("create-study", "second.toml", "--from", "first", "--data", str(generated))
    assert (code, "no complete trial" in err) == (2, True), err
    with open_storage(storage_url_sqlite) as storage:
        finish(storage, studies.load_study(storage, "first"), 0.3, 0.5, 0.2, 0.4, 0.1)
    code, _, err = run("create-study", "second.toml", "--from", "first", "--data", str(generated))
    assert code == 0, err

    with open_storage(storage_url_sqlite) as storage:
        study = studies.load_study(storage, "second")
        payloads = [slot.payload.params for slot in ledger.slots(storage, study, "search")]
    default = study.definition.default_params()["learning_rate"]
    assert [one and one["learning_rate"] for one in payloads] == [default, 1e-2, 1e-1, None, None, None]
    source = study.settings["warm_start"]  # trial 3 had 1e-4, which moves to the default's 1e-3
    assert (source["study"], source["trials"], source["values"]) == ("first", [1, 3, 0], [0.5, 0.4, 0.3])
