"""Measure a worker's time outside training steps and evaluation, over the whole time of its trials.

A real worker serves a study in this process, on all cores. It claims slots, asks the sampler, builds the model, reads
the weight file, records every epoch under its lease, decides and ends trials. An epoch's own time, from its draw to
its metrics, is the `elapsed_s` that it reports. The training thread's time for saving checkpoints is a column of its
own. The rest of the time from one trial's end to the next one's is the overhead. The first trial, which loads
everything, does not count. Real trials are longer than these, so the work done once a trial is a smaller share of
them.
"""

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import save_file

from bench.output import machine, show
from mhist_tune.actions import create
from mhist_tune.data.synthesize import synthesize
from mhist_tune.definition import study_file
from mhist_tune.events import StopRequest
from mhist_tune.storage.database import open_storage
from mhist_tune.training.checkpoints.writer import CheckpointWriter
from mhist_tune.worker.devices import n_cores
from mhist_tune.worker.loop import serve
from mhist_tune.worker.options import WorkerOptions

GOAL = 0.02
DEFINITION = """
[study]
name = "{model}"
n_trials = {n_trials}
pruner = {{ name = "none" }}

[fixed]
model = "{model}"
weights = "{weights}"
image_size = {image_size}
epochs = {n_epochs}
patience = {n_epochs}
precision = "{precision}"
memory_format = "contiguous"
sampling = "random_over"

[space]
learning_rate = {{ low = 1e-5, high = 1e-3, log = true }}
drop_rate = {{ low = 0.1, high = 0.5 }}
"""


@dataclass(frozen=True)
class Setting:
    """A model, and a number of images for epochs of some seconds on two cores."""

    image_size: int
    n_images: int


SETTINGS = {
    "resnet18": Setting(224, 300),
    "vit_small_patch14_dinov2": Setting(112, 300),
    "vit_base_patch16_224": Setting(224, 60),
    "test_vit": Setting(160, 300),
}
DEFAULT = ("resnet18", "vit_small_patch14_dinov2", "vit_base_patch16_224")


@dataclass
class Clock:
    """Receives a worker's events, and adds up the time of watched functions.

    Attributes:
        ended: when each trial ended, seconds.
        epochs_s: the time in the epochs of each trial.
        saving_s: the time that training waited for checkpoints in each trial.
    """

    ended: list[float] = field(default_factory=list)
    epochs_s: list[float] = field(default_factory=lambda: [0.0])
    saving_s: list[float] = field(default_factory=lambda: [0.0])

    def emit(self, event: str, /, **fields: Any) -> None:
        """Take one event of the worker."""
        if event == "epoch":
            self.epochs_s[-1] += fields["elapsed_s"]
        elif event == "done":
            self.ended.append(time.perf_counter())
            self.epochs_s.append(0.0)
            self.saving_s.append(0.0)

    def watched(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, with its time counted as saving."""

        @functools.wraps(work)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                self.saving_s[-1] += time.perf_counter() - started

        return timed


def measure(model: str, folder: Path, *, n_images: int, n_trials: int, n_epochs: int, precision: str) -> dict[str, Any]:
    """Let a worker train one trial more than is counted, in `folder`, and return the times of the others."""
    setting = SETTINGS[model]
    # A fifth of MHIST's train partition, itself two thirds of all images, is kept for validation.
    synthesize(folder / "images", n_images=max(24, min(3152, 2 * n_images)), image_size=setting.image_size, seed=0)
    weights = folder / "weights.safetensors"
    size = {"img_size": setting.image_size} if "vit" in model else {}
    save_file(timm.create_model(model, pretrained=False, **size).state_dict(), weights)
    url, clock = f"sqlite:///{folder}/storage.db", Clock()
    text = DEFINITION.format(
        model=model,
        n_trials=n_trials + 1,
        weights=weights,
        image_size=setting.image_size,
        n_epochs=n_epochs,
        precision=precision,
    )
    with open_storage(url) as storage:
        create.create(storage, study_file.parse(text, model), folder / "images")
    for name in ("load", "save", "keep", "wait", "finish", "discard"):
        setattr(CheckpointWriter, name, clock.watched(getattr(CheckpointWriter, name)))
    serve(WorkerOptions(url, folder / "images", model), "cpu", n_cores(), clock.emit, StopRequest())
    if len(clock.ended) != n_trials + 1:
        raise SystemExit(f"error: {len(clock.ended)} of {n_trials + 1} trials ended")
    trials_s = [after - before for before, after in zip(clock.ended, clock.ended[1:], strict=False)]
    counted = list(zip(trials_s, clock.epochs_s[1:], clock.saving_s[1:], strict=False))
    return {
        "model": model,
        "image_size": setting.image_size,
        "n_epochs": n_epochs,
        "n_trials": n_trials,
        "trial_s": statistics.median(trials_s),
        "epochs_s": statistics.median(epochs_s for _, epochs_s, _ in counted),
        "saving_s": statistics.median(saving_s for _, _, saving_s in counted),
        "ratio": statistics.median(1 - (epochs_s + saving_s) / trial_s for trial_s, epochs_s, saving_s in counted),
        "goal": GOAL,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SETTINGS, action="append", help="only this one; may be given again")
    parser.add_argument("--n-images", type=int, help="train images of each model, validation included")
    parser.add_argument("--n-trials", type=int, default=3, help="trials that are counted (default: 3)")
    parser.add_argument("--n-epochs", type=int, default=3, help="epochs of a trial (default: 3)")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="(default: auto)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    here, rows = machine(), []
    for model in arguments.model or DEFAULT:
        sys.stderr.write(f"measuring {model}\n")
        with tempfile.TemporaryDirectory() as folder:
            rows.append(
                measure(
                    model,
                    Path(folder),
                    n_images=arguments.n_images or SETTINGS[model].n_images,
                    n_trials=arguments.n_trials,
                    n_epochs=arguments.n_epochs,
                    precision=arguments.precision,
                )
            )
    show(here, rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
