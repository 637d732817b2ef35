"""Measure the memory of one CPU worker at MHIST's full size, and the speed of decoding its images.

A `mhist-tune worker` trains one epoch of ResNet-18 at 224 px, batch 32, on 3,152 generated images in MHIST's layout,
with random oversampling, augmentation, validation and a checkpoint. `peak` is the largest resident memory of the
process, with the mapped pages of the image cache; its ratio to the goal should be at most 1. Before that, the cache of
the train partition is made on one core. `cache` is images for each second of that core's time, for hashing, decoding
and writing; its ratio should be at least 1.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.output import machine, show
from mhist_tune.actions import create
from mhist_tune.data.cache import load_train
from mhist_tune.data.synthesize import synthesize
from mhist_tune.definition import study_file
from mhist_tune.storage.database import open_storage

ROOT = Path(__file__).parents[2]
PEAK_GB = 2.5
CACHE_IMAGES_PER_S = 300.0
POLL_S = 0.05
DEFINITION = """
[study]
name = "full"
n_trials = 1
pruner = {{ name = "none" }}

[fixed]
model = "{model}"
weights = "random"
image_size = {image_size}
epochs = 1
sampling = "random_over"

[space]
learning_rate = {{ low = 1e-5, high = 1e-3, log = true }}
"""


def cache_rate(root: Path, image_size: int, cache_dir: Path) -> tuple[int, float]:
    """Return the number of decoded images, and images for each second of one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        used = time.process_time()
        n_images = len(load_train(root, image_size=image_size, cache_dir=cache_dir))
        core_s = time.process_time() - used
    finally:
        os.sched_setaffinity(0, cores)
    return n_images, n_images / core_s


def peak_bytes(command: list[str], folder: Path) -> int:
    """Return the largest resident memory of a process, in bytes. `ru_maxrss` would include the parent's."""
    environment, peak = {**os.environ, "PYTHONPATH": str(ROOT)}, 0
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stderr=said)
        while process.poll() is None:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peak = max([peak, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))])
            time.sleep(POLL_S)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"error: the worker ended with {process.returncode}: {said.read()[-500:]}")
    return peak


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18", help="(default: resnet18)")
    parser.add_argument("--n-images", type=int, default=3152, help="of both partitions (default: 3152, as MHIST)")
    parser.add_argument("--image-size", type=int, default=224, help="(default: 224)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    here = machine()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sys.stderr.write(f"generating {arguments.n_images} images\n")
        synthesize(folder / "images", n_images=arguments.n_images, image_size=arguments.image_size, seed=0)
        n_images, per_core_s = cache_rate(folder / "images", arguments.image_size, folder / "cache")
        text = DEFINITION.format(model=arguments.model, image_size=arguments.image_size)
        url = f"sqlite:///{folder}/storage.db"
        with open_storage(url) as storage:
            create.create(storage, study_file.parse(text, "full"), folder / "images")
        sys.stderr.write("training one epoch\n")
        options = ["--storage", url, "--data", str(folder / "images"), "--devices", "cpu", "--per-device", "1"]
        peak = peak_bytes([sys.executable, "-m", "mhist_tune", "worker", "full", *options], folder)
    common = {"goal": 1.0, "image_size": arguments.image_size, "n_train": n_images}
    found = [
        (f"peak, {arguments.model}", peak / 1e9, PEAK_GB, "GB"),
        ("cache", per_core_s, CACHE_IMAGES_PER_S, "images/s"),
    ]
    rows = [
        {"model": name, "value": value, "limit": limit, "unit": unit, "ratio": value / limit, **common}
        for name, value, limit, unit in found
    ]
    show(here, rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
