"""The private parts of Optuna, and of optuna-dashboard, that this package uses are still as it expects them.

Each failure names the part that changed and the module that uses it.
"""

import inspect

import optuna
import optuna_dashboard
import pytest
from optuna.storages import InMemoryStorage, _cached_storage
from optuna.study import StudyDirection

from mhist_tune.storage.optuna_internals import FIXED_PARAMS, trial_id


def test_a_trial_carries_its_id() -> None:
    """`FrozenTrial._trial_id`, which `optuna_internals.trial_id` reads, is the id in the storage."""
    storage = InMemoryStorage()
    for _ in range(2):  # ids and numbers differ in the second study
        study = storage.create_new_study([StudyDirection.MAXIMIZE])
        created = storage.create_new_trial(study)
    trial = storage.get_trial(created)

    assert trial.number != created
    assert hasattr(trial, "_trial_id"), "Optuna's FrozenTrial has no _trial_id: mend optuna_internals.trial_id"
    assert trial_id(trial) == created


def test_params_are_fixed_by_the_same_attribute() -> None:
    """A trial that Optuna enqueues has its params where `optuna_trial` puts them."""
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.5})
    [trial] = study.get_trials()

    actual = trial.system_attrs.get(FIXED_PARAMS)
    assert actual == {"x": 0.5}, "Optuna's enqueued trials have no fixed_params: mend optuna_internals.FIXED_PARAMS"


@pytest.mark.parametrize(
    ("owner", "parameters", "user"),
    [
        (optuna.samplers.QMCSampler, ("_find_sample_id", "self study search_space"), "optuna_internals.PointSampler"),
        (_cached_storage._CachedStorage, ("__init__", "self backend"), "sampler_storage.SamplerStorage"),
        (
            _cached_storage._CachedStorage,
            ("_read_trials_from_remote_storage", "self study_id"),
            "sampler_storage.SamplerStorage",
        ),
    ],
)
def test_an_overridden_method_is_called_as_before(owner: type, parameters: tuple[str, str], user: str) -> None:
    """A private method that a class of ours overrides exists and takes the same arguments."""
    name, expected = parameters
    actual = getattr(owner, name, None)

    assert actual is not None, f"Optuna's {owner.__name__} has no {name}: mend {user}"
    given = " ".join(inspect.signature(actual).parameters)
    assert given == expected, f"Optuna's {owner.__name__}.{name} takes ({given}) now: mend {user}"


def test_the_cached_storage_keeps_the_same_state() -> None:
    """What `SamplerStorage` changes in Optuna's cache is there, with the types that it expects."""
    cache = vars(_cached_storage._CachedStorage(None))  # type: ignore[arg-type]
    study = vars(_cached_storage._StudyInfo())
    for state, names in (
        (cache, {"_studies": dict, "_trial_id_to_study_id_and_number": dict, "_lock": object}),
        (study, {"trials": dict, "unfinished_trial_ids": set, "last_finished_trial_id": int}),
    ):
        for name, kind in names.items():
            assert isinstance(state.get(name), kind), f"Optuna's cached storage has no {name}: mend sampler_storage"


def test_the_cache_of_optuna_dashboard_can_be_cleared() -> None:
    """`dashboard.stock` clears `_inmemory_cache` of the application that optuna-dashboard returns."""
    cache = getattr(optuna_dashboard.wsgi(InMemoryStorage()), "_inmemory_cache", None)

    assert callable(getattr(cache, "clear", None)), (
        "optuna-dashboard has no _inmemory_cache.clear: mend dashboard.stock"
    )
