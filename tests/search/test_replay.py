"""A search repeated from its records: concurrent workers, changed records, killed workers."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState, create_trial

from mhist_tune.actions.create import create
from mhist_tune.definition import space, study_file
from mhist_tune.events import StopRequest
from mhist_tune.search import replay, suggestions
from mhist_tune.storage import ledger, studies, tables
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.leases import LeaseObserver, StaleTokenError
from mhist_tune.storage.studies import Study
from mhist_tune.worker import loop
from mhist_tune.worker.options import WorkerOptions
from tests.report.test_json_keys import FROZEN, keys
from tests.worker import test_slot_run

DEFINITION = """
[study]
name = "small"
n_trials = 12
sampler = { name = "tpe", n_startup_trials = 3 }
pruner = { name = "median", n_startup_trials = 2, n_warmup_epochs = 1 }

[fixed]
model = "fcnn"
weights = "random"
image_size = 16
epochs = 3
augmentation = "none"
precision = "fp32"
memory_format = "contiguous"

[space]
learning_rate = { low = 1e-4, high = 1e-1, log = true }
sampling = { choices = ["none", "random_over"] }
drop_rate = { low = 0.1, high = 0.6 }

[[start]]
learning_rate = 1e-3
"""
MakeStudy = Callable[..., Study]
Run = Callable[..., tuple[int, str, str]]

SPACE = {"learning_rate": space.Float(1e-5, 1e-1, log=True), "sampling": space.Categorical(("none", "random_over"))}
TPE = {"name": "tpe", "seed": 0, "n_startup_trials": 2, "n_ei_candidates": 24}


@pytest.fixture
def searched(storage_url: str, generated: Path) -> str:
    """The URL of a storage with a study that four workers have searched at the same time."""
    options = WorkerOptions(storage_url, generated, "small", ("search",))
    with open_storage(storage_url) as storage:
        create(storage, study_file.parse(DEFINITION, "test"), generated)
    threads = [
        threading.Thread(target=loop.serve, args=(options, "cpu", 1, lambda *_, **__: None, StopRequest()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return storage_url


def replay_of(url: str) -> replay.Replay:
    """Return the document of a process that has not seen the study before."""
    with open_storage(url) as storage:
        return replay.replay(storage, studies.load_study(storage, "small"))


def test_a_search_by_four_workers_matches_until_it_is_changed(searched: str) -> None:
    """Every suggestion is derived again; a changed param is reported for its trial, a changed score for its own."""
    document = replay_of(searched)
    assert (document.matching, document.differing, document.unrecorded) == (12, 0, 0), document
    assert sum(verdict.source == "given" for verdict in document.slots) == 1

    with open_storage(searched) as storage:
        study = studies.load_study(storage, "small")
        records = suggestions.recorded(storage, study, "search")
        assert any("R" in event.detail["visible"]["states"] for event in records.values())  # they were at it together
        slots = ledger.slots(storage, study, "search")
        victim = next(slot for slot in slots if slot.payload.params is None)
        change = sqlalchemy.text(
            "UPDATE trial_params SET param_value = 0.05 WHERE trial_id = :id AND param_name = :name"
        )
        storage.transaction(lambda c: c.execute(change, {"id": victim.trial_id, "name": "learning_rate"}))
    [verdict] = [verdict for verdict in replay_of(searched).slots if verdict.problems]
    assert verdict.slot == victim.slot
    assert "learning_rate = 0.05" in verdict.problems[0]

    with open_storage(searched) as storage:
        best = next(slot for slot in slots if slot.outcome and slot.outcome.is_complete)
        assert best.outcome is not None
        epoch = sqlalchemy.and_(tables.epochs.c.slot == best.slot, tables.epochs.c.epoch == best.outcome.best_epoch)
        storage.transaction(lambda c: c.execute(sqlalchemy.update(tables.epochs).where(epoch).values(score=0.9999)))
    text = replay.to_text(replay_of(searched))
    assert (
        f"its value is {best.outcome.value}, but its scores up to epoch {best.outcome.best_epoch} give 0.9999" in text
    )


def test_a_smoothed_search_matches(run: Run, generated: Path, tmp_path: Path, storage_url_sqlite: str) -> None:
    """If a trial's value is a mean over epochs, it is computed again from the scores, and nothing differs."""
    text = test_slot_run.DEFINITION.format(model="fcnn", study="smoothing = 2", more="learning_rate = 3e-2", epochs=4)
    (tmp_path / "small.toml").write_text(text)
    assert run("create-study", "small.toml", "--data", str(generated))[0] == 0
    assert run("worker", "small", "--devices", "cpu", "--per-device", "1", "--data", str(generated))[0] == 0
    with open_storage(storage_url_sqlite) as storage:
        slots = ledger.slots(storage, studies.load_study(storage, "small"), "search")
        assert any(slot.outcome and slot.outcome.value != slot.outcome.best_score for slot in slots)

    code, out, err = run("replay", "small")

    assert code == 0, out + err
    assert "1 matching" in out
    document = json.loads(run("replay", "small", "--json")[1])
    assert json.dumps(keys(document)) == json.dumps(FROZEN["replay"])


