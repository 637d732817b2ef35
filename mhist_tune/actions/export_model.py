"""Writes a retrained model into a folder, with preprocessing, threshold and model card."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.errors import UsageError
from mhist_tune.mhist import NEGATIVE_CLASS, POSITIVE_CLASS, THRESHOLD
from mhist_tune.report import build, evidence, model_card
from mhist_tune.report.document import Report
from mhist_tune.storage import kept_weights, studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.payloads import RetrainPayload
from mhist_tune.training.models import input_statistics
from mhist_tune.training.saved_model import CARD, DESCRIPTION, FORMAT, WEIGHTS
from mhist_tune.writing import output_folder


def write(storage: Storage, study_name: str, folder: Path) -> dict[str, Any]:
    """Write the first seed of the reported model into `folder`, and return its description as JSON-safe values.

    Raises:
        StudyNotFoundError: there is no such study.
        UsageError: no retraining has finished, this machine has no weights of it, or the folder cannot be written.
    """
    reported = evidence.load(storage, study_name)
    report = build.build(storage, study_name)
    payload = replace(reported.payload, seed=kept_weights.SEED)
    path = kept_weights.path_of(storage, reported.study, payload)
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the weights of trial {payload.trial} of {study_name}, seed {payload.seed}, are not at {path}",
            hint="export on the machine that trained this seed, or train it once more: "
            f"mhist-tune verify {study_name} --data DIR",
        ) from error
    description = _describe(report, studies.hyperparameters(reported.study, payload.params), payload, weights)
    with output_folder(folder, "the model"):
        (folder / WEIGHTS).write_bytes(weights)
        (folder / CARD).write_text(model_card.render(report, description), encoding="utf-8")
        text = json.dumps(description, indent=2, allow_nan=False)
        (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
    return description


def _describe(report: Report, hp: Hyperparameters, payload: RetrainPayload, weights: bytes) -> dict[str, Any]:
    held_out, (mean, std) = report.held_out, input_statistics(hp)
    return {
        "format": FORMAT,
        "study": report.study,
        "trial": payload.trial,
        "seed": payload.seed,
        "definition_sha256": report.definition_sha256,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "positive_class": POSITIVE_CLASS,
        "negative_class": NEGATIVE_CLASS,
        "threshold": held_out.threshold if held_out else THRESHOLD,
        "threshold_source": held_out.source if held_out else f"{THRESHOLD}, since none was fixed on held-out images",
        "preprocessing": {
            "image_size": hp.image_size,
            "resize": "to a square, bicubic, antialiased (Pillow)",
            "scale": "uint8 divided by 255",
            "mean": list(mean),
            "std": list(std),
        },
        "hyperparameters": hp.to_dict(),
        "versions": report.versions,
    }
