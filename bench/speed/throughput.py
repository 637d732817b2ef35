"""Measure images per second of real training epochs, over those of the bare training step on resident random tensors.

A real epoch is `mhist_tune.training.fit.fit` with all work of a study: random oversampling, augmentation,
micro-batches,
reporting and checkpoints, but no validation. The bare step is forward, loss, backward and optimizer of the same model,
batch size, precision and determinism on one batch that never changes. No training can be faster.

Both take turns in one process, an epoch each, after one epoch each to warm up. `ratio` is the median over the turns.
Random weights and generated images take the same time as real ones.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from bench import output
from mhist_tune.data.cache import load_train
from mhist_tune.data.images import ImageSet
from mhist_tune.data.synthesize import synthesize
from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.training.checkpoints.store import CheckpointStore
from mhist_tune.training.checkpoints.writer import CheckpointWriter
from mhist_tune.training.fit import fit
from mhist_tune.training.fit_result import EpochResult
from mhist_tune.training.forward import MEMORY_FORMATS, ready
from mhist_tune.training.freeze import set_training
from mhist_tune.training.models import create_model
from mhist_tune.training.optimizer import build_optimizer
from mhist_tune.training.probe import resolve


@dataclass(frozen=True)
class Setting:
    """A measurement, and the lowest ratio that meets its goal."""

    model: str
    image_size: int
    batch_size: int
    goal: float


SETTINGS = {
    setting.model: setting
    for setting in (
        Setting("resnet18", 224, 32, 0.95),
        Setting("vit_small_patch14_dinov2", 112, 32, 0.95),
        Setting("test_vit", 160, 32, 0.90),
    )
}


@dataclass(frozen=True)
class Result:
    """One row; rates in images per second are medians over the turns."""

    model: str
    image_size: int
    batch_size: int
    precision: str
    memory_format: str
    compile: str
    n_images: int
    n_rounds: int
    fit_images_per_s: float
    bare_images_per_s: float
    ratio: float
    goal: float
    peak_memory_gb: float


class _EnoughError(Exception):
    """The last turn is over."""


def hyperparameters(setting: Setting, **options: Any) -> Hyperparameters:
    """Return the hyperparameters of a setting, with random weights by default."""
    return Hyperparameters(
        model=setting.model,
        image_size=setting.image_size,
        effective_batch_size=setting.batch_size,
        micro_batch_size=setting.batch_size,
        sampling="random_over",
        augmentation="flip_rotate",
        **{"weights": "random"} | options,
    )


def measure(
    setting: Setting, images: ImageSet, *, n_rounds: int, device: torch.device, folder: Path, **options: Any
) -> Result:
    """Measure one setting on `images`, which all have its size; checkpoints go to `folder`.

    Number format, memory order and compiling are probed where the options leave them open.
    """
    # One epoch warms up. One is never reached, since the last epoch always saves.
    hp = resolve(hyperparameters(setting, epochs=n_rounds + 2, **options), device)
    bare: list[Callable[[int], float]] = []
    peak_bytes = 0.0
    fit_rates: list[float] = []
    bare_rates: list[float] = []
    n_in_epoch = 0
    started = time.perf_counter()

    def on_step(n_done: int, n_images: int) -> None:
        nonlocal n_in_epoch
        n_in_epoch = n_images

    def on_epoch(result: EpochResult) -> None:
        nonlocal started, peak_bytes
        fit_rates.append(n_in_epoch / (time.perf_counter() - started))
        if not bare:  # made here, so that its memory does not count for the first epoch
            peak_bytes = result.metrics["peak_memory_bytes"] or 0.0
            bare.append(bare_epoch(hp, device))
        bare_rates.append(bare[0](n_in_epoch))
        if result.epoch > n_rounds:
            raise _EnoughError
        started = time.perf_counter()

    checkpoint = CheckpointWriter(CheckpointStore(folder), setting.model, 1, shares_cores=device.type == "cpu")
    with contextlib.suppress(_EnoughError):
        fit(hp, images, None, seed=0, device=device, checkpoint=checkpoint, on_epoch=on_epoch, on_step=on_step)
    ratios = [real / bare for real, bare in zip(fit_rates[1:], bare_rates[1:], strict=True)]
    return Result(
        model=setting.model,
        image_size=setting.image_size,
        batch_size=setting.batch_size,
        precision=hp.precision,
        memory_format=hp.memory_format,
        compile=hp.compile,
        n_images=n_in_epoch,
        n_rounds=n_rounds,
        fit_images_per_s=statistics.median(fit_rates[1:]),
        bare_images_per_s=statistics.median(bare_rates[1:]),
        ratio=statistics.median(ratios),
        goal=setting.goal,
        peak_memory_gb=peak_bytes / 1e9,
    )


def bare_epoch(hp: Hyperparameters, device: torch.device) -> Callable[[int], float]:
    """Return a function that trains on about the given number of images and returns images per second."""
    model = ready(create_model(hp), hp, device)
    set_training(model)
    optimizer = build_optimizer(model, hp)
    scaler = torch.amp.GradScaler(device.type, enabled=hp.precision == "fp16")
    number_format = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(hp.precision, torch.float32)
    logits_of = torch.compile(model, dynamic=False) if hp.compile == "on" else model
    images = torch.randn(hp.micro_batch_size, 3, hp.image_size, hp.image_size, device=device).contiguous(
        memory_format=MEMORY_FORMATS[hp.memory_format]
    )
    labels = (torch.arange(hp.micro_batch_size, device=device) % 2).float()

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def run(n_images: int) -> float:
        n_steps = max(1, round(n_images / hp.micro_batch_size))
        synchronize()
        started = time.perf_counter()
        for _ in range(n_steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, number_format, enabled=number_format is not torch.float32):
                logits = logits_of(images).reshape(-1)
            scaler.scale(binary_cross_entropy_with_logits(logits.float(), labels)).backward()
            scaler.step(optimizer)
            scaler.update()
        synchronize()
        return n_steps * hp.micro_batch_size / (time.perf_counter() - started)

    return run


def balanced_epoch(images: ImageSet, n_images: int) -> ImageSet:
    """Return images, a third of the rarer class, that random oversampling turns into an epoch of `n_images`."""
    labels = images.labels.numpy()
    common, rare = sorted((np.flatnonzero(labels == label) for label in (0, 1)), key=len, reverse=True)
    n_common, n_rare = n_images // 2, n_images // 4
    if len(common) < n_common or len(rare) < n_rare:
        sys.exit(f"error: an epoch of {n_images} needs {n_common} and {n_rare} train images of the two classes")
    return images.take(np.sort(np.concatenate([common[:n_common], rare[:n_rare]])))


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the machine of the numbers."""
    return {
        **output.machine(),
        "n_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SETTINGS, action="append", help="only this one; may be given again")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="a data set in MHIST's layout instead of a generated one"
    )
    parser.add_argument("--weights", default="random", metavar="FILE", help=".safetensors file of the one model")
    parser.add_argument("--n-images", type=int, default=256, help="images in an epoch, a multiple of 32 (default: 256)")
    parser.add_argument("--n-rounds", type=int, default=5, help="turns that are counted (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    if arguments.n_images < 32 or arguments.n_images % 32 or arguments.n_rounds < 1:
        parser.error("--n-images must be a multiple of 32 and --n-rounds at least 1")
    if arguments.weights != "random" and len(arguments.model or []) != 1:
        parser.error("--weights needs one --model")
    return arguments


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before, results = machine(device), []
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.data or Path(temporary) / "images"
        if not arguments.data:
            root.mkdir()
            # Twice the epoch, for enough images of the rarer class after MHIST's shares of partitions and classes.
            synthesize(root, n_images=max(96, min(3152, 2 * arguments.n_images)), image_size=224, seed=0)
        for name in arguments.model or SETTINGS:
            setting = SETTINGS[name]
            sys.stderr.write(f"measuring {name} at {setting.image_size} px on {device}\n")
            images = load_train(root, image_size=setting.image_size, cache_dir=Path(temporary) / "cache")
            result = measure(
                setting,
                balanced_epoch(images, arguments.n_images),
                weights=arguments.weights,
                n_rounds=arguments.n_rounds,
                device=device,
                folder=Path(temporary) / "checkpoints",
            )
            results.append(result)
    output.show(before, [asdict(result) for result in results], as_json=arguments.json)


if __name__ == "__main__":
    main()
