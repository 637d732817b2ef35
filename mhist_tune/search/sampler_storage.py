"""Optuna's cached storage for the sampler, in which waiting trials count as pruned.

A trial that waits at a rung is PRUNED with its last value. No other module uses the private parts of Optuna's cached
storage.
"""

import copy
from collections.abc import Callable, Mapping

from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.trial import FrozenTrial, TrialState


class SamplerStorage(_CachedStorage):
    """Optuna's cached storage for one study, in which waiting trials are PRUNED and cached.

    In the database a waiting trial is RUNNING, since it may be promoted. A sampler ignores the scores of a RUNNING
    trial, avoids its params, and reads it again at every call.

    Args:
        backend: Optuna's storage.
        waiting: returns, by id of each waiting trial, a number that changes when the trial goes on.
    """

    def __init__(self, backend: RDBStorage, waiting: Callable[[], Mapping[int, int]]) -> None:
        super().__init__(backend)
        self._waiting = waiting
        self._cached: dict[int, int] = {}  # the waiting trials that are cached as PRUNED, with their number

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        waiting = self._waiting()
        with self._lock:
            info = self._studies.setdefault(study_id, _StudyInfo())
            info.unfinished_trial_ids |= {key for key, number in self._cached.items() if waiting.get(key) != number}
            self._cached = {key: number for key, number in self._cached.items() if waiting.get(key) == number}
        super()._read_trials_from_remote_storage(study_id)
        with self._lock:
            for trial_id in waiting.keys() - self._cached.keys():
                _, number = self._trial_id_to_study_id_and_number[trial_id]
                if not info.trials[number].state.is_finished():
                    info.trials[number] = _as_pruned(info.trials[number])
                    info.unfinished_trial_ids.discard(trial_id)
                    # All trials up to this one have just been read; the unfinished ones are read by their ids.
                    info.last_finished_trial_id = max(info.last_finished_trial_id, trial_id)
                    self._cached[trial_id] = waiting[trial_id]


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    pruned = copy.copy(trial)
    pruned.state = TrialState.PRUNED
    pruned.value = trial.intermediate_values[max(trial.intermediate_values)]
    return pruned
