"""Estimates the time, the space and the power of a study: `create-study --dry-run`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.report import stage_costs
from mhist_tune.report.stage_costs import Cost, StageCost, TimeToReport
from mhist_tune.search import budget, costs
from mhist_tune.search.pruning import rungs
from mhist_tune.statistics import power
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.predictions import image_rows
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.training import epoch_time, models, weight_files

_SUPPOSED_F1, _SUPPOSED_CORRELATION = 0.75, 0.5
_Z = 1.96
_BYTES_PER_PARAMETER = 4 * 4  # float32: the weights, AdamW's two moments, and the weights of the best epoch
_N_GENERATIONS = 2  # checkpoints that each running trial keeps
_BYTES_PER_EPOCH = 1000
_STAGES = ("search", "confirm", "retrain", "in_all")


@dataclass(frozen=True)
class Counts:
    """Numbers of images that a search trains and validates on, of those that are SSA, and of both classes on test."""

    train: int
    train_positive: int
    val: int
    val_positive: int
    test_positive: int | None = None
    test_negative: int | None = None


def counts_of(image_sets: Mapping[str, Sequence[Sequence[Any]]], n_test: tuple[int, int]) -> Counts:
    """Return the numbers of images of a prepared study, see `create.PreparedStudy`."""
    train, val = (image_sets[name] for name in ("train", "val"))
    return Counts(len(train), sum(row[1] for row in train), len(val), sum(row[1] for row in val), *n_test)


def default_device() -> torch.device:
    """Return the device that is measured: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def estimate(
    definition: StudyDefinition, counts: Counts, storage: Storage | None, device: torch.device
) -> dict[str, Any]:
    """Return a JSON-safe estimate of the search, the confirmation of its finalists and the retraining.

    Earlier studies in `storage` with the same model and image size give the seconds of an epoch. Those with the same
    pruner and number of epochs give the share of epochs that are trained. Without them a short probe on `device` gives
    the seconds, and the rungs of the pruner the share.

    Args:
        definition: the definition of the study.
        counts: the numbers of its images.
        storage: the storage of earlier studies; None for none.
        device: the device to train on.
    """
    hp = definition.hyperparameters(definition.default_params())
    n_slots = len(definition.slot_payloads())
    shares, seconds = _earlier(definition, counts, storage)
    epoch_s = seconds[-1] if seconds else probed_s(definition, counts, device)
    planned = costs.planned(definition, n_slots)
    most = planned[Stage.SEARCH].at_most
    if shares:
        planned[Stage.SEARCH] = costs.Epochs(round(most * shares[-1]), most)
    source = "earlier studies" if seconds else "a probe"
    n_parameters = sum(parameter.numel() for parameter in _random(hp).parameters())
    found = stage_costs.document(definition, planned, epoch_s, source, counts.train, counts.val)
    return {
        "study": definition.name,
        "n_slots": n_slots,
        "n_images": {"train": counts.train, "val": counts.val, "val_positive": counts.val_positive},
        "cost": asdict(found),
        "known_from_earlier": bool(shares),
        "n_trainings": costs.n_trainings(definition),
        "budget": _budget(definition, epoch_s, counts),
        "n_waiting": _n_waiting(definition.pruner, n_slots, hp.epochs),
        "checkpoint_bytes": n_parameters * _BYTES_PER_PARAMETER * _N_GENERATIONS,
        "database_bytes": most * _BYTES_PER_EPOCH + n_slots * counts.val * 8,
        "test_power": _test_power(counts),
        "smallest_f1_difference": smallest_f1_difference(counts.val_positive, counts.val - counts.val_positive),
    }


def probed_s(definition: StudyDefinition, counts: Counts, device: torch.device) -> float:
    """Return the seconds of an epoch of the study's default, from a short training on a device."""
    hp = definition.hyperparameters(definition.default_params())
    return epoch_time.measure(hp, device, n_train=counts.train, n_positive=counts.train_positive, n_val=counts.val)


def budget_text(definition: StudyDefinition, counts: Counts, storage: Storage, device: torch.device) -> str | None:
    """Return in one line what the budget of hours is expected to pay for; None without one.

    Args: as of `estimate`.
    """
    if definition.max_hours is None:
        return None
    _, seconds = _earlier(definition, counts, storage)
    picked = _budget(definition, seconds[-1] if seconds else probed_s(definition, counts, device), counts)
    return None if picked is None else _picked_text(picked)


def _budget(definition: StudyDefinition, epoch_s: float, counts: Counts) -> dict[str, Any] | None:
    """Return what the budget of hours pays for here. The first worker measures again and decides."""
    if definition.max_hours is None:
        return None
    picked = costs.pick(definition, epoch_s, counts.train, counts.val)
    return {
        "max_hours": definition.max_hours,
        "n_trials": picked.n_trials,
        "n_epochs": picked.n_epochs,
        "hours_needed": picked.needed_s / 3600,
        "hours_reserved": picked.reserved_s / 3600,
        "plan": budget.pick_text(definition, picked.n_trials, picked.n_epochs, epoch_s),
    }