def test_a_suggestion_outlives_its_worker(storage: Storage, make_study: MakeStudy) -> None:
    """After a kill the next worker uses the recorded suggestion, although more trials are visible."""
    study = make_study(n_trials=2)
    claim = ledger.claim(storage, study, ["search"], worker="a", observer=LeaseObserver())
    first = suggestions.record(storage, claim, {"params": {"learning_rate": 0.01}})
    assert suggestions.record(storage, claim, {"params": {"learning_rate": 0.02}}) == first

    ledger.release(storage, claim)
    again = ledger.claim(storage, study, ["search"], worker="b", observer=LeaseObserver())
    with pytest.raises(StaleTokenError):
        suggestions.record(storage, claim, {"params": {"learning_rate": 0.03}})
    assert again.slot == claim.slot
    assert suggestions.record(storage, again, {"params": {"learning_rate": 0.04}}) == first


def trial(number: int, state: TrialState, rate: float, curve: tuple[float, ...] = ()) -> FrozenTrial:
    """Return a trial as Optuna's storage gives it."""
    made = create_trial(
        state=state,
        params={"learning_rate": rate, "sampling": "none"},
        distributions={name: dimension.distribution() for name, dimension in SPACE.items()},
        intermediate_values=dict(enumerate(curve, 1)),
        value=curve[-1] if curve and state.is_finished() and state != TrialState.FAIL else None,
    )
    made.number = made._trial_id = number
    return made


def test_diverged_and_failed_trials_teach_the_sampler() -> None:
    """Trials in half of the space fail or diverge, mostly without a value: the sampler suggests the other half."""
    good = [trial(i, TrialState.COMPLETE, 10 ** (-4.9 + 0.1 * i), (0.5 + 0.01 * i,)) for i in range(6)]
    bad = [trial(6 + i, TrialState.PRUNED, 10 ** (-2.0 + 0.2 * i)) for i in range(4)]  # diverged in the first epoch
    bad += [trial(10 + i, TrialState.FAIL, 10 ** (-2.1 + 0.2 * i), (0.3,)) for i in range(4)]
    observed = suggestions.observed_trials([*good, *bad], own_id=99)

    assert [one.state for one in observed[6:]] == [TrialState.PRUNED] * 8
    assert [one.value for one in observed[6:]] == [None] * 4 + [0.3] * 4
    taught = [suggestions.suggest(TPE, slot, SPACE, observed)["learning_rate"] for slot in range(20)]
    assert sum(rate < 1e-3 for rate in taught) >= 19


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "gp"])
def test_the_record_of_visible_trials_is_enough(name: str) -> None:
    """A suggestion from the record alone is the suggestion from the trials themselves, for every sampler."""
    options = {"name": name, "seed": 3, **({"scramble": True} if name == "qmc" else {})}
    options |= {"n_startup_trials": 2} if name in ("tpe", "gp") else {}
    trials = [
        trial(0, TrialState.COMPLETE, 1e-3, (0.2, 0.6)),
        trial(1, TrialState.PRUNED, 1e-2, (0.3, 0.4)),
        trial(3, TrialState.FAIL, 1e-1, (0.1,)),
        trial(4, TrialState.RUNNING, 1e-4, (0.5,)),
        trial(5, TrialState.COMPLETE, 2e-3, (0.7,)),
    ]
    observed = suggestions.observed_trials(trials, own_id=6)
    again = suggestions.seen_again(
        suggestions.visible(observed),
        SPACE,
        params={one.number: one.params for one in trials},
        scores={one.number: [*one.intermediate_values.values(), 0.9] for one in trials},  # and what came later
        values={0: 0.6, 5: 0.7},
    )

    assert suggestions.suggest(options, 7, SPACE, again) == suggestions.suggest(options, 7, SPACE, observed)
    if name in ("tpe", "gp"):
        assert suggestions.suggest(options, 7, SPACE, observed) != suggestions.suggest(options, 7, SPACE, observed[:3])


def test_the_points_of_a_sequence_belong_to_slots() -> None:
    """Eight slots of a Sobol sequence cover the space evenly, for any worker and in any order."""
    options = {"name": "qmc", "seed": 0, "scramble": True}
    exact = {"drop_rate": space.Float(0.0, 0.8)}
    places = [suggestions.suggest(options, slot, exact, ())["drop_rate"] for slot in reversed(range(8))]

    assert sorted(int(place * 10) for place in places) == list(range(8))


def test_a_replay_loads_no_torch() -> None:
    """Replaying works on a machine without PyTorch: a fresh process does not import it."""
    heavy = "{'torch', 'timm', 'mhist_tune.worker.session'}"
    code = f"import sys, mhist_tune.search.replay\nprint(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
