"""Whether a coarser number format trains as well as fp32: validation AUROC after equal epochs, paired by seed.

Same images, split, order, augmentation, dropout and first weights for each pair; only the number format of the passes
differs. A few pilot pairs tell how much the difference of a pair varies; from that follows how many further pairs are
trained, so many that two formats that are equal are shown to be within the margin with a chance of 90%. The pilot's are
not used again. `ratio` is the bound of the 90% interval of the mean difference that is farther from zero: at or below
`goal` the formats are equivalent at 5% (two one-sided t tests, Schuirmann 1987).

A CPU without bf16 computes it slowly but rounds as others do. On a CPU a pair is trained on one thread, as many at a
time as there are cores.

    python bench/precision.py --data DIR
"""

import argparse
import functools
import math
import multiprocessing
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from output import machine, show
from scipy.stats import chi2, t

from mhist_tune.dataset import ImageSet, load_train
from mhist_tune.devices import n_cores
from mhist_tune.hyperparameters import Hyperparameters
from mhist_tune.probe import PRECISIONS
from mhist_tune.splits import split_train
from mhist_tune.synthesize import synthesize
from mhist_tune.train import fit

MARGIN = 0.01
LEVEL, POWER, PILOT_LEVEL = 0.05, 0.9, 0.8
VAL_FRACTION = 0.35  # more than a search takes, so that the AUROC of a split says more
MIN_PAIRS = 4
N_GENERATED = 600


@dataclass(frozen=True)
class Pair:
    """Two ways to train on the same split of the same images; picklable, for processes that train it."""

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


def differences(pair: Pair, seeds: range, n_processes: int) -> tuple[list[float], list[float]]:
    """Return the AUROCs of the finer way to train, by seed, and what those of the coarser one are more."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_processes, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        pairs = list(pool.map(pair.aurocs, seeds))
    return [fine for fine, _ in pairs], [coarse - fine for fine, coarse in pairs]


def n_pairs(pilot: list[float]) -> int:
    """Return how many pairs show equivalence with the wanted power, for the differences of pilot pairs.

    That of two one-sided t tests when the true difference is zero: the least n with
    n >= (s (t(1 - level) + t((1 + power) / 2)) / margin)^2, both quantiles with n - 1 degrees of freedom. A few pairs
    tell the standard deviation badly, so s is the upper end of its one-sided 80% interval (Browne 1995).

    >>> n_pairs([0.0, 0.01, 0.01, 0.02])
    24
    """
    freedom = len(pilot) - 1
    deviation = statistics.stdev(pilot) * math.sqrt(freedom / chi2.ppf(1 - PILOT_LEVEL, freedom))
    n = MIN_PAIRS
    while n < (deviation * (t.ppf(1 - LEVEL, n - 1) + t.ppf((1 + POWER) / 2, n - 1)) / MARGIN) ** 2:
        n += 1
    return n


def compare(pair: Pair, n_pilot: int) -> dict[str, Any]:
    """Train the pilot pairs and as many more as they ask for, and return the row of one number format."""
    hp, precision = pair.fine, pair.coarse.precision
    n_processes = n_cores() if pair.device.type == "cpu" else 1
    _, pilot = differences(pair, range(n_pilot), n_processes)
    n_seeds = n_pairs(pilot)
    sys.stderr.write(f"{precision}: {n_seeds} pairs after {n_pilot} pilot pairs\n")
    fine, found = differences(pair, range(n_pilot, n_pilot + n_seeds), n_processes)
    mean, error = statistics.mean(found), statistics.stdev(found) / math.sqrt(n_seeds)
    parts = split(pair.root, hp.image_size, pair.cache_dir)
    half = float(t.ppf(1 - LEVEL, n_seeds - 1)) * error
    return {
        "model": f"{hp.model}, {precision}",
        "fp32": statistics.mean(fine),
        "difference": mean,
        "low": mean - half,
        "high": mean + half,
        "unit": "AUROC",
        "ratio": max(abs(mean - half), abs(mean + half)),
        "goal": MARGIN,
        "image_size": hp.image_size,
        "n_train": len(parts[0]),
        "n_val": len(parts[1]),
        "n_epochs": hp.epochs,
        "learning_rate": hp.learning_rate,
        "n_seeds": n_seeds,
        "pilot_deviation": statistics.stdev(pilot),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="test_vit", help="(default: test_vit)")
    parser.add_argument("--image-size", type=int, default=64, help="(default: 64)")
    parser.add_argument("--n-epochs", type=int, default=6, help="(default: 6)")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="(default: 3e-4)")
    parser.add_argument("--n-pilot", type=int, default=4, help="pairs that tell the spread (default: 4)")
    parser.add_argument("--precision", action="append", help="instead of all but fp32 that the device has")
    parser.add_argument("--data", type=Path, metavar="DIR", help="images instead of generated ones")
    parser.add_argument("--weights", default="random", metavar="FILE", help="to start from (default: random)")
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
        split(root, arguments.image_size, Path(temporary))  # decoded once, before several processes want it
        formats = arguments.precision or [name for name in PRECISIONS[device.type] if name != "fp32"]
        pairs = [Pair(hp, replace(hp, precision=name), root, Path(temporary), device) for name in formats]
        rows = [compare(pair, arguments.n_pilot) for pair in pairs]
    show(here, rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
