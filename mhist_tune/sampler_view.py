"""Optuna's trials as a sampler should see them: one that waits at a rung is PRUNED with the last value it has."""

import copy
from collections.abc import Callable, Mapping

from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.trial import FrozenTrial, TrialState


class SamplerView(_CachedStorage):
    """Optuna's cached storage of one study, in which waiting trials are PRUNED and are read once, not at every call.

    In the database a waiting trial is RUNNING, since it may go on with its curve. To a sampler that would be a trial of
    which nothing is known yet: it would learn nothing from it, keep away from its params, and read it every time.

    Args:
        backend: Optuna's storage.
        waiting: gives the waiting trials by id, each with a number that changes when the trial has been continued.
    """

    def __init__(self, backend: RDBStorage, waiting: Callable[[], Mapping[int, int]]) -> None:
        super().__init__(backend)
        self._waiting = waiting
        self._shelved: dict[int, int] = {}

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        waiting = self._waiting()
        with self._lock:
            info = self._studies.setdefault(study_id, _StudyInfo())
            info.unfinished_trial_ids |= {one for one, number in self._shelved.items() if waiting.get(one) != number}
            self._shelved = {one: number for one, number in self._shelved.items() if waiting.get(one) == number}
        super()._read_trials_from_remote_storage(study_id)
        with self._lock:
            for trial_id in waiting.keys() - self._shelved.keys():
                _, number = self._trial_id_to_study_id_and_number[trial_id]
                if not info.trials[number].state.is_finished():
                    info.trials[number] = _as_pruned(info.trials[number])
                    info.unfinished_trial_ids.discard(trial_id)
                    # all trials up to this one have just been read, and the unfinished ones are asked for by their ids
                    info.last_finished_trial_id = max(info.last_finished_trial_id, trial_id)
                    self._shelved[trial_id] = waiting[trial_id]


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    pruned = copy.copy(trial)
    pruned.state = TrialState.PRUNED
    pruned.value = trial.intermediate_values[max(trial.intermediate_values)]
    return pruned
