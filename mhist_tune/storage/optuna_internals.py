"""The private parts of Optuna that are used here.

Those of the cached storage are in `search.sampler_storage`. `optuna_attrs` has the formats of optuna-dashboard's notes
and figures and of artifacts.
"""

from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import QMCSampler
from optuna.trial import FrozenTrial

FIXED_PARAMS = "fixed_params"
"""The system attribute of a trial with fixed params instead of suggestions, as `Study.enqueue_trial` writes it."""


def trial_id(trial: FrozenTrial) -> int:
    """Return the id of a trial in the database. Optuna's public attribute is only its number."""
    return trial._trial_id


class PointSampler(QMCSampler):
    """Samples one point of a quasi-random sequence.

    Optuna's own sampler counts its points in the storage, so its answer depends on earlier calls.

    Args:
        index: the position of the point in the sequence, 0-based.
        options: arguments of `QMCSampler`.
    """

    def __init__(self, index: int, **options: Any) -> None:
        super().__init__(warn_independent_sampling=False, **options)
        self._index = index

    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._index
