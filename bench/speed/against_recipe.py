"""Compare this package with a plain training script, `recipe`: how much faster it trains, and whether as well.

Both train the same model from random weights, with the same images and split, batch size, augmentation, optimizer,
learning rate and number of epochs. Both validate after each epoch. Ours also writes checkpoints and records and renews
leases. The recipe has PyTorch's defaults and two loader workers. Ours has the precision and memory format that its
probe chooses here. They take turns, a trial each, after an epoch of each to warm up. Rows, with the median over the
turns:

- a model's name: epochs per hour of ours, by `fit` with all cores, over those of the recipe;
- `trials, ...`: finished trials per hour of the whole machine, ours by `mhist-tune worker --devices cpu` (a process
  for each core, timed from the first trial's start to the last one's end), over those of the recipe's
  `study.optimize`;
- `AUROC, ...`: the validation AUROC of ours after equal epochs less the recipe's, on small images, over as many seeds
  as the pilot pairs ask for (`bench.speed.equivalence`). Its 90% interval should lie within .02.

`at_most` is what the first two ratios would be if convolutions and products of matrices, forward and backward, ran as
fast as the product of two large matrices does here in our number format, and everything else took no time.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.flop_counter import FlopCounterMode

from bench.output import machine, show
from bench.speed import recipe
from bench.speed.equivalence import compare
from mhist_tune.actions import create
from mhist_tune.data.annotations import read_annotations
from mhist_tune.data.cache import load_train
from mhist_tune.data.images import ImageSet
from mhist_tune.data.splits import split_train
from mhist_tune.data.synthesize import synthesize
from mhist_tune.definition import study_file
from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.events import StopRequest
from mhist_tune.storage.database import open_storage
from mhist_tune.training.checkpoints.store import CheckpointStore
from mhist_tune.training.checkpoints.writer import CheckpointWriter
from mhist_tune.training.fit import fit
from mhist_tune.training.fit_result import EpochResult
from mhist_tune.training.forward import AUTOCAST
from mhist_tune.training.models import create_model
from mhist_tune.training.probe import product_s, resolve
from mhist_tune.worker.devices import parse_devices
from mhist_tune.worker.options import WorkerOptions
from mhist_tune.worker.supervisor import run_workers

LEARNING_RATE = 3e-4
VAL_FRACTION = 0.2
AUROC_GOAL = 0.02
PRODUCT_SIZE = 2048
DEVICE = torch.device("cpu")  # the recipe uses it too


@dataclass(frozen=True)
class Setting:
    """A model, with a number of train images (validation included) for turns of about a minute."""

    model: str
    image_size: int
    batch_size: int
    n_images: int
    n_epochs: int
    goal: float
    goal_with_bf16: float
    trials_goal: float | None = None


SETTINGS = {
    setting.model: setting
    for setting in (
        Setting("resnet18", 224, 32, 160, 2, 2.0, 3.0, trials_goal=3.5),
        Setting("vit_base_patch16_224", 224, 8, 40, 1, 2.0, 2.0),
        Setting("vit_small_patch14_dinov2", 224, 16, 80, 1, 2.0, 2.0),
        Setting("test_vit", 160, 32, 160, 2, 2.0, 2.0),
    )
}
DEFAULT = ("resnet18", "vit_base_patch16_224", "vit_small_patch14_dinov2")
EQUIVALENCE = Setting("test_vit", 64, 16, 600, 6, AUROC_GOAL, AUROC_GOAL)
DEFINITION = """
[study]
name = "{name}"
n_trials = {n_trials}
pruner = {{ name = "none" }}
sampler = {{ name = "random", seed = 0 }}
val_fraction = {val_fraction}

[fixed]
{fixed}

