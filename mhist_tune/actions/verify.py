"""Recomputes a report from the stored predictions and trains one seed once more.

Each comparison says whether the values agree bitwise, agree within a tolerance, or differ.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from mhist_tune.events import Emit, StopRequest
from mhist_tune.report import about, build, evidence
from mhist_tune.report.evidence import Evidence
from mhist_tune.search import race
from mhist_tune.statistics import binary_metrics
from mhist_tune.storage import event_log
from mhist_tune.storage.database import Storage
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.studies import Study
from mhist_tune.training.fit_result import EpochResult
from mhist_tune.words import counted
from mhist_tune.worker.devices import n_cores, parse_devices
from mhist_tune.worker.session import open_session
from mhist_tune.worker.stages import retrain

TOLERANCE = 1e-6
"""The largest difference that counts as agreement: another library version or processor may round differently."""

_NOT_COMPARED = (
    "result",
    "caveats",
    "methods",
    "references",
    "commands",
    "versions",
    "predictions",
    "other_openings",
)
"""Keys of a report that may differ for the same numbers: sentences and names, which another version may word
differently, and the openings by other studies, which go on."""


@dataclass(frozen=True)
class Comparison:
    """One comparison of two lists of values.

    Attributes:
        what: the values that are compared.
        state: bitwise, within tolerance, differs, or not compared.
        max_difference: the largest difference between two numbers; None if no numbers were compared.
        detail: further words; may be empty.
    """

    what: str
    state: str
    max_difference: float | None
    detail: str


@dataclass(frozen=True)
class Verification:
    """What came of repeating a report. `asdict` is the JSON document of the command.

    Attributes:
        repeated: whether nothing differs.
        tolerance: the largest difference that counts as agreement.
    """

    study: str
    repeated: bool
    tolerance: float
    checks: list[Comparison]


def of_records(storage: Storage, study_name: str, folder: Path) -> list[Comparison]:
    """Compare the report that was written into `folder` with one recomputed from the stored predictions.

    Raises:
        StudyNotFoundError: there is no such study.
        UsageError: no retraining has finished.
    """
    reported = evidence.load(storage, study_name)
    written = _read(folder / "report.json")
    again = asdict(build.build(storage, study_name, about.given_for(written or {})))
    return [
        _written(folder / "report.json", written, again),
        _predictions(folder / "predictions.csv", reported),
        _aurocs(reported),
        *_race(storage, reported.study),
    ]


def of_training(
    storage: Storage,
    study_name: str,
    data_root: Path,
    devices: str,
    per_device: int | None,
    emit: Emit,
    stop: StopRequest,
    weights: Sequence[Path] = (),
) -> list[Comparison]:
    """Train the first finished seed of the reported opening once more, and compare it with what was recorded.

    Args:
        storage: the storage of the study.
        study_name: the name of the study.
        data_root: the folder of the data set.
        devices: the devices of the retraining, see `parse_devices`. The training runs on the first one, with as many
            threads as a worker of the retraining had.
        per_device: the number of workers on each device in the retraining; see `parse_devices`.
        emit: receives events.
        stop: the request to stop.
        weights: weight files of this machine, see `weight_lookup.find`.

    Raises:
        StudyNotFoundError: there is no such study.
        UsageError: no retraining has finished, or this machine has no such device.
        DataError: the data set is not that of the study.
        Interrupted: a signal asked to stop.
    """
    reported = evidence.load(storage, study_name)
    study = reported.study
    names = parse_devices(devices, per_device)
    torch.set_num_threads(max(1, n_cores() // len(names)))
    session = open_session(
        storage, study, data_root=data_root, device=names[0], worker="verify", emit=emit, stop=stop, weights=weights
    )
    slot, stored = reported.slots[0], reported.probabilities[0]
    losses: list[float | None] = []

    def add_epoch(result: EpochResult) -> None:
        losses.append(result.metrics["train_loss"])
        fields = {"stage": slot.stage, "slot": slot.slot, "trial": slot.payload.trial}
        session.emit(
            "epoch",
            study=study.name,
            **fields,
            epoch=result.epoch,
            epochs=slot.payload.stop_epoch,
            score=study.definition.score,
            **result.metrics,
        )

    probabilities = retrain.rerun(session, slot.payload, add_epoch)
    recorded = [row.metrics["train_loss"] for row in epochs_of(storage, study, slot.stage, slot.slot)]
    seed = f"seed {slot.payload.seed}, trained again on {session.device}"
    aurocs = [binary_metrics.metrics_of(reported.images.labels, row)["auroc"] for row in (stored, probabilities)]
    comparisons = [
        _compared(f"{seed}: training loss of {len(losses)} epochs", losses, recorded),
        _compared(
            f"{seed}: {stored.size} test probabilities",
            probabilities.tolist(),
            stored.tolist(),
            f"AUROC {aurocs[1]:.4f}, reported {aurocs[0]:.4f}",
        ),
    ]
    detail = {"seed": slot.payload.seed, "states": [comparison.state for comparison in comparisons]}
    event_log.event(storage, study, kind="verified", stage=slot.stage, slot=slot.slot, detail=detail)
    return comparisons


def is_repeated(comparisons: Sequence[Comparison]) -> bool:
    """Return whether no comparison differs."""
    return all(comparison.state != "differs" for comparison in comparisons)


def to_document(study_name: str, comparisons: Sequence[Comparison]) -> Verification:
    """Return the comparisons as a document."""
    return Verification(study_name, is_repeated(comparisons), TOLERANCE, list(comparisons))


def to_text(comparisons: Sequence[Comparison]) -> str:
    """Return one line for each comparison."""
    width = max(len(comparison.state) for comparison in comparisons)
    lines = (f"{comparison.state.ljust(width)}  {comparison.what}: {comparison.detail}" for comparison in comparisons)
    return "\n".join(line.removesuffix(": ") for line in lines)


def _read(path: Path) -> dict[str, Any] | None:
    """Return the report that was written at `path`; None if there is none."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return None
    return document