def _picked_text(picked: Mapping[str, Any]) -> str:
    if picked["n_trials"]:
        return f"{picked['plan']}; the first worker measures its device and decides"
    return (
        f"{picked['max_hours']:.3g} device hours do not pay for one trial on this device: with confirmation and "
        f"retraining it takes up to {picked['hours_needed']:.3g}"
    )


def _test_power(counts: Counts) -> str | None:
    """Return what a comparison on the test images can show, with ten seeds; None where these are not known."""
    if not counts.test_positive or not counts.test_negative:
        return None
    return power.sentence(counts.test_positive, counts.test_negative, n_seeds=10)


def smallest_f1_difference(n_positive: int, n_negative: int) -> float:
    """Return roughly the smallest difference in F1 between two trials that is significant at 5% on a validation split.

    Both trials are assumed to have a precision and a recall of .75, and errors with a correlation of .5:
    1.96 SE sqrt(2 (1 - .5)). SE is that of F1 = 2 TP / (TP + FP + n_positive) with TP and FP binomial, by the delta
    method.

    >>> round(smallest_f1_difference(128, 307), 3)
    0.061
    """
    recall = precision = _SUPPOSED_F1
    true, false = n_positive * recall, n_positive * recall * (1 - precision) / precision
    size = true + false + n_positive
    by_true, by_false = 2 * (false + n_positive) / size**2, -2 * true / size**2
    variance = by_true**2 * true * (1 - recall) + by_false**2 * false * (1 - min(1.0, false / n_negative))
    return _Z * math.sqrt(variance * 2 * (1 - _SUPPOSED_CORRELATION))


def to_text(document: Mapping[str, Any]) -> str:
    """Return the estimate as lines."""
    images = document["n_images"]
    shown = {**document["cost"], **{key: StageCost(**document["cost"][key]) for key in _STAGES}}
    shown["time_to_report"] = [TimeToReport(**time) for time in shown["time_to_report"]]
    by = "as earlier studies with this pruner" if document["known_from_earlier"] else "by its rungs"
    waiting = f" or waits, about {document['n_waiting']} of them" if document["n_waiting"] else ""
    lines = [
        f"slots      {document['n_slots']}; the search's epochs are expected {by}",
        f"images     {images['train']} train, {images['val']} validate, {images['val_positive']} of these SSA",
        *stage_costs.to_lines(Cost(**shown)),
        f"confirm    {document['n_trainings']} trainings of finalists at most"
        if document["n_trainings"]
        else "confirm    nothing: the best trial of the search is the final choice",
        f"disk       {document['checkpoint_bytes'] / 1e6:.0f} MB of checkpoints for each trial that runs{waiting}, "
        f"{document['database_bytes'] / 1e6:.0f} MB in the database",
        f"can show   differences in F1 from about {document['smallest_f1_difference']:.3f} on: smaller ones "
        "between two trials may be chance",
    ]
    lines += [f"compare    {document['test_power']}"] if document["test_power"] else []
    lines += [f"budget     {_picked_text(document['budget'])}"] if document["budget"] else []
    return "\n".join(lines)


def _n_waiting(pruner: Mapping[str, Any], n_slots: int, n_epochs: int) -> int:
    """Return roughly the number of trials that can wait at rungs. It is exact for the first rung, see `promotion`."""
    if pruner["name"] != "promotion":
        return 0
    return sum(n_slots // pruner["reduction_factor"] ** rank for rank, _ in enumerate(rungs(pruner, n_epochs), 1))


def _earlier(definition: StudyDefinition, counts: Counts, storage: Storage | None) -> tuple[list[float], list[float]]:
    """Return two lists over earlier studies: shares of epochs trained with this pruner, and seconds of an epoch."""
    if storage is None:
        return [], []
    shares, seconds = [], []
    params = {**definition.fixed, **definition.default_params()}
    for study in studies.list_studies(storage):
        other = study.definition
        other_params = {**other.fixed, **other.default_params()}
        done = [slot.slot for slot in ledger.slots(storage, study, Stage.SEARCH) if slot.state == SlotState.DONE]
        epochs = [epochs_of(storage, study, Stage.SEARCH, slot) for slot in done]
        if not any(epochs):
            continue
        if other.pruner == definition.pruner and other_params["epochs"] == params["epochs"]:
            shares.append(sum(map(len, epochs)) / (len(epochs) * other_params["epochs"]))
        if all(other_params[name] == params[name] for name in ("model", "image_size")):
            n_train = len(image_rows(storage, study, "train").names)
            spent = [row.metrics.get("elapsed_s") or 0.0 for rows in epochs for row in rows]
            seconds.append(sum(spent) / len(spent) * counts.train / n_train)
    return shares, seconds


def _random(hp: Hyperparameters) -> torch.nn.Module:
    with torch.device("meta"):
        return models.create_model(weight_files.without(hp))
