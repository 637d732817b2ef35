"""Estimates the time, the space and the power of a study: `create-study --dry-run`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from mhist_tune.data.images import ImageSet
from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.search import finalists
from mhist_tune.search.pruning import rungs
from mhist_tune.statistics import power
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.predictions import image_rows
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.training import models, weight_files
from mhist_tune.training.fit import fit
from mhist_tune.training.fit_result import EpochResult
from mhist_tune.training.probe import resolve

_SUPPOSED_F1, _SUPPOSED_CORRELATION = 0.75, 0.5
_Z = 1.96
_BYTES_PER_PARAMETER = 4 * 4  # float32: the weights, AdamW's two moments, and the weights of the best epoch
_N_GENERATIONS = 2  # checkpoints that each running trial keeps
_BYTES_PER_EPOCH = 1000
_OVER = ("random_over", "smote", "adasyn", "adasyn_votes")


@dataclass(frozen=True)
class Counts:
    """Numbers of images that a search trains and validates on, of those that are SSA, and of both classes on test."""

    train: int
    train_positive: int
    val: int
    val_positive: int
    test_positive: int | None = None
    test_negative: int | None = None


def estimate(
    definition: StudyDefinition, counts: Counts, storage: Storage | None, device: torch.device
) -> dict[str, Any]:
    """Return a JSON-safe estimate of the search and of the confirmation of its finalists.

    Earlier studies in `storage` with the same model and image size give the seconds of an epoch. Those with the same
    pruner and number of epochs give the share of epochs that are trained. Without them a short probe on `device` gives
    the seconds, and every epoch is counted.

    Args:
        definition: the definition of the study.
        counts: the numbers of its images.
        storage: the storage of earlier studies; None for none.
        device: the device to train on.
    """
    hp = definition.hyperparameters(definition.default_params())
    n_slots = len(definition.slot_payloads())
    most = n_slots * hp.epochs
    shares, seconds = _earlier(definition, counts, storage)
    share = shares[-1] if shares else 1.0
    source = "earlier studies" if seconds else "a probe"
    per_epoch_s = seconds[-1] if seconds else _probed_s(hp, counts, device)
    n_trainings = finalists.n_trainings(definition)
    n_parameters = sum(parameter.numel() for parameter in _random(hp).parameters())
    return {
        "study": definition.name,
        "n_slots": n_slots,
        "n_images": {"train": counts.train, "val": counts.val, "val_positive": counts.val_positive},
        "epochs": {"most": most, "expected": round(most * share), "known_from_earlier": bool(shares)},
        "seconds_per_epoch": per_epoch_s,
        "seconds_from": source,
        "device_hours": most * share * per_epoch_s / 3600,
        "confirm": {"n_trainings": n_trainings, "device_hours": n_trainings * hp.epochs * per_epoch_s / 3600},
        "n_waiting": _n_waiting(definition.pruner, n_slots, hp.epochs),
        "checkpoint_bytes": n_parameters * _BYTES_PER_PARAMETER * _N_GENERATIONS,
        "database_bytes": most * _BYTES_PER_EPOCH + n_slots * counts.val * 8,
        "test_power": _test_power(counts),
        "smallest_f1_difference": smallest_f1_difference(counts.val_positive, counts.val - counts.val_positive),
    }


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
    images, epochs, confirm = document["n_images"], document["epochs"], document["confirm"]
    expected = (
        f"about {epochs['expected']} of {epochs['most']} (as earlier studies with this pruner)"
        if epochs["known_from_earlier"]
        else f"at most {epochs['most']}, fewer if trials are pruned"
    )
    waiting = f" or waits, about {document['n_waiting']} of them" if document["n_waiting"] else ""
    return "\n".join(
        [
            f"slots      {document['n_slots']}",
            f"images     {images['train']} train, {images['val']} validate, {images['val_positive']} of these SSA",
            f"epochs     {expected}",
            f"time       {document['device_hours']:.2g} device hours, {document['seconds_per_epoch']:.3g} s an epoch "
            f"(from {document['seconds_from']})",
            f"confirm    {confirm['n_trainings']} trainings of finalists, {confirm['device_hours']:.2g} hours at most"
            if confirm["n_trainings"]
            else "confirm    nothing: the best trial of the search is the final choice",
            f"disk       {document['checkpoint_bytes'] / 1e6:.0f} MB of checkpoints for each trial that runs{waiting}, "
            f"{document['database_bytes'] / 1e6:.0f} MB in the database",
            f"can show   differences in F1 from about {document['smallest_f1_difference']:.3f} on: smaller ones "
            "between two trials may be chance",
            *([f"compare    {document['test_power']}"] if document["test_power"] else []),
        ]
    )


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


def _probed_s(hp: Hyperparameters, counts: Counts, device: torch.device) -> float:
    """Return the seconds of an epoch, measured with random weights on images of noise."""
    n = 2 * min(32, hp.effective_batch_size)
    generator = torch.Generator().manual_seed(0)
    images = ImageSet(
        pixels=torch.randint(0, 256, (n, 3, hp.image_size, hp.image_size), dtype=torch.uint8, generator=generator),
        labels=torch.arange(n).remainder(2).float(),
        votes=torch.arange(n).remainder(2).mul(7),
        names=tuple(str(number) for number in range(n)),
        groups=None,
    )
    tried = replace(weight_files.without(hp), freeze="none", sampling="none", exclude_votes=(), n_per_class=0, epochs=2)
    rates: list[float] = []

    def add_rate(result: EpochResult) -> None:
        rates.append(float(result.metrics["images_per_s"] or 1.0))

    fit(
        resolve(tried, device),
        images,
        None,
        seed=0,
        device=device,
        checkpoint=None,
        on_epoch=add_rate,
        on_step=lambda n_done, n_images: None,
    )
    n_negative = counts.train - counts.train_positive
    n_drawn = 2 * max(n_negative, counts.train_positive) if hp.sampling in _OVER else counts.train
    return (n_drawn + counts.val / 3) / rates[-1]  # a forward pass is a third of a step


def _random(hp: Hyperparameters) -> torch.nn.Module:
    with torch.device("meta"):
        return models.create_model(weight_files.without(hp))
