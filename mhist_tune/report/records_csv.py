"""The trials, epochs and predictions of every stage of a study as CSV files."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mhist_tune.storage import ledger
from mhist_tune.storage.database import Storage
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.payloads import to_json
from mhist_tune.storage.predictions import image_rows, predicted_sets, predictions_of
from mhist_tune.storage.slot_rows import AnySlot
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study
from mhist_tune.writing import output_folder

_OUTCOME = {
    "state": "state",
    "value": "value",
    "best_value": "best_score",
    "best_epoch": "best_epoch",
    "stopped_epoch": "stopped_epoch",
    "reason": "reason",
}
"""The field of an outcome that each column shows."""

_PAYLOAD = ("trial", "seed", "fit", "fold", "label")


def write(storage: Storage, study: Study, folder: Path) -> dict[str, int]:
    """Write trials.csv, epochs.csv and predictions.csv, and return how many rows each has.

    Columns of trials.csv: stage, slot, number, the outcome, the purpose of the slot (`for_trial`, `for_seed` ..., where
    it has one) and the hyperparameters (`params_...`). Of epochs.csv: stage, slot, number, the epoch and its metrics.
    Of predictions.csv: stage, slot, number, image set, image name, label, votes and probability.

    Raises:
        UsageError: the folder cannot be written.
    """
    slots = [slot for stage in Stage for slot in ledger.slots(storage, study, stage)]
    tables = {
        "trials": _trials([slot for slot in slots if slot.trial_number is not None]),
        "epochs": _epochs(storage, study, slots),
        "predictions": _predictions(storage, study, slots),
    }
    with output_folder(folder, "the records"):
        return {name: _write(folder / f"{name}.csv", *table) for name, table in tables.items()}


Table = tuple[list[str], Iterable[Sequence[Any]]]


def _trials(slots: Sequence[AnySlot]) -> Table:
    params = [(slot.outcome and slot.outcome.params) or getattr(slot.payload, "params", None) or {} for slot in slots]
    names = list(dict.fromkeys(name for values in params for name in values))
    purposes = [name for name in _PAYLOAD if any(name in to_json(slot.payload) for slot in slots)]
    head = [
        "stage",
        "slot",
        "number",
        *_OUTCOME,
        *(f"for_{name}" for name in purposes),
        *(f"params_{name}" for name in names),
    ]
    return head, (
        [
            slot.stage,
            slot.slot,
            slot.trial_number,
            *(getattr(slot.outcome, name, None) for name in _OUTCOME.values()),
            *(getattr(slot.payload, name, None) for name in purposes),
            *(values.get(name) for name in names),
        ]
        for slot, values in zip(slots, params, strict=True)
    )


def _epochs(storage: Storage, study: Study, slots: Sequence[AnySlot]) -> Table:
    rows = [(slot, row) for slot in slots for row in epochs_of(storage, study, slot.stage, slot.slot)]
    metrics = list(dict.fromkeys(name for _, row in rows for name in row.metrics))
    return ["stage", "slot", "number", "epoch", "value", *metrics], (
        [slot.stage, slot.slot, slot.trial_number, row.epoch, row.score, *(row.metrics.get(name) for name in metrics)]
        for slot, row in rows
    )


def _predictions(storage: Storage, study: Study, slots: Sequence[AnySlot]) -> Table:
    def rows() -> Iterable[Sequence[Any]]:
        numbers = {(slot.stage, slot.slot): slot.trial_number for slot in slots}
        for stage, name in predicted_sets(storage, study):
            images = image_rows(storage, study, name)
            for slot, probabilities in predictions_of(storage, study, stage, name).items():
                of_image = zip(images.names, images.labels, images.votes, probabilities.tolist(), strict=True)
                for image, label, votes, probability in of_image:
                    yield [stage, slot, numbers[stage, slot], name, image, int(label), int(votes), probability]

    return ["stage", "slot", "number", "image_set", "image_name", "label", "votes", "probability"], rows()


def _write(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    n_rows = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for row in rows:
            writer.writerow(row)
            n_rows += 1
    return n_rows
