"""Test whether a coarser number format trains as well as fp32: validation AUROC after equal epochs, paired by seed.

The trainings of a pair have the same images, split, order, augmentation, dropout and first weights. Only the number
format of the passes differs. `bench.speed.equivalence` fixes the number of pairs and decides whether the formats are
equivalent.

A CPU without bf16 computes in it slowly but rounds as other CPUs do. On a CPU a pair is trained on one thread, with
one pair a core at a time.

    python -m bench.speed.precision --data DIR
"""

import argparse
import functools
import math
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.output import machine, show
from bench.speed.equivalence import compare
from mhist_tune.data.cache import load_train
from mhist_tune.data.images import ImageSet
from mhist_tune.data.splits import split_train
from mhist_tune.data.synthesize import synthesize
from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.training.fit import fit
from mhist_tune.training.probe import PRECISIONS
from mhist_tune.worker.devices import n_cores

MARGIN = 0.01
VAL_FRACTION = 0.35  # more than in a search, for less noise in a split's AUROC
N_GENERATED = 600


@dataclass(frozen=True)
class Pair:
    """Two ways to train on the same split of the same images. It is picklable, for the processes that train it."""

    fine: Hyperparameters
    coarse: Hyperparameters
    root: Path
    cache_dir: Path
    device: torch.device

    def aurocs(self, seed: int) -> tuple[float, float]:
        """Return the validation AUROCs after the last epoch of both."""
        parts = split(self.root, self.fine.image_size, self.cache_dir)
        fine, coarse = (self._auroc(hp, parts, seed) for hp in (self.fine, self.coarse))
        sys.stderr.write(f"seed {seed}: {fine:.4f} and {coarse:.4f}\n")
        return fine, coarse

    def _auroc(self, hp: Hyperparameters, parts: tuple[ImageSet, ImageSet], seed: int) -> float:
        result = fit(
            hp,
            *parts,
            seed=seed,
            device=self.device,
            checkpoint=None,
            on_epoch=lambda result: None,
            on_step=lambda n_done, n_images: None,
        )
        return result.history[-1].metrics["val_auroc"] or math.nan


@functools.cache
def split(root: Path, image_size: int, cache_dir: Path) -> tuple[ImageSet, ImageSet]:
    """Return the images to train on and those to validate on."""
    images = load_train(root, image_size=image_size, cache_dir=cache_dir)
    labels = images.labels.numpy().astype(np.int64)
    train, val = split_train(images.votes.numpy(), labels, images.groups, val_fraction=VAL_FRACTION, seed=0)
    return images.take(train), images.take(val)


def aurocs(pair: Pair, seeds: range) -> list[tuple[float, float]]:
    """Return the validation AUROCs of both ways to train, by seed."""
    n_processes = n_cores() if pair.device.type == "cpu" else 1
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_processes, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(pair.aurocs, seeds))


def row(pair: Pair, n_pilot: int) -> dict[str, Any]:
    """Return the row of one number format."""
    hp = pair.fine
    parts = split(pair.root, hp.image_size, pair.cache_dir)
    return {
        "model": f"{hp.model}, {pair.coarse.precision}",
        **compare(functools.partial(aurocs, pair), ("fp32", "coarse"), n_pilot=n_pilot, margin=MARGIN),
        "image_size": hp.image_size,
        "n_train": len(parts[0]),
        "n_val": len(parts[1]),
        "n_epochs": hp.epochs,
        "learning_rate": hp.learning_rate,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="test_vit", help="(default: test_vit)")
    parser.add_argument("--image-size", type=int, default=64, help="(default: 64)")
    parser.add_argument("--n-epochs", type=int, default=6, help="(default: 6)")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="(default: 3e-4)")
    parser.add_argument("--n-pilot", type=int, default=4, help="pairs that estimate the spread (default: 4)")
    parser.add_argument(
        "--precision",
        action="append",
        help="only this format; may be given again (default: all of the device but fp32)",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="images instead of generated ones")
    parser.add_argument("--weights", default="random", metavar="FILE", help="first weights (default: random)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    here = machine()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    hp = Hyperparameters(
        model=arguments.model,
        weights=arguments.weights,
        image_size=arguments.image_size,
        epochs=arguments.n_epochs,
        patience=arguments.n_epochs,
        learning_rate=arguments.learning_rate,
        effective_batch_size=16,
        micro_batch_size=16,
        augmentation="flip_rotate",
        precision="fp32",
        memory_format="contiguous",
        compile="off",
    )
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.data or Path(temporary) / "images"
        if not arguments.data:
            synthesize(root, n_images=N_GENERATED, image_size=arguments.image_size, seed=0)
        split(root, arguments.image_size, Path(temporary))  # decoded once, before several processes need it
        formats = arguments.precision or [name for name in PRECISIONS[device.type] if name != "fp32"]
        pairs = [Pair(hp, replace(hp, precision=name), root, Path(temporary), device) for name in formats]
        rows = [row(pair, arguments.n_pilot) for pair in pairs]
    show(here, rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
