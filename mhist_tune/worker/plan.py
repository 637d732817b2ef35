"""Measures what the budget of a study with `max_hours` pays for, once, on the device of its first worker."""

import torch

from mhist_tune.events import Emit
from mhist_tune.search import budget
from mhist_tune.storage import studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.predictions import image_rows
from mhist_tune.storage.studies import Study
from mhist_tune.training import epoch_time, memory, probe


def ensure(storage: Storage, study: Study, device: torch.device, emit: Emit) -> Study:
    """Return the study with its plan. A missing one is measured and recorded; the first record stands.

    Args:
        storage: the storage of the study.
        study: the study, with measured settings.
        device: the device to measure on.
        emit: receives what the budget pays for.

    Raises:
        UsageError: the budget does not pay for one trial.
    """
    definition = study.definition
    if definition.max_hours is None:
        return study
    if budget.PLAN not in study.settings:
        train, val = (image_rows(storage, study, name) for name in ("train", "val"))
        epoch_s = epoch_time.measure(
            studies.hyperparameters(study, definition.default_params()),
            device,
            n_train=len(train.names),
            n_positive=int(train.labels.sum()),
            n_val=len(val.names),
        )
        memory.free(device)
        study = budget.record_plan(storage, study, epoch_s, probe.device_name(device))
    emit("budget", study=study.name, reason=budget.plan_text(study))
    return study
