"""Settings by measurement: training steps are timed in every number format and memory order that the device may like.

What is fastest depends on the model, the device and its load, and no rule foretells it: bf16 makes ResNet-18 at 224 px
three times as fast on a CPU with AMX, and timm's test_vit at 160 px less than half as fast. A choice is made once for a
study, so that all its trials are comparable, and stored with the timings that it rests on.

On a CPU `torch.compile` is not tried: it was measured to gain nothing there (ResNet-18 at 224 px: 53 images/s instead
of 50) and takes minutes. Nor is fp16, nor how large a micro-batch fits: where memory is promised before it is there,
trying ends the process.
"""

import dataclasses
import functools
import math
import platform
import time
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mhist_tune import memory
from mhist_tune.forward import AUTOCAST, MEMORY_FORMATS, ready, reproducible
from mhist_tune.freeze import set_training
from mhist_tune.hyperparameters import PROBED, Hyperparameters
from mhist_tune.models import create_model
from mhist_tune.step import Stepper

PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "tf32", "bf16", "fp16")}
"""The number formats that are tried on each kind of device, the finest first."""

N_IMAGES_CPU = 8
GAIN = 0.95  # a smaller gain would not be worth the coarser numbers, or the time to compile
HOPELESS_FIRST, HOPELESS = 5.0, 1.5  # times the fastest step so far; the first step of a rival also sets it up
MIN_STEPS, MAX_STEPS, ENOUGH_S = 2, 20, 0.5
PRODUCT_SIZE = 256


@dataclass(frozen=True)
class Timing:
    """One rival; `images_per_s` is that of its fastest step, at most, and None where none was finished.

    That is so where it does not run, and where a CPU multiplies so slowly that a single step could take minutes.
    """

    precision: str
    memory_format: str
    compile: str
    images_per_s: float | None


@dataclass(frozen=True)
class Choice:
    """What was settled.

    Attributes:
        hp: the hyperparameters with nothing left "auto".
        n_images: in each timed step.
        timings: in the order in which they were taken; none where everything was fixed.
    """

    hp: Hyperparameters
    n_images: int
    timings: tuple[Timing, ...]


def settle(hp: Hyperparameters, device: torch.device, searched: Container[str] = ()) -> dict[str, Any]:
    """Return what a study stores, JSON-safe: `PROBED`, `micro_batch_size`, and the device, images and timings behind.

    Args:
        hp: a run of the study.
        device: to train on.
        searched: the hyperparameters that differ from trial to trial.
    """
    choice = choose(hp, device, searched)
    memory.free(device)  # what the models of the rivals left would stay until the worker ends
    return {
        **{name: getattr(choice.hp, name) for name in PROBED},
        "micro_batch_size": micro_batch_size(choice.hp, device),
        "device": device_name(device),
        "n_images": choice.n_images,
        "timings": [dataclasses.asdict(one) for one in choice.timings],
    }


def resolve(hp: Hyperparameters, device: torch.device) -> Hyperparameters:
    """Return `hp` with nothing left "auto", see `choose`."""
    return choose(hp, device).hp


def choose(hp: Hyperparameters, device: torch.device, searched: Container[str] = ()) -> Choice:
    """Settle what is "auto" in `hp` by timing training steps on the device; what is not is kept.

    Of all that run, a coarser number format or another memory order is taken only where it is clearly faster.

    Args:
        hp: a run of the study.
        device: to train on.
        searched: the hyperparameters that differ from trial to trial.
    """
    precisions = PRECISIONS[device.type] if hp.precision == "auto" else (hp.precision,)
    formats = MEMORY_FORMATS if hp.memory_format == "auto" else (hp.memory_format,)
    compiles = hp.compile == "auto" and device.type == "cuda" and "drop_rate" not in searched
    changes: list[dict[str, Any]] = [
        {"precision": precision, "memory_format": memory_format, "compile": "off"}
        for precision in precisions
        for memory_format in formats
    ]
    rivals = [dataclasses.replace(hp, **change) for change in changes]  # the finest first
    n_images = min(hp.micro_batch_size, hp.effective_batch_size)
    if device.type == "cpu":
        n_images = min(n_images, N_IMAGES_CPU)
    seconds: dict[Hyperparameters, float] = {}
    best = rivals[0]
    if len(rivals) > 1 or compiles:
        seconds = _race(rivals, n_images, device)
        while all(map(math.isinf, seconds.values())) and n_images > 2:
            n_images //= 2
            seconds = _race(rivals, n_images, device)
        for rival in rivals[1:]:
            if seconds[rival] < GAIN * seconds[best]:
                best = rival
        if compiles:
            rival = dataclasses.replace(best, compile="on")
            seconds[rival] = _step_s(rival, n_images, device, seconds[best])
            if seconds[rival] < GAIN * seconds[best]:
                best = rival
    timings = tuple(
        Timing(one.precision, one.memory_format, one.compile, None if math.isinf(step_s) else n_images / step_s)
        for one, step_s in seconds.items()
    )
    return Choice(best if hp.compile != "on" else dataclasses.replace(best, compile="on"), n_images, timings)