def _written(path: Path, written: Mapping[str, Any] | None, again: Mapping[str, Any]) -> Comparison:
    what = "numbers of the written report"
    if written is None:
        detail = f"there is no {path}; mhist-tune report {again['study']} writes it"
        return Comparison(what, "not compared", None, detail)
    keys = [key for key in written if key in again and key not in _NOT_COMPARED]
    # Through JSON, so that a tuple equals a list.
    known = json.loads(json.dumps({key: again[key] for key in keys}))
    return _compared(what, list(_leaves({key: written[key] for key in keys})), list(_leaves(known)))


def _predictions(path: Path, reported: Evidence) -> Comparison:
    what = f"{reported.probabilities.size} predictions in {path.name}"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return Comparison(what, "not compared", None, f"there is no {path}")
    stored = [
        (str(seed), name, probability)
        for seed, row in zip(reported.seeds, reported.probabilities.tolist(), strict=True)
        for name, probability in zip(reported.images.names, row, strict=True)
    ]
    written = [(row["seed"], row["image_name"], float(row["probability"])) for row in rows]
    return _compared(what, [leaf for row in written for leaf in row], [leaf for row in stored for leaf in row])


def _aurocs(reported: Evidence) -> Comparison:
    what = "AUROC of each seed against scikit-learn's"
    labels = reported.images.labels
    if not 0 < labels.sum() < labels.size:
        return Comparison(what, "not compared", None, "the test partition holds one class only")
    ours: list[Any] = [binary_metrics.metrics_of(labels, row)["auroc"] for row in reported.probabilities]
    return _compared(what, ours, [float(roc_auc_score(labels, row)) for row in reported.probabilities])


def _race(storage: Storage, study: Study) -> list[Comparison]:
    """Compare the looks of the finalists' race with the same looks taken again; empty without a race."""
    looks = race.recorded(storage, study)
    if not looks:
        return []
    what, problems = f"{counted(len(looks), 'look')} of the finalists' race", race.problems(storage, study)
    return [Comparison(what, "differs" if problems else "within tolerance", None, "; ".join(problems))]


def _compared(what: str, ours: Sequence[Any], others: Sequence[Any], detail: str = "") -> Comparison:
    """Compare two lists of plain values, value by value."""
    if list(ours) == list(others):
        return Comparison(what, "bitwise", 0.0, detail)
    if len(ours) != len(others):
        return Comparison(what, "differs", None, f"{len(ours)} values instead of {len(others)}")
    pairs = [(our, other) for our, other in zip(ours, others, strict=True) if our != other]
    if not all(isinstance(value, int | float) for pair in pairs for value in pair):
        our, other = next(pair for pair in pairs if not all(isinstance(value, int | float) for value in pair))
        return Comparison(what, "differs", None, f"{our!r} instead of {other!r}")
    largest = float(np.max(np.abs(np.subtract(*np.array(pairs, dtype=np.float64).T))))
    state = "within tolerance" if largest <= TOLERANCE else "differs"
    summary = f"{len(pairs)} of {len(ours)} values differ, by at most {largest:.2g}"
    return Comparison(what, state, largest, f"{summary}; {detail}" if detail else summary)


def _leaves(value: Any) -> Iterator[Any]:
    """Yield the keys and values of a JSON document in a fixed order."""
    if isinstance(value, Mapping):
        for name in sorted(value):
            yield name
            yield from _leaves(value[name])
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value