[space]
learning_rate = {{ low = {learning_rate}, high = {higher}, log = true }}
"""


class BothWays:
    """Both ways to train one setting on the same split of the train partition below `root`; states go to `folder`."""

    def __init__(self, setting: Setting, root: Path, folder: Path) -> None:
        self.setting, self.root, self.folder = setting, root, folder
        self.hp = resolve(
            Hyperparameters(
                model=setting.model,
                weights="random",
                image_size=setting.image_size,
                epochs=setting.n_epochs,
                patience=setting.n_epochs,
                learning_rate=LEARNING_RATE,
                effective_batch_size=setting.batch_size,
                micro_batch_size=setting.batch_size,
                augmentation="flip_rotate",
            ),
            DEVICE,
        )
        images = load_train(root, image_size=setting.image_size, cache_dir=folder / "cache")
        labels = images.labels.numpy().astype(np.int64)
        parts = split_train(images.votes.numpy(), labels, images.groups, val_fraction=VAL_FRACTION, seed=0)
        annotations = read_annotations(root, "train")
        paths = dict(zip(annotations.names, annotations.paths, strict=True))
        self.ours: list[ImageSet] = [images.take(part) for part in parts]
        self.theirs = [
            ([paths[name] for name in part.names], [int(label) for label in part.labels]) for part in self.ours
        ]

    def recipe(self, seed: int, n_epochs: int) -> tuple[float, list[float], list[float]]:
        """Return the seconds of a trial of the recipe, those of its epochs, and their validation AUROCs."""
        setting = self.setting
        settings = recipe.Settings(setting.model, setting.image_size, setting.batch_size, n_epochs, LEARNING_RATE)
        ends, aurocs = [time.perf_counter()], list[float]()

        def on_epoch(auroc: float) -> None:
            ends.append(time.perf_counter())
            aurocs.append(auroc)

        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=seed))
        train, val = self.theirs
        study.optimize(recipe.objective(train, val, settings, seed, on_epoch), n_trials=1)
        return time.perf_counter() - ends[0], np.diff(ends).tolist(), aurocs

    def fit(self, seed: int, n_epochs: int) -> tuple[list[float], list[float]]:
        """Return the seconds of our epochs and their validation AUROCs."""
        ends, aurocs = [time.perf_counter()], list[float]()

        def on_epoch(result: EpochResult) -> None:
            ends.append(time.perf_counter())
            aurocs.append(result.metrics["val_auroc"] or math.nan)

        writer = CheckpointWriter(CheckpointStore(self.folder / "checkpoints"), f"{self.setting.model}-{seed}", 1)
        fit(
            replace(self.hp, epochs=n_epochs, patience=n_epochs),
            *self.ours,
            seed=seed,
            device=DEVICE,
            checkpoint=writer,
            on_epoch=on_epoch,
            on_step=lambda n_done, n_images: None,
        )
        writer.discard()
        return np.diff(ends).tolist(), aurocs

    def least_s(self) -> float:
        """Return the seconds of an epoch if only convolutions and products of matrices took time."""
        model = create_model(self.hp).train()
        images = torch.zeros(2, 3, self.setting.image_size, self.setting.image_size)
        with FlopCounterMode(display=False) as training:
            binary_cross_entropy_with_logits(model(images).reshape(-1), torch.zeros(2)).backward()
        with torch.inference_mode(), FlopCounterMode(display=False) as evaluation:
            model(images)
        train, val = self.ours
        flops = training.get_total_flops() * len(train) / 2 + evaluation.get_total_flops() * len(val) / 2
        return flops / product_flops_per_s(AUTOCAST.get(self.hp.precision, torch.float32))

    def workers(self, turn: int) -> float:
        """Return the seconds that real workers take for each trial, with as many trials as there are workers."""
        devices = parse_devices("cpu", None)
        name, url = f"turn-{turn}", f"sqlite:///{self.folder}/storage.db"
        hp = {
            name: value for name, value in self.hp.to_dict().items() if name not in ("learning_rate", "model_options")
        }
        text = DEFINITION.format(
            name=name,
            n_trials=len(devices),
            val_fraction=VAL_FRACTION,
            fixed="\n".join(f"{key} = {json.dumps(value)}" for key, value in hp.items()),
            learning_rate=LEARNING_RATE,
            higher=1.01 * LEARNING_RATE,
        )
        with open_storage(url) as storage:
            create.create(storage, study_file.parse(text, name), self.root)
        times: dict[str, list[float]] = {"trial": [], "done": []}

        def emit(event: str, /, **fields: Any) -> None:
            times.get(event, []).append(time.perf_counter())

        run_workers(WorkerOptions(url, self.root, name), devices, emit, StopRequest())
        return (max(times["done"]) - min(times["trial"])) / len(devices)


def product_flops_per_s(number_format: torch.dtype) -> float:
    """Return the floating point operations a second of this machine's fastest large product."""
    return 2 * PRODUCT_SIZE**3 / product_s(torch.rand(PRODUCT_SIZE, PRODUCT_SIZE).to(number_format))


def conditions(setting: Setting, ways: BothWays) -> dict[str, Any]:
    """Return the conditions of the training, which every row repeats."""
    return {
        "image_size": setting.image_size,
        "precision": ways.hp.precision,
        "memory_format": ways.hp.memory_format,
        "n_train": len(ways.ours[0]),
        "n_val": len(ways.ours[1]),
        "n_epochs": setting.n_epochs,
    }