def micro_batch_size(hp: Hyperparameters, device: torch.device) -> int | None:
    """Return the most images of a micro-batch that fit the device's memory; None where `hp` may stay as it is.

    That is so where all fit, or not even one, where the micro-batch is part of the method (BatchNorm), and on a CPU.
    """
    if device.type == "cpu" or memory.is_coupled(hp):
        return None
    fitting = memory.fitting_micro_batch_size(hp, device, hp.micro_batch_size)
    return None if fitting == hp.micro_batch_size else fitting


def device_name(device: torch.device) -> str:
    """Return what kind of device it is: the name of the GPU, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _race(rivals: list[Hyperparameters], n_images: int, device: torch.device) -> dict[Hyperparameters, float]:
    """Return the seconds of each rival's step; infinity where it does not run.

    The memory orders that are tried last find the fastest number format first, and the others give up early.
    """
    ordered = [one for one in rivals if one.memory_format == rivals[0].memory_format]
    ordered += [one for one in reversed(rivals) if one.memory_format != rivals[0].memory_format]
    seconds: dict[Hyperparameters, float] = {}
    for rival in ordered:
        seconds[rival] = _step_s(rival, n_images, device, min(seconds.values(), default=math.inf))
    return seconds


def _step_s(hp: Hyperparameters, n_images: int, device: torch.device, fastest_s: float) -> float:
    """Return the seconds of the fastest of a few training steps; infinity if it does not run where another did."""
    if math.isfinite(fastest_s) and device.type == "cpu" and _slowness(hp.precision) > HOPELESS_FIRST:
        return math.inf
    try:
        with reproducible(hp, device):
            return _fastest_step_s(hp, n_images, device, fastest_s)
    except (RuntimeError, MemoryError) as error:
        is_first = math.isinf(fastest_s)
        if isinstance(error, torch.AcceleratorError) or (is_first and not memory.is_out_of_memory(error)):
            raise
    memory.free(device)
    return math.inf


@functools.cache
def _slowness(precision: str) -> float:
    """Return how much longer this CPU multiplies two matrices in a number format than in fp32.

    A CPU without bf16 takes fifty times as long: a step of ViT-B/16 would take it minutes.
    """
    fine = torch.ones(PRODUCT_SIZE, PRODUCT_SIZE)
    coarse = fine.to(AUTOCAST.get(precision, fine.dtype))
    return product_s(coarse) / product_s(fine)


def product_s(matrix: Tensor) -> float:
    """Return the seconds of the fastest of three products of a matrix with itself."""
    own_s = math.inf
    for _ in range(3):
        begun = time.perf_counter()
        matrix @ matrix
        own_s = min(own_s, time.perf_counter() - begun)
    return own_s


def _fastest_step_s(hp: Hyperparameters, n_images: int, device: torch.device, fastest_s: float) -> float:
    hp = dataclasses.replace(hp, weights="random", micro_batch_size=n_images, effective_batch_size=n_images)
    model = ready(create_model(hp), hp, device)
    set_training(model)
    stepper = Stepper(model, hp)
    images = torch.rand(n_images, 3, hp.image_size, hp.image_size, device=device)
    targets = torch.arange(n_images, device=device).remainder(2).float()
    if hp.compile == "on":
        _step(stepper, images, targets)
    own_s, started = math.inf, time.perf_counter()
    for n_done in range(1, MAX_STEPS + 1):
        begun = time.perf_counter()
        _step(stepper, images, targets)
        now = time.perf_counter()
        own_s = min(own_s, now - begun)
        is_hopeless = own_s > (HOPELESS_FIRST if n_done == 1 else HOPELESS) * fastest_s
        if is_hopeless or (n_done >= MIN_STEPS and now - started > ENOUGH_S):
            break
    return own_s


def _step(stepper: Stepper, images: Tensor, targets: Tensor) -> None:
    stepper.add(images, targets, len(images))
    stepper.update()
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
