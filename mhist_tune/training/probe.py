"""The fastest settings of a device: training steps are timed in each number format and memory format.

Which setting is fastest depends on the model, the device and its load, and cannot be predicted: on a CPU with AMX,
bf16 makes ResNet-18 at 224 px three times as fast, and timm's test_vit at 160 px less than half as fast. The choice is
made once for a study, so that all its trials are comparable. It is stored with its timings.

On a CPU, fp16 and `torch.compile` are not tried. Compiling takes minutes and gained nothing (ResNet-18 at 224 px: 53
images/s instead of 50). The largest micro-batch that fits is not searched for either: Linux grants more memory than
there is, so a failed attempt would end the process.
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

from mhist_tune.definition.hyperparameters import PROBED, Hyperparameters
from mhist_tune.training import memory, weight_files
from mhist_tune.training.forward import AUTOCAST, MEMORY_FORMATS, ready, reproducible
from mhist_tune.training.freeze import set_training
from mhist_tune.training.models import create_model
from mhist_tune.training.step import Stepper

PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "tf32", "bf16", "fp16")}
"""The number formats that are tried on each type of device, the most precise first."""

N_IMAGES_CPU = 8
# A setting replaces a more precise one, or an uncompiled one, if its step takes less than this share of the time.
GAIN = 0.95
# A candidate is given up when its step takes this many times the fastest one so far. Its first step includes set-up.
HOPELESS_FIRST, HOPELESS = 5.0, 1.5
MIN_STEPS, MAX_STEPS, ENOUGH_S = 2, 20, 0.5
PRODUCT_SIZE = 256


@dataclass(frozen=True)
class Timing:
    """The measured speed of one candidate setting.

    Attributes:
        precision, memory_format, compile: the setting, as in `Hyperparameters`.
        images_per_s: images per second in its fastest step. None if it does not run, runs out of memory, or was not
            tried because the CPU multiplies in this number format so slowly that a step could take minutes.
    """

    precision: str
    memory_format: str
    compile: str
    images_per_s: float | None


@dataclass(frozen=True)
class Choice:
    """The chosen settings.

    Attributes:
        hp: the hyperparameters, with no field left "auto".
        n_images: images in each timed step.
        timings: in the order in which they were measured; empty if no field was "auto".
    """

    hp: Hyperparameters
    n_images: int
    timings: tuple[Timing, ...]


def measure(hp: Hyperparameters, device: torch.device, searched: Container[str] = ()) -> dict[str, Any]:
    """Choose the settings of a study, and return what the study stores, JSON-safe.

    Args:
        hp: the hyperparameters of a run of the study.
        device: the device to train on.
        searched: names of the hyperparameters that differ from trial to trial.

    Returns:
        A value for each name in `PROBED`, `micro_batch_size` (see the function of that name), `device` (its name),
        `n_images` and `timings` (see `Choice` and `Timing`).

    Raises:
        RuntimeError: the first candidate does not run, or the device failed.
    """
    choice = choose(hp, device, searched)
    memory.free(device)  # the memory of the candidates' models would stay reserved until the worker ends
    return {
        **{name: getattr(choice.hp, name) for name in PROBED},
        "micro_batch_size": micro_batch_size(choice.hp, device),
        "device": device_name(device),
        "n_images": choice.n_images,
        "timings": [dataclasses.asdict(timing) for timing in choice.timings],
    }


def resolve(hp: Hyperparameters, device: torch.device) -> Hyperparameters:
    """Return `hp` with no field left "auto", see `choose`."""
    return choose(hp, device).hp


def choose(hp: Hyperparameters, device: torch.device, searched: Container[str] = ()) -> Choice:
    """Choose a value for each field of `hp` that is "auto" by timing training steps on the device.

    A less precise number format, another memory format or compilation is chosen only if it takes less than `GAIN` of
    the time.

    Args:
        hp: the hyperparameters of a run of the study. Fields that are not "auto" are kept.
        device: the device to train on.
        searched: names of the hyperparameters that differ from trial to trial.

    Raises:
        RuntimeError: the first candidate does not run, or the device failed.
    """
    precisions = PRECISIONS[device.type] if hp.precision == "auto" else (hp.precision,)
    formats = MEMORY_FORMATS if hp.memory_format == "auto" else (hp.memory_format,)
    tries_compile = hp.compile == "auto" and device.type == "cuda" and "drop_rate" not in searched
    changes: list[dict[str, Any]] = [
        {"precision": precision, "memory_format": memory_format, "compile": "off"}
        for precision in precisions
        for memory_format in formats
    ]
    candidates = [dataclasses.replace(hp, **change) for change in changes]  # the most precise first
    n_images = min(hp.micro_batch_size, hp.effective_batch_size)
    if device.type == "cpu":
        n_images = min(n_images, N_IMAGES_CPU)
    seconds: dict[Hyperparameters, float] = {}
    best = candidates[0]
    if len(candidates) > 1 or tries_compile:
        seconds = _time_all(candidates, n_images, device)
        while all(map(math.isinf, seconds.values())) and n_images > 2:
            n_images //= 2
            seconds = _time_all(candidates, n_images, device)
        for candidate in candidates[1:]:
            if seconds[candidate] < GAIN * seconds[best]:
                best = candidate
        if tries_compile:
            compiled = dataclasses.replace(best, compile="on")
            seconds[compiled] = _step_s(compiled, n_images, device, seconds[best])
            if seconds[compiled] < GAIN * seconds[best]:
                best = compiled
    timings = tuple(
        Timing(
            candidate.precision,
            candidate.memory_format,
            candidate.compile,
            None if math.isinf(step_s) else n_images / step_s,
        )
        for candidate, step_s in seconds.items()
    )
    return Choice(best if hp.compile != "on" else dataclasses.replace(best, compile="on"), n_images, timings)


def micro_batch_size(hp: Hyperparameters, device: torch.device) -> int | None:
    """Return the largest micro-batch, in images, that fits the device's memory; None to keep `hp.micro_batch_size`.

    None if that size fits, if not even one image fits, if the micro-batch size changes results (BatchNorm), and on a
    CPU.
    """
    if device.type == "cpu" or memory.is_coupled(hp):
        return None
    fitting = memory.fitting_micro_batch_size(hp, device, hp.micro_batch_size)
    return None if fitting == hp.micro_batch_size else fitting


def device_name(device: torch.device) -> str:
    """Return the product name of the GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _time_all(candidates: list[Hyperparameters], n_images: int, device: torch.device) -> dict[Hyperparameters, float]:
    """Return the seconds of each candidate's step; infinity if it does not run.

    The number formats of the second memory format come in reverse order: the fast ones are then timed first, and the
    slow ones are given up early.
    """
    first_format = candidates[0].memory_format
    ordered = [candidate for candidate in candidates if candidate.memory_format == first_format]
    ordered += [candidate for candidate in reversed(candidates) if candidate.memory_format != first_format]
    seconds: dict[Hyperparameters, float] = {}
    for candidate in ordered:
        seconds[candidate] = _step_s(candidate, n_images, device, min(seconds.values(), default=math.inf))
    return seconds


