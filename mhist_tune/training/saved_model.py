"""A saved model: weights, preprocessing and threshold in a folder, and its predictions. It needs no study.

`model.json` holds all that `predict` needs. Its `preprocessing` repeats for other programs what the hyperparameters
mean here.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mhist_tune.data import cache
from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.errors import MhistTuneError, UsageError
from mhist_tune.mhist import NEGATIVE_CLASS, POSITIVE_CLASS
from mhist_tune.reading import open_file, read_file
from mhist_tune.training.forward import evaluate, probabilities_of, reproducible
from mhist_tune.training.prediction import trained_model
from mhist_tune.writing import replaced

FORMAT = "mhist-tune model 1"
DESCRIPTION, WEIGHTS, CARD = "model.json", "model.safetensors", "README.md"

_N_AT_ONCE = 256  # images that are decoded at a time: tens of megabytes


@dataclass(frozen=True, eq=False)
class Model:
    """A model as it is read from its folder.

    Attributes:
        hp: resolved.
        threshold: an image counts as SSA when its probability is above it.
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


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights as a safetensors file that only this user may read, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    with replaced(path, is_private=True) as partial:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, partial)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights of a safetensors file, on the CPU.

    Raises:
        OSError: there is no such file.
        SafetensorError: it is damaged.
    """
    return load_file(path)


def load(folder: Path) -> Model:
    """Return the model in a folder.

    Raises:
        UsageError: the folder holds no model, or other weights than were exported.
    """
    not_a_model = UsageError(
        f"{folder} holds no exported model", hint="make one: mhist-tune best-trial NAME --export DIR"
    )
    try:
        description = json.loads(read_file(folder / DESCRIPTION))
        if description["format"] != FORMAT:
            raise not_a_model
        hp, threshold = Hyperparameters.from_dict(description["hyperparameters"]), float(description["threshold"])
        with open_file(folder / WEIGHTS) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != description["weights_sha256"]:
            raise UsageError(f"{folder / WEIGHTS} is not the file that was exported", hint="export the model again")
        return Model(hp, threshold, read_weights(folder / WEIGHTS))
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise not_a_model from error


def predict(model: Model, paths: Sequence[Path], device: torch.device) -> Iterator[Prediction]:
    """Yield a prediction for each image file, in order, decoded, resized and normalized as in training.

    Raises:
        DataError: a file is missing or no image.
        MhistTuneError: the weights do not fit the model that the installed timm builds.
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
            images = cache.read_images(chosen, image_size=model.hp.image_size)
            for path, probability in zip(
                chosen, probabilities_of(evaluate(network, images, model.hp)).tolist(), strict=True
            ):
                yield Prediction(
                    str(path), probability, POSITIVE_CLASS if probability > model.threshold else NEGATIVE_CLASS
                )
