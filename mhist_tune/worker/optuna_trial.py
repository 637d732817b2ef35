"""The Optuna trial of a claimed slot: created once, given every score, and finished with the slot's outcome."""

import contextlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from mhist_tune.code_version import code_version
from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.epochs import EpochRow
from mhist_tune.storage.leases import Claim, StaleTokenError
from mhist_tune.storage.optuna_internals import FIXED_PARAMS, trial_id
from mhist_tune.storage.outcome import Outcome
from mhist_tune.storage.studies import Study
from mhist_tune.worker import trial_note


class OptunaTrial:
    """The Optuna trial of a slot while this worker holds its lease.

    Args:
        storage: the storage of the study.
        study: the study.
        claim: the slot as claimed.

    Attributes:
        id: Optuna's id; -1 until there is a trial.
        number: the trial's number; -1 until there is a trial.
    """

    def __init__(self, storage: Storage, study: Study, claim: Claim) -> None:
        self._storage, self._study, self._claim = storage, study, claim
        self.id = -1 if claim.trial_id is None else claim.trial_id
        self.number = -1 if claim.trial_number is None else claim.trial_number

    def ensure(self, params: Mapping[str, Any] | None, *, fixed: Mapping[str, Any] | None = None, **tags: Any) -> int:
        """Return Optuna's id of the trial. Without a stored id, adopt the running trial of this slot or create one.

        Args:
            params: the params of a new trial; None if the sampler will suggest them.
            fixed: params that a new trial gets instead of suggestions.
            tags: user attributes of a new trial, beside its slot, its token and the version of the code.

        Raises:
            StaleTokenError: another worker holds the slot now.
        """
        storage, claim = self._storage, self._claim
        if claim.trial_id is not None:
            return claim.trial_id
        study_id = studies.optuna_study_id(storage, self._study, claim.stage)
        attempts = itertools.count(claim.token)
        values, distributions = ({}, {}) if params is None else optuna_params(self._study.definition, params)
        template = create_trial(
            state=TrialState.RUNNING,
            params=values,
            distributions=distributions,
            user_attrs={"slot": claim.slot, "token": claim.token, "code_version": code_version(), **tags},
            system_attrs={FIXED_PARAMS: dict(fixed)} if fixed else {},
        )

        def adopt_or_create() -> FrozenTrial:
            # a first claim has no orphan, unless the answer to its own creation was lost
            if next(attempts) > 1:
                running = storage.optuna.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
                orphan = next((trial for trial in running if trial.user_attrs.get("slot") == claim.slot), None)
                if orphan is not None:
                    return orphan
            return storage.optuna.get_trial(storage.optuna.create_new_trial(study_id, template_trial=template))

        trial = storage.retrying(adopt_or_create)
        self.id, self.number = trial_id(trial), trial.number
        if not ledger.attach_trial(storage, claim, self.id, trial.number):
            raise StaleTokenError(claim)
        return self.id

    def record(self, epoch: int, score: float) -> None:
        """Give the trial the score of an epoch. A second call with the same score changes nothing."""
        self._storage.optuna.set_trial_intermediate_value(self.id, epoch, score)

    def finish(self, outcome: Outcome, epochs: Sequence[EpochRow]) -> None:
        """Give the trial its final state with its attributes and its note, unless it is finished.

        Args:
            outcome: the outcome of the slot.
            epochs: all recorded epochs of the slot.
        """
        optuna_storage = self._storage.optuna
        if optuna_storage.get_trial(self.id).state.is_finished():
            return
        # a worker that lost the slot after the decision may write the same outcome at the same time
        with contextlib.suppress(UpdateFinishedTrialError):
            record = outcome.to_json()
            for name in ("standard_error", "best_epoch", "stopped_epoch", "reason"):
                if name in record:
                    optuna_storage.set_trial_user_attr(self.id, name, record[name])
            trial_note.write_trial(self._storage, self._study, self._claim.stage, self.id, outcome, epochs)
            value = outcome.value
            if not outcome.is_complete:  # Optuna's convention: the value of a pruned trial is its last one
                value = epochs[outcome.stopped_epoch - 1].score if outcome.stopped_epoch else None
            values = None if value is None else [value]
            optuna_storage.set_trial_state_values(self.id, TrialState[outcome.state], values)


def optuna_params(
    definition: StudyDefinition, params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Return the params of a trial as Optuna stores them, and their distributions.

    The values of a table's row are categorical, with the values of all rows as choices (lists and tables as JSON), so
    that any Optuna tool shows the table.
    """
    if not definition.rows:
        return dict(params), {name: dimension.distribution() for name, dimension in definition.space.items()}
    return {name: _plain(value) for name, value in params.items()}, {
        name: CategoricalDistribution(tuple(dict.fromkeys(_plain(row.params[name]) for row in definition.rows)))
        for name in params
    }


def _plain(value: Any) -> str | int | float:
    return value if isinstance(value, str | int | float) else json.dumps(value)
