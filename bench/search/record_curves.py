"""Record the learning curves of whole searches without pruning, with the probabilities of every epoch.

A recording trains configurations of a shipped space, spread evenly by a scrambled Sobol sequence, to the end of the
epochs. It trains each three times: with another seed of the training, on another part of the images, validated and
scored on others. Only the train partition is used. Its folds, whole groups each, are dealt so that no image is in the
validation part of one seed and in the truth of another. So a choice made on validation images is scored on images that
no choice depends on.

    python -m bench.search.record_curves generated
    python -m bench.search.record_curves digits
    python -m bench.search.record_curves oscc --data DIR --weights tf_efficientnet_lite0.safetensors

After a stop or a kill the same command resumes. When all trainings are done, it writes one file,
see `bench.search.curves`.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.output import machine
from bench.search import digits
from mhist_tune.code_version import code_version
from mhist_tune.data import cache
from mhist_tune.data.images import ImageSet
from mhist_tune.data.splits import split_folds
from mhist_tune.data.synthesize import synthesize
from mhist_tune.definition import study_file
from mhist_tune.definition.hyperparameters import PROBED
from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.errors import MhistTuneError
from mhist_tune.search.suggestions import suggest
from mhist_tune.seeds import derive_seed
from mhist_tune.training import probe
from mhist_tune.training.fit import fit
from mhist_tune.training.fit_result import Diverged, EpochResult
from mhist_tune.writing import replaced

N_SEEDS = 3
MAX_LOGIT = 60.0
"""Logits are stored, since float16 has few probabilities near 1. A probability of exactly 0 or 1 becomes this one."""


@dataclass(frozen=True)
class Recording:
    """What is recorded.

    Attributes:
        base: a shipped definition.
        overrides: fields of it that are fixed to other values.
        n_folds: folds of the train partition. The last ones are those of validation and truth.
        n_val, n_truth: folds that each seed validates on, and folds of its truth. No two seeds share one.
        n_fit: folds that each seed trains on.
    """

    base: str
    overrides: Mapping[str, str]
    n_folds: int
    n_val: int
    n_truth: int
    n_fit: int


RECORDINGS = {
    # the space of resnet18, with a network, an image size and frozen weights for 2,304 epochs on two CPU cores
    "oscc": Recording(
        "resnet18",
        {
            "model": "tf_efficientnet_lite0",
            "image_size": "40",
            "freeze": "first5",
            "precision": "fp32",
            "memory_format": "channels_last",
        },
        6,
        1,
        1,
        2,
    ),
    "generated": Recording(
        "demo", {"image_size": "32", "precision": "fp32", "memory_format": "contiguous"}, 9, 1, 2, 2
    ),
    "digits": Recording("fcnn", {"image_size": "32", "precision": "fp32", "memory_format": "contiguous"}, 9, 1, 2, 3),
}


@dataclass(frozen=True)
class Parts:
    """The images of one seed, as sorted positions in the train partition."""

    fit: np.ndarray
    val: np.ndarray
    truth: np.ndarray


def deal(recording: Recording, images: ImageSet) -> list[Parts]:
    """Return the parts of each seed. Validation and truth of all seeds are disjoint; each part is of whole groups."""
    folds = split_folds(
        images.votes.numpy(), images.labels.numpy().astype(np.int64), images.groups, n_folds=recording.n_folds, seed=0
    )
    names = list(range(recording.n_folds))
    found = []
    for seed in range(N_SEEDS):
        val = names[seed * recording.n_val :][: recording.n_val]
        truth = names[N_SEEDS * recording.n_val + seed * recording.n_truth :][: recording.n_truth]
        others = [fold for fold in np.roll(names, -seed) if fold not in (*val, *truth)]
        fitted = others[: recording.n_fit]
        found.append(Parts(*(np.sort(np.concatenate([folds[fold] for fold in part])) for part in (fitted, val, truth))))
    return found


def configurations(definition: StudyDefinition, n: int) -> list[dict[str, Any]]:
    """Return n configurations of the space, spread by a scrambled Sobol sequence."""
    sampler = {"name": "qmc", "seed": 0, "scramble": True}
    return [suggest(sampler, number, definition.space, ()) for number in range(n)]


@dataclass(frozen=True)
class Trainer:
    """Trains a configuration with a seed, and keeps each training in a file of its own."""

    recording: str
    definition: StudyDefinition
    images: ImageSet
    parts: list[Parts]
    params: list[dict[str, Any]]
    settings: Mapping[str, Any]
    folder: Path

    def path(self, number: int, seed: int) -> Path:
        """Return the file of one training."""
        return self.folder / f"{number:03d}-{seed}.npz"

    def missing(self) -> list[tuple[int, int]]:
        """Return the configuration and seed of each training that has no file."""
        every = [(number, seed) for number in range(len(self.params)) for seed in range(N_SEEDS)]
        return [one for one in every if not self.path(*one).exists()]

    def train(self, number: int, seed: int) -> None:
        """Train to the last epoch, or until it diverges, and write the file. Missing epochs are NaN."""
        params = self.params[number]
        fields = self.definition.hyperparameters(params).to_dict()
        hp = dataclasses.replace(
            self.definition.hyperparameters(params),
            **{name: self.settings[name] for name in PROBED if name in fields},
            patience=fields["epochs"],
        )
        parts = self.parts[seed]
        scored = np.concatenate([parts.val, parts.truth])
        logits = np.full((hp.epochs, len(scored)), np.nan, dtype=np.float16)
        losses, seconds = np.full((2, hp.epochs), np.nan, dtype=np.float32)

        def keep(result: EpochResult) -> None:
            assert result.probabilities is not None  # with at="last" every epoch is the one that counts so far
            logits[result.epoch - 1] = to_logits(result.probabilities)
            losses[result.epoch - 1] = result.metrics["train_loss"]
            seconds[result.epoch - 1] = result.metrics["elapsed_s"]

        try:
            fit(
                hp,
                self.images.take(parts.fit),
                self.images.take(scored),
                seed=derive_seed(seed, "train", number),
                device=torch.device("cpu"),
                checkpoint=None,
                on_epoch=keep,
                on_step=lambda done, total: None,
                score="mean_f1",
                at="last",
            )
        except Diverged as diverged:
            sys.stderr.write(f"{number}-{seed}: {diverged}\n")
        with replaced(self.path(number, seed)) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                val=logits[:, : len(parts.val)],
                truth=logits[:, len(parts.val) :],
                train_loss=losses,
                seconds=seconds,
            )

    def write(self, path: Path, header: Mapping[str, Any]) -> None:
        """Write all trainings as one file."""
        arrays: dict[str, np.ndarray] = {}
        for seed, parts in enumerate(self.parts):
            files = [np.load(self.path(number, seed)) for number in range(len(self.params))]
            for name in ("val", "truth", "train_loss", "seconds"):
                arrays[f"{name}_{seed}"] = np.stack([file[name] for file in files])
            for name in ("fit", "val", "truth"):
                arrays[f"{name}_images_{seed}"] = getattr(parts, name).astype(np.int16)
        arrays["labels"] = self.images.labels.numpy().astype(np.int8)
        arrays["votes"] = self.images.votes.numpy().astype(np.int8)
        groups = self.images.groups or self.images.names
        arrays["groups"] = np.unique(groups, return_inverse=True)[1].astype(np.int16)
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **arrays)


def to_logits(probabilities: np.ndarray) -> np.ndarray:
    """Return the log odds of probabilities."""
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities) - np.log1p(-probabilities)
    return np.clip(logits, -MAX_LOGIT, MAX_LOGIT)


def open_trainer(arguments: argparse.Namespace) -> Trainer:
    """Load the images and the settings of a recording. The settings are measured once and kept."""
    recording = RECORDINGS[arguments.recording]
    storage = arguments.storage.resolve()
    overrides = {**recording.overrides, "epochs": str(arguments.epochs)}
    definition = study_file.load(recording.base, overrides=overrides, weights=arguments.weights)
    folder = storage / arguments.recording
    folder.mkdir(parents=True, exist_ok=True)
    hp = definition.hyperparameters(definition.default_params())
    settings_path = folder / "settings.json"
    if not settings_path.exists():
        measured = probe.measure(hp, torch.device("cpu"), definition.space)
        with replaced(settings_path) as partial:
            partial.write_text(json.dumps({**measured, "machine": machine()}))
    return Trainer(
        arguments.recording,
        definition,
        images := cache.load_train(_data(arguments, storage), image_size=hp.image_size, cache_dir=storage / "cache"),
        deal(recording, images),
        configurations(definition, arguments.n_configurations),
        json.loads(settings_path.read_text()),
        folder,
    )


def header(trainer: Trainer, data: Path) -> dict[str, Any]:
    """Return what a file says about its recording."""
    tables = trainer.definition.resolved()
    return {
        "recording": trainer.recording,
        "base": RECORDINGS[trainer.recording].base,
        "space": tables["space"],
        "fixed": {**tables["fixed"], "weights": Path(tables["fixed"]["weights"]).name},
        "params": trainer.params,
        "n_seeds": N_SEEDS,
        "dataset_fingerprint": cache.fingerprint(data),
        "code_version": code_version(),
        "settings": {name: trainer.settings[name] for name in (*PROBED, "machine")},
    }


def _data(arguments: argparse.Namespace, storage: Path) -> Path:
    data: Path = arguments.data or storage / f"{arguments.recording}-images"
    if not arguments.data and not (data / "annotations.csv").exists():
        if arguments.recording == "digits":
            digits.write(data, seed=0)
        else:
            synthesize(data, n_images=1200, image_size=64, seed=0)
    return data


def _work(arguments: argparse.Namespace, is_last_first: bool) -> None:
    torch.set_num_threads(1)
    trainer = open_trainer(arguments)
    for number, seed in _in_turn(trainer, is_last_first):
        trainer.train(number, seed)
        sys.stderr.write(f"{number}-{seed} of {len(trainer.params)}, {len(trainer.missing())} missing\n")


def _in_turn(trainer: Trainer, is_last_first: bool) -> Iterator[tuple[int, int]]:
    """Yield what is missing, from the front or from the back, until two processes meet."""
    while missing := trainer.missing():
        if is_last_first and len(missing) == 1:
            return
        yield missing[-1 if is_last_first else 0]


def main() -> None:
    """Record or resume recording, and write the file when all trainings are done."""
    arguments = _arguments()
    trainer = open_trainer(arguments)
    processes = [
        multiprocessing.get_context("spawn").Process(target=_work, args=(arguments, bool(index)))
        for index in range(arguments.processes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if not trainer.missing():
        data = _data(arguments, arguments.storage.resolve())
        trainer.write(arguments.output / f"{arguments.recording}.npz", header(trainer, data))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", choices=RECORDINGS)
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="a data set in MHIST's layout; `generated` and `digits` make theirs"
    )
    parser.add_argument("--weights", metavar="FILE", help=".safetensors file to start from")
    parser.add_argument(
        "--n-configurations", type=int, default=64, metavar="N", help="a power of 2 is spread most evenly"
    )
    parser.add_argument("--epochs", type=int, default=12, metavar="N")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), choices=(1, 2), metavar="N")
    parser.add_argument("--storage", type=Path, default=Path("storage/curves"), metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "curves", metavar="DIR")
    arguments = parser.parse_args()
    if arguments.recording == "oscc" and not arguments.data:
        parser.error("oscc needs --data")
    return arguments


if __name__ == "__main__":
    try:
        main()
    except MhistTuneError as error:
        sys.exit(f"error: {error}" + (f"\n  hint: {error.hint}" if error.hint else ""))