def _step_s(hp: Hyperparameters, n_images: int, device: torch.device, fastest_s: float) -> float:
    """Return the seconds of the fastest of a few training steps; infinity if they do not run.

    Args:
        hp: the candidate.
        n_images: images in a step.
        device: the device to train on.
        fastest_s: seconds of the fastest step so far; infinity if no candidate has run.

    Raises:
        RuntimeError: the device failed, or no candidate has run yet and memory is not the reason.
    """
    if math.isfinite(fastest_s) and device.type == "cpu" and _slowness(hp.precision) > HOPELESS_FIRST:
        return math.inf
    try:
        with reproducible(hp, device):
            return _fastest_step_s(hp, n_images, device, fastest_s)
    except (RuntimeError, MemoryError) as error:
        none_has_run = math.isinf(fastest_s)
        if isinstance(error, torch.AcceleratorError) or (none_has_run and not memory.is_out_of_memory(error)):
            raise
    memory.free(device)
    return math.inf


@functools.cache
def _slowness(precision: str) -> float:
    """Return how many times as long this CPU multiplies two matrices in a number format as in fp32.

    A CPU without bf16 instructions takes fifty times as long. A step of ViT-B/16 would then take minutes.
    """
    fp32_matrix = torch.ones(PRODUCT_SIZE, PRODUCT_SIZE)
    matrix = fp32_matrix.to(AUTOCAST.get(precision, fp32_matrix.dtype))
    return product_s(matrix) / product_s(fp32_matrix)


def product_s(matrix: Tensor) -> float:
    """Return the seconds of the fastest of three products of a matrix [n, n] with itself."""
    fastest_s = math.inf
    for _ in range(3):
        started = time.perf_counter()
        matrix @ matrix
        fastest_s = min(fastest_s, time.perf_counter() - started)
    return fastest_s


def _fastest_step_s(hp: Hyperparameters, n_images: int, device: torch.device, fastest_s: float) -> float:
    hp = dataclasses.replace(weight_files.without(hp), micro_batch_size=n_images, effective_batch_size=n_images)
    model = ready(create_model(hp), hp, device)
    set_training(model)
    stepper = Stepper(model, hp)
    images = torch.rand(n_images, 3, hp.image_size, hp.image_size, device=device)
    targets = torch.arange(n_images, device=device).remainder(2).float()
    if hp.compile == "on":
        _step(stepper, images, targets)  # compiles, which is not timed
    own_fastest_s, started = math.inf, time.perf_counter()
    for n_done in range(1, MAX_STEPS + 1):
        step_started = time.perf_counter()
        _step(stepper, images, targets)
        now = time.perf_counter()
        own_fastest_s = min(own_fastest_s, now - step_started)
        is_hopeless = own_fastest_s > (HOPELESS_FIRST if n_done == 1 else HOPELESS) * fastest_s
        if is_hopeless or (n_done >= MIN_STEPS and now - started > ENOUGH_S):
            break
    return own_fastest_s


def _step(stepper: Stepper, images: Tensor, targets: Tensor) -> None:
    stepper.add(images, targets, len(images))
    stepper.update()
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
