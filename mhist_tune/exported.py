"""A model outside its study: a folder with its weights, its preprocessing, its threshold and a model card.

`model.json` holds all that `predict` needs; `preprocessing` in it repeats in words and numbers, for other programs,
what follows from the hyperparameters here.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from mhist_tune import dataset, evidence, kept_weights, model_card, report, studies
from mhist_tune.dataset import NEGATIVE_CLASS, POSITIVE_CLASS
from mhist_tune.errors import MhistTuneError, UsageError
from mhist_tune.forward import evaluate, probabilities_of, reproducible
from mhist_tune.hyperparameters import Hyperparameters
from mhist_tune.models import input_statistics
from mhist_tune.storage import Storage
from mhist_tune.train import trained_model

FORMAT = "mhist-tune model 1"
DESCRIPTION, WEIGHTS, CARD = "model.json", "model.safetensors", "README.md"

_N_AT_ONCE = 256  # images decoded at a time: a few ten megabytes


@dataclass(frozen=True, eq=False)
class Model:
    """An exported model.

    Attributes:
        hp: resolved.
        threshold: an image is called SSA when its probability is above it.
        weights: on the CPU.
    """

    hp: Hyperparameters
    threshold: float
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class Prediction:
    """One image's probability of SSA, and its class at the model's threshold."""

    image_name: str
    probability: float
    predicted: str


def write(storage: Storage, study_name: str, folder: Path) -> dict[str, Any]:
    """Write the retrained model that the report is about, its first seed, and return its description.

    Raises:
        StudyNotFoundError: no such study.
        UsageError: nothing is retrained, its weights are not here, or the folder cannot be written.
    """
    found = evidence.load(storage, study_name)
    document = report.build(storage, study_name)
    payload = {**found.payload, "seed": kept_weights.SEED}
    path = kept_weights.path_of(storage, found.study, payload)
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the weights of trial {payload['trial']} of {study_name}, seed {payload['seed']}, are not at {path}",
            hint="export where that seed was trained, or train it once more: "
            f"mhist-tune verify {study_name} --data DIR",
        ) from error
    description = _describe(document, studies.hyperparameters(found.study, payload["params"]), payload, weights)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WEIGHTS).write_bytes(weights)
        (folder / CARD).write_text(model_card.render(document, description), encoding="utf-8")
        text = json.dumps(description, indent=2, allow_nan=False)
        (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write the model into {folder}: {error.strerror}", hint="choose another folder"
        ) from error
    return description


def load(folder: Path) -> Model:
    """Return the model of a folder.

    Raises:
        UsageError: it is not the folder of a model, or its weights are not those that were exported.
    """
    not_a_model = UsageError(
        f"{folder} holds no exported model", hint="make one: mhist-tune best-trial NAME --export DIR"
    )
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise not_a_model
        hp, threshold = Hyperparameters.from_dict(description["hyperparameters"]), float(description["threshold"])
        if _sha256((folder / WEIGHTS).read_bytes()) != description["weights_sha256"]:
            raise UsageError(f"{folder / WEIGHTS} is not the file that was exported", hint="export the model again")
        return Model(hp, threshold, kept_weights.read(folder / WEIGHTS))
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise not_a_model from error


def predict(model: Model, paths: Sequence[Path], device: torch.device) -> Iterator[Prediction]:
    """Yield a prediction for each image file, in order; decoding, resizing and normalizing are those of training.

    Raises:
        DataError: a file is missing or no image.
        MhistTuneError: the weights do not fit the model, as another version of timm builds it.
    """
    with reproducible(model.hp, device):
        try:
            network = trained_model(model.weights, model.hp, device)
        except RuntimeError as error:
            raise MhistTuneError(
                f"the weights do not fit {model.hp.model}: {str(error).splitlines()[0]}",
                hint="install the version of timm that model.json names",
            ) from error
        for start in range(0, len(paths), _N_AT_ONCE):
            chosen = paths[start : start + _N_AT_ONCE]
            images = dataset.read_images(chosen, image_size=model.hp.image_size)
            for path, probability in zip(
                chosen, probabilities_of(evaluate(network, images, model.hp)).tolist(), strict=True
            ):
                yield Prediction(
                    str(path), probability, POSITIVE_CLASS if probability > model.threshold else NEGATIVE_CLASS
                )


def _describe(
    document: Mapping[str, Any], hp: Hyperparameters, payload: Mapping[str, Any], weights: bytes
) -> dict[str, Any]:
    held_out, (mean, std) = document["held_out"], input_statistics(hp)
    return {
        "format": FORMAT,
        "study": document["study"],
        "trial": payload["trial"],
        "seed": payload["seed"],
        "definition_sha256": document["definition_sha256"],
        "weights_sha256": _sha256(weights),
        "positive_class": POSITIVE_CLASS,
        "negative_class": NEGATIVE_CLASS,
        "threshold": held_out["threshold"] if held_out else 0.5,
        "threshold_source": held_out["source"] if held_out else "0.5, since no validation predictions are stored",
        "preprocessing": {
            "image_size": hp.image_size,
            "resize": "to a square, bicubic, antialiased (Pillow)",
            "scale": "uint8 divided by 255",
            "mean": list(mean),
            "std": list(std),
        },
        "hyperparameters": hp.to_dict(),
        "versions": document["versions"],
    }


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
