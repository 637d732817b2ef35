"""Measure how much faster training is with frozen weights: the bare step of `bench.speed.throughput` by `freeze`.

The step is forward, loss, backward and optimizer on one batch of random images, without augmentation or validation.
All settings take turns in one process, some steps each, after one turn each to warm up. `ratio` is the median over the
turns of a setting's images per second over those of `none` in the same turn. `goal` is 1: freezing must not be slower.
"""

import argparse
import statistics
from dataclasses import asdict, dataclass

import torch

from bench.output import show
from bench.speed.throughput import bare_epoch, machine
from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.training.probe import resolve

SETTINGS = {
    "resnet18": ("none", "stem", "first1", "first2", "first3", "all_but_head"),
    "vit_small_patch14_dinov2": ("none", "stem", "first3", "first6", "first9", "all_but_head"),
    "test_vit": ("none", "stem", "first3", "all_but_head"),
}
IMAGE_SIZE = 112
BATCH_SIZE = 16


@dataclass(frozen=True)
class Result:
    """One row. The rate is the median over the turns."""

    model: str
    freeze: str
    image_size: int
    batch_size: int
    precision: str
    n_rounds: int
    images_per_s: float
    ratio: float
    goal: float = 1.0


def measure(model: str, *, image_size: int, n_steps: int, n_rounds: int, device: torch.device) -> list[Result]:
    """Measure every setting of one model."""
    hp = Hyperparameters(
        model=model,
        weights="random",
        image_size=image_size,
        effective_batch_size=BATCH_SIZE,
        micro_batch_size=BATCH_SIZE,
    )
    hp = resolve(hp, device)
    turns = {
        freeze: bare_epoch(Hyperparameters.from_dict({**hp.to_dict(), "freeze": freeze}), device)
        for freeze in SETTINGS[model]
    }
    rates: dict[str, list[float]] = {freeze: [] for freeze in turns}
    for _ in range(n_rounds + 1):
        for freeze, run in turns.items():
            rates[freeze].append(run(n_steps * BATCH_SIZE))
    counted = {freeze: found[1:] for freeze, found in rates.items()}
    return [
        Result(
            model=model,
            freeze=freeze,
            image_size=image_size,
            batch_size=BATCH_SIZE,
            precision=hp.precision,
            n_rounds=n_rounds,
            images_per_s=statistics.median(found),
            ratio=statistics.median(one / whole for one, whole in zip(found, counted["none"], strict=True)),
        )
        for freeze, found in counted.items()
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SETTINGS, default="resnet18", help="(default: resnet18)")
    parser.add_argument("--image-size", type=int, default=IMAGE_SIZE, help=f"(default: {IMAGE_SIZE})")
    parser.add_argument("--n-steps", type=int, default=4, help="steps in a turn (default: 4)")
    parser.add_argument("--n-rounds", type=int, default=5, help="turns that are counted (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = machine(device)
    results = measure(
        arguments.model,
        image_size=arguments.image_size,
        n_steps=arguments.n_steps,
        n_rounds=arguments.n_rounds,
        device=device,
    )
    show(before, [asdict(result) for result in results], as_json=arguments.json)


if __name__ == "__main__":
    main()
