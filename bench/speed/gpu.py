"""Measure a GPU: training speed by number format, and trials per hour by workers on one device.

For each model the probe chooses the memory order, as a study's first worker does. Then real training epochs are
compared with the bare step of `bench.speed.throughput` in each number format of the device, and compiled in the chosen
one. `ratio` is the share of the bare step, `peak_memory_gb` the highest in a training epoch. Last, whole searches of
short trials run with 1, 2 and 4 workers on the device in the chosen setting. `trials_per_hour` counts from the moment
when every worker has finished its first trial; its `ratio` is that number over the same with the first number of
workers.

One command on a machine with a GPU: `python -m bench.speed.gpu --json > gpu.json`. Without a GPU it ends with exit
code 2. `--device cpu` uses a CPU in its place, to see that the benchmark works.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.output import show
from bench.speed.throughput import SETTINGS as MEASURED
from bench.speed.throughput import Setting, balanced_epoch, hyperparameters, machine, measure
from mhist_tune.actions import create
from mhist_tune.data.cache import load_train
from mhist_tune.data.synthesize import synthesize
from mhist_tune.definition import study_file
from mhist_tune.definition.hyperparameters import PROBED, Hyperparameters
from mhist_tune.events import StopRequest
from mhist_tune.storage.database import open_storage
from mhist_tune.training.probe import PRECISIONS, resolve
from mhist_tune.worker.devices import parse_devices
from mhist_tune.worker.options import WorkerOptions
from mhist_tune.worker.supervisor import run_workers

SETTINGS = MEASURED | {"vit_base_patch16_224": Setting("vit_base_patch16_224", 224, 32, 0.95)}
N_TURNS = 3
"""Trials of each worker; the first one warms up."""

DEFINITION = """
[study]
name = "{name}"
n_trials = {n_trials}
sampler = {{ name = "random", seed = 0 }}
pruner = {{ name = "none" }}

[fixed]
epochs = {n_epochs}
patience = {n_epochs}
{fixed}

[space]
learning_rate = {{ low = 1e-6, high = 1e-3, log = true }}
"""


def speeds(
    setting: Setting, chosen: Hyperparameters, folder: Path, *, n_images: int, n_rounds: int, device: torch.device
) -> Iterator[dict[str, Any]]:
    """Yield a row for each number format of the device, and on a GPU one for the chosen format compiled."""
    images = load_train(folder / "images", image_size=setting.image_size, cache_dir=folder / "cache")
    tried = [{"precision": precision, "compile": "off"} for precision in PRECISIONS[device.type]]
    if device.type == "cuda":
        tried.append({"precision": chosen.precision, "compile": "on"})
    for change in tried:
        fixed = {"memory_format": chosen.memory_format, **change}
        sys.stderr.write(f"measuring {setting.model} with {fixed}\n")
        found = measure(
            setting,
            balanced_epoch(images, n_images),
            n_rounds=n_rounds,
            device=device,
            folder=folder / "checkpoints" / "-".join(change.values()),
            **fixed,
        )
        yield row(
            setting.model,
            _in_words(found.precision, found.memory_format, found.compile),
            ratio=found.ratio,
            goal=found.goal,
            fit_images_per_s=found.fit_images_per_s,
            bare_images_per_s=found.bare_images_per_s,
            peak_memory_gb=found.peak_memory_gb,
        )


def searches(
    setting: Setting, chosen: Hyperparameters, folder: Path, *, per_device: Sequence[int], n_epochs: int, device: str
) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of workers on the device."""
    names = ("model", "weights", "image_size", "effective_batch_size", "micro_batch_size", "sampling", *PROBED)
    fixed = "\n".join(
        f"{name} = {json.dumps(getattr(chosen, name))}" for name in names
    )  # JSON writes these as TOML does
    first = None
    for n_workers in per_device:
        name = f"{setting.model}-{n_workers}"
        sys.stderr.write(f"searching with {n_workers} workers on {device}\n")
        text = DEFINITION.format(name=name, n_trials=N_TURNS * n_workers, n_epochs=n_epochs, fixed=fixed)
        url = f"sqlite:///{folder}/storage/{name}.db"
        with open_storage(url) as storage:
            create.create(storage, study_file.parse(text, name), folder / "images")
        ended: list[float] = []

        def emit(event: str, /, ended: list[float] = ended, **_: Any) -> None:
            if event == "done":
                ended.append(time.perf_counter())

        options = WorkerOptions(url, folder / "images", name, stages=("search",))
        run_workers(options, parse_devices(device, n_workers), emit, StopRequest())
        rate = 3600 * (len(ended) - n_workers) / (ended[-1] - ended[n_workers - 1])
        first = first or rate
        workers = "1 worker" if n_workers == 1 else f"{n_workers} workers"
        yield row(setting.model, workers, ratio=rate / first, goal=1.0, trials_per_hour=rate)


def row(model: str, setting: str, **numbers: float | None) -> dict[str, Any]:
    """Return a row of the table, whose columns are the same for all."""
    names = ("ratio", "goal", "fit_images_per_s", "bare_images_per_s", "peak_memory_gb", "trials_per_hour")
    return {"model": model, "setting": setting, **{name: numbers.get(name) for name in names}}


def _in_words(precision: str, memory_format: str, compiled: str) -> str:
    return f"{precision} {memory_format}" + (" compiled" if compiled == "on" else "")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(default: cuda)")
    parser.add_argument("--model", choices=SETTINGS, action="append", help="only this one; may be given again")
    parser.add_argument(
        "--n-images", type=int, default=1536, help="images in an epoch, a multiple of 32 (default: 1536)"
    )
    parser.add_argument("--n-rounds", type=int, default=5, help="turns that are counted (default: 5)")
    parser.add_argument(
        "--per-device", type=int, action="append", metavar="N", help="workers; may be given again (default: 1, 2 and 4)"
    )
    parser.add_argument("--n-epochs", type=int, default=5, help="epochs of a trial (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "error: this machine has no CUDA device; hint: --device cpu, to see that it works\n")
    device = torch.device(arguments.device)
    before, rows = machine(device), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # Twice the epoch, for enough images of the rarer class after MHIST's shares of partitions and classes.
        (folder / "images").mkdir()
        synthesize(folder / "images", n_images=max(96, min(3152, 2 * arguments.n_images)), image_size=224, seed=0)
        for name in arguments.model or SETTINGS:
            setting = SETTINGS[name]
            chosen = resolve(hyperparameters(setting), device)
            rows += speeds(
                setting,
                chosen,
                folder,
                n_images=arguments.n_images,
                n_rounds=arguments.n_rounds,
                device=device,
            )
            rows += searches(
                setting,
                chosen,
                folder,
                per_device=arguments.per_device or (1, 2, 4),
                n_epochs=arguments.n_epochs,
                device="0" if device.type == "cuda" else "cpu",
            )
    show(before, rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
