"""The sampler's view of waiting trials."""

from collections.abc import Callable

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial

from mhist_tune.search.sampler_storage import SamplerStorage
from mhist_tune.storage import studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.studies import Study

MakeStudy = Callable[..., Study]

LEARNING_RATE = optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True)


class Trials:
    """An Optuna study with running trials, and a view of it in which those in `waiting` wait."""

    def __init__(self, storage: Storage, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
        self.optuna, self.study_id = storage.optuna, studies.optuna_study_id(storage, study, "search")
        self.waiting: dict[int, int] = {}
        self.view = SamplerStorage(storage.rdb, lambda: self.waiting)
        self.n_read: list[int] = []
        original = RDBStorage._get_trials

        def counted(*args: object, **kwargs: object) -> list[optuna.trial.FrozenTrial]:
            result = original(*args, **kwargs)  # type: ignore[arg-type]
            self.n_read.append(len(result))
            return result

        monkeypatch.setattr(RDBStorage, "_get_trials", counted)

    def start(self, *curve: float) -> int:
        """Add a running trial with a curve and return its id."""
        trial = create_trial(
            state=TrialState.RUNNING, params={"learning_rate": 1e-3}, distributions={"learning_rate": LEARNING_RATE}
        )
        trial_id = self.optuna.create_new_trial(self.study_id, template_trial=trial)
        for epoch, value in enumerate(curve, 1):
            self.optuna.set_trial_intermediate_value(trial_id, epoch, value)
        return trial_id

    def seen(self) -> list[tuple[str, float | None]]:
        """Return state and value of each trial in the view."""
        return [(trial.state.name, trial.value) for trial in self.view.get_all_trials(self.study_id)]


@pytest.fixture
def trials(storage: Storage, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> Trials:
    """An empty study."""
    return Trials(storage, make_study(), monkeypatch)


def test_a_waiting_trial_is_pruned_and_read_once(trials: Trials) -> None:
    """It has its last value. While it waits only running trials are read, even if no trial has ended yet."""
    waits, _ = trials.start(0.3, 0.2), trials.start(0.4)
    assert trials.seen() == [("RUNNING", None), ("RUNNING", None)]
    trials.waiting = {waits: 1}
    assert trials.seen() == [("PRUNED", 0.2), ("RUNNING", None)]
    n_before = len(trials.n_read)
    assert trials.seen() == [("PRUNED", 0.2), ("RUNNING", None)]
    assert trials.n_read[n_before:] == [1]


def test_a_promoted_trial_runs_again(trials: Trials) -> None:
    """A promoted trial is read again with its new state. It may wait again at a later epoch."""
    waits, later = trials.start(0.3), trials.start(0.4)
    trials.waiting = {waits: 1, later: 1}
    assert trials.seen() == [("PRUNED", 0.3), ("PRUNED", 0.4)]
    trials.waiting = {later: 1}
    assert trials.seen() == [("RUNNING", None), ("PRUNED", 0.4)]

    trials.optuna.set_trial_intermediate_value(waits, 2, 0.5)
    trials.optuna.set_trial_intermediate_value(later, 2, 0.6)
    trials.waiting = {waits: 2, later: 2}
    assert trials.seen() == [("PRUNED", 0.5), ("PRUNED", 0.6)]
    trials.optuna.set_trial_state_values(waits, TrialState.COMPLETE, [0.7])
    trials.waiting = {later: 2}
    assert trials.seen() == [("COMPLETE", 0.7), ("PRUNED", 0.6)]