def speed(setting: Setting, ways: BothWays, n_rounds: int, *, has_bf16: bool) -> list[dict[str, Any]]:
    """Let both ways take turns; return the rows of epochs and, if there is a goal for them, of trials."""
    ways.recipe(n_rounds, 1)
    ways.fit(n_rounds, 1)
    turns = []
    for turn in range(n_rounds):
        trial_s, recipe_s, _ = ways.recipe(turn, setting.n_epochs)
        ours_s, _ = ways.fit(turn, setting.n_epochs)
        worker_s = math.nan if setting.trials_goal is None else ways.workers(turn)
        turns.append((statistics.median(recipe_s), statistics.median(ours_s), trial_s, worker_s))
    common = {**conditions(setting, ways), "n_rounds": n_rounds}
    least_s = ways.least_s()
    rows = [(setting.model, 0, 1, least_s, setting.goal_with_bf16 if has_bf16 else setting.goal)]
    if setting.trials_goal is not None:
        rows.append((f"trials, {setting.model}", 2, 3, setting.n_epochs * least_s, setting.trials_goal))
    return [
        {
            "model": name,
            "recipe": statistics.median(turn[theirs] for turn in turns),
            "ours": statistics.median(turn[ours] for turn in turns),
            "unit": "s",
            "ratio": statistics.median(turn[theirs] / turn[ours] for turn in turns),
            "goal": goal,
            "at_most": statistics.median(turn[theirs] for turn in turns) / least_s,
            **common,
        }
        for name, theirs, ours, least_s, goal in rows
    ]


def equivalence(setting: Setting, ways: BothWays, n_pilot: int) -> dict[str, Any]:
    """Train both ways seed by seed, and return the row that compares the AUROCs after the last epoch."""

    def train(seeds: range) -> list[tuple[float, float]]:
        n_epochs = setting.n_epochs
        return [(ways.recipe(seed, n_epochs)[2][-1], ways.fit(seed, n_epochs)[1][-1]) for seed in seeds]

    return {
        "model": f"AUROC, {setting.model}",
        **compare(train, ("recipe", "ours"), n_pilot=n_pilot, margin=setting.goal),
        **conditions(setting, ways),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SETTINGS, action="append", help="only this one; may be given again")
    parser.add_argument("--n-images", type=int, help="train images of each model, validation included")
    parser.add_argument("--n-epochs", type=int, help="epochs of a turn")
    parser.add_argument("--n-rounds", type=int, default=3, help="turns (default: 3)")
    parser.add_argument(
        "--n-pilot", type=int, default=8, help="pilot pairs for the AUROC, 0 to leave it out (default: 8)"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="images for the AUROC instead of generated ones")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    if arguments.n_rounds < 0 or arguments.n_pilot == 1 or arguments.n_pilot < 0:
        parser.error("--n-rounds must be at least 0, --n-pilot 0 or at least 2")
    return arguments


def _generated(folder: Path, n_train: int, image_size: int) -> Path:
    """Generate a data set with about this many train images, two thirds of all images."""
    synthesize(folder, n_images=max(24, min(3152, 3 * n_train // 2)), image_size=image_size, seed=0)
    return folder


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    here, rows = machine(), list[dict[str, Any]]()
    changes = {name: getattr(arguments, name) for name in ("n_images", "n_epochs") if getattr(arguments, name)}
    with tempfile.TemporaryDirectory() as temporary:
        for name in (arguments.model or DEFAULT) if arguments.n_rounds else ():
            sys.stderr.write(f"measuring {name}\n")
            setting, folder = replace(SETTINGS[name], **changes), Path(temporary) / name
            root = _generated(folder / "images", setting.n_images, setting.image_size)
            rows += speed(setting, BothWays(setting, root, folder), arguments.n_rounds, has_bf16=has_bf16())
        if arguments.n_pilot:
            sys.stderr.write("comparing validation AUROCs\n")
            setting, folder = replace(EQUIVALENCE, **changes), Path(temporary) / "equivalence"
            root = arguments.data or _generated(folder / "images", setting.n_images, setting.image_size)
            rows.append(equivalence(setting, BothWays(setting, root, folder), arguments.n_pilot))
    show(here, rows, as_json=arguments.json)


def has_bf16() -> bool:
    """Return whether the CPU computes in bf16, by its flags."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    return "amx_bf16" in text or "avx512_bf16" in text


if __name__ == "__main__":
    main()
