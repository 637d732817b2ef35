"""Whether a coarser number format trains as well as fp32: validation AUROC after equal epochs, paired by seed.

Same images, split, order, augmentation, dropout and first weights for each pair; only the number format of the passes
differs. A few pilot pairs tell how much the difference of a pair varies; from that follows how many further pairs are
trained, so many that two formats that are equal are shown to be within the margin with a chance of 90%. The pilot's are
not used again. `ratio` is the bound of the 90% interval of the mean difference that is farther from zero: at or below
`goal` the formats are equivalent at 5% (two one-sided t tests, Schuirmann 1987).

A CPU without bf16 computes it slowly but rounds as others do.

    python bench/precision.py --data DIR --weights tf_efficientnet_lite0.safetensors
"""

import argparse
import math
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from output import machine, show
from scipy.stats import norm, t

from mhist_tune.dataset import ImageSet, load_train
from mhist_tune.hyperparameters import Hyperparameters
from mhist_tune.probe import PRECISIONS, resolve
from mhist_tune.splits import split_train
from mhist_tune.synthesize import synthesize
from mhist_tune.train import fit

LEARNING_RATE = 3e-4
MARGIN = 0.01
LEVEL, POWER = 0.05, 0.9
VAL_FRACTION = 0.35  # more than a search takes, so that the AUROC of a split says more
MIN_PAIRS = 4
N_GENERATED = 600


def final_auroc(hp: Hyperparameters, parts: tuple[ImageSet, ImageSet], seed: int, device: torch.device) -> float:
    """Return the validation AUROC after the last epoch of one training."""
    result = fit(
        hp,
        *parts,
        seed=seed,
        device=device,
        checkpoint=None,
        on_epoch=lambda result: None,
        on_step=lambda n_done, n_images: None,
    )
    return result.history[-1].metrics["val_auroc"] or math.nan


def differences(
    hps: tuple[Hyperparameters, Hyperparameters], parts: tuple[ImageSet, ImageSet], seeds: range, device: torch.device
) -> tuple[list[float], list[float]]:
    """Return the AUROCs of the first of two ways to train, by seed, and what those of the second are more."""
    pairs = []
    for seed in seeds:
        pairs.append(tuple(final_auroc(hp, parts, seed, device) for hp in hps))
        sys.stderr.write(f"seed {seed}: {pairs[-1][0]:.4f} and {pairs[-1][1]:.4f}\n")
    return [first for first, _ in pairs], [second - first for first, second in pairs]


def n_pairs(spread: float) -> int:
    """Return how many pairs show equivalence with the wanted power, for the standard deviation of a difference.

    That of two one-sided tests when the true difference is zero:
    n = (s (z(1 - level) + z((1 + power) / 2)) / margin)^2.

    >>> n_pairs(0.01)
    11
    """
    wanted = (spread * (norm.ppf(1 - LEVEL) + norm.ppf((1 + POWER) / 2)) / MARGIN) ** 2
    return max(MIN_PAIRS, math.ceil(wanted))


def compare(
    hp: Hyperparameters, precision: str, parts: tuple[ImageSet, ImageSet], n_pilot: int, device: torch.device
) -> dict[str, Any]:
    """Train the pilot pairs and as many more as they ask for, and return the row of one number format."""
    hps = hp, replace(hp, precision=precision)
    _, pilot = differences(hps, parts, range(n_pilot), device)
    n_seeds = n_pairs(statistics.stdev(pilot))
    sys.stderr.write(f"{precision}: {n_seeds} pairs after {n_pilot} pilot pairs\n")
    fine, found = differences(hps, parts, range(n_pilot, n_pilot + n_seeds), device)
    mean, error = statistics.mean(found), statistics.stdev(found) / math.sqrt(n_seeds)
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
        "n_seeds": n_seeds,
        "pilot_deviation": statistics.stdev(pilot),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tf_efficientnet_lite0", help="(default: tf_efficientnet_lite0)")
    parser.add_argument("--image-size", type=int, default=32, help="(default: 32)")
    parser.add_argument("--n-epochs", type=int, default=2, help="(default: 2)")
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
        learning_rate=LEARNING_RATE,
        effective_batch_size=16,
        micro_batch_size=16,
        augmentation="flip_rotate",
        precision="fp32",
        compile="off",
    )
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.data or Path(temporary) / "images"
        if not arguments.data:
            synthesize(root, n_images=N_GENERATED, image_size=arguments.image_size, seed=0)
        images = load_train(root, image_size=arguments.image_size, cache_dir=Path(temporary))
        labels = images.labels.numpy().astype(np.int64)
        train, val = split_train(images.votes.numpy(), labels, images.groups, val_fraction=VAL_FRACTION, seed=0)
        parts = images.take(train), images.take(val)
        formats = arguments.precision or [name for name in PRECISIONS[device.type] if name != "fp32"]
        resolved = resolve(hp, device)
        rows = [compare(resolved, name, parts, arguments.n_pilot, device) for name in formats]
    show(here, rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
