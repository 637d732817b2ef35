"""Tests of mhist_tune.training.probe, and of what a worker makes of it."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mhist_tune import words
from mhist_tune.definition.hyperparameters import PROBED, Hyperparameters
from mhist_tune.report import status, status_text
from mhist_tune.storage import studies
from mhist_tune.storage.database import open_storage
from mhist_tune.training import memory, probe
from mhist_tune.worker import session
from mhist_tune.worker.session import StopRequest

CPU, GPU = torch.device("cpu"), torch.device("cuda")
EAGER_FP32 = ("fp32", "contiguous", "off")
Run = Callable[..., tuple[int, str, str]]


def hyperparameters(model: str = "test_vit", **options: Any) -> Hyperparameters:
    return Hyperparameters(**{"model": model, "weights": "random", "image_size": 32} | options)


def settings(hp: Hyperparameters) -> tuple[str, ...]:
    return tuple(getattr(hp, name) for name in PROBED)


@pytest.fixture(autouse=True)
def fast_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests have the same candidates on every machine: the CPU counts as equally fast in all number formats."""
    monkeypatch.setattr(probe, "_slowness", lambda precision: 1.0)


@pytest.fixture
def made_up_times(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[Any, ...]]]:
    """A function that sets the seconds of a step of each setting, by default 1 s; it returns the timed ones."""

    def call(seconds: dict[tuple[str, ...], float]) -> list[tuple[Any, ...]]:
        asked: list[tuple[Any, ...]] = []

        def step_s(hp: Hyperparameters, n_images: int, device: torch.device, fastest_s: float) -> float:
            asked.append((*settings(hp), n_images, fastest_s))
            return seconds.get(settings(hp), 1.0)

        monkeypatch.setattr(probe, "_step_s", step_s)
        return asked

    return call


@pytest.mark.parametrize("model", ["test_vit", "test_resnet"])
def test_real_steps_choose_what_is_auto(model: str) -> None:
    """Every candidate of a CPU has a speed, auto becomes one of them, nothing else changes, and JSON can hold it."""
    hp = hyperparameters(model)
    choice = probe.choose(hp, CPU)

    assert {(timing.precision, timing.memory_format) for timing in choice.timings} == {
        (precision, memory_format)
        for precision in ("fp32", "bf16")
        for memory_format in ("contiguous", "channels_last")
    }
    assert all(timing.images_per_s and timing.images_per_s > 0 for timing in choice.timings)
    assert choice.n_images == probe.N_IMAGES_CPU
    chosen = dict(zip(PROBED, settings(choice.hp), strict=True))
    assert chosen["compile"] == "off"
    assert choice.hp == replace(hp, **chosen)
    stored = probe.measure(hp, CPU)
    assert stored == json.loads(json.dumps(stored, allow_nan=False))
    assert stored["micro_batch_size"] is None


def test_what_is_fixed_is_not_timed(made_up_times: Callable[..., Any]) -> None:
    """A definition's own settings stand, also compiling on a CPU, and cost no step."""
    asked = made_up_times({})
    fixed = hyperparameters(precision="bf16", memory_format="channels_last", compile="on")

    assert probe.resolve(fixed, CPU) == fixed
    assert probe.measure(replace(fixed, compile="auto"), CPU)["compile"] == "off"
    assert asked == []


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({}, EAGER_FP32),
        ({("bf16", "contiguous", "off"): 0.96}, EAGER_FP32),
        ({("bf16", "contiguous", "off"): 0.4, ("fp16", "contiguous", "off"): 0.39}, ("bf16", "contiguous", "off")),
        ({("bf16", "contiguous", "off"): 3.0, ("fp16", "contiguous", "off"): 0.5}, ("fp16", "contiguous", "off")),
        ({("bf16", "channels_last", "off"): 0.2}, ("bf16", "channels_last", "off")),
        ({("tf32", "contiguous", "off"): 0.5}, ("tf32", "contiguous", "off")),
        ({EAGER_FP32: math.inf, ("bf16", "contiguous", "off"): 9.0}, ("fp32", "channels_last", "off")),
        ({("fp32", "contiguous", "on"): 0.5}, ("fp32", "contiguous", "on")),
        ({("fp32", "contiguous", "on"): math.inf}, EAGER_FP32),
    ],
)
def test_coarser_numbers_must_be_clearly_faster(
    made_up_times: Callable[..., Any], seconds: dict[tuple[str, ...], float], expected: tuple[str, ...]
) -> None:
    """On a GPU all four formats compete in both orders, the finer one wins a tie, and the winner alone is compiled."""
    asked = made_up_times(seconds)

    choice = probe.choose(hyperparameters(), GPU)

    assert settings(choice.hp) == expected
    assert len(asked) == len(choice.timings) == 9
    assert {one[0] for one in asked} == {"fp32", "tf32", "bf16", "fp16"}
    assert [one[:3] for one in asked if one[2] == "on"] == [(*expected[:2], "on")]


@pytest.mark.parametrize(("device", "searched"), [(CPU, ()), (GPU, ("learning_rate", "drop_rate"))])
def test_no_graph_is_compiled_in_vain(
    made_up_times: Callable[..., Any], device: torch.device, searched: tuple[str, ...]
) -> None:
    """Compiling is not even tried on a CPU, nor where every trial would need a graph of its own."""
    asked = made_up_times({})

    choice = probe.choose(hyperparameters(), device, searched)

    assert choice.hp.compile == "off"
    assert {one[2] for one in asked} == {"off"}


def test_what_does_not_fit_is_timed_with_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no candidate fits the memory, all are timed again with half the images; one that fails alone is ruled out."""

    def fastest_step_s(hp: Hyperparameters, n_images: int, device: torch.device, fastest_s: float) -> float:
        if n_images > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if hp.precision == "fp16":
            raise RuntimeError('"op" not implemented for Half')
        return 1.0

    monkeypatch.setattr(probe, "_fastest_step_s", fastest_step_s)
    monkeypatch.setattr(probe, "PRECISIONS", {"cpu": ("fp32", "fp16")})
    monkeypatch.setattr(probe, "N_IMAGES_CPU", 32)
    choice = probe.choose(hyperparameters(memory_format="contiguous"), CPU)

    assert choice.n_images == 8
    assert [(timing.precision, timing.images_per_s) for timing in choice.timings] == [("fp32", 8.0), ("fp16", None)]


def test_an_error_of_the_first_candidate_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in fp32 would also occur in training, so it is raised."""

    def fails(*_: object) -> float:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(probe, "_fastest_step_s", fails)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        probe.choose(hyperparameters(), CPU)


def test_no_step_is_taken_in_a_format_that_the_cpu_multiplies_slowly_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow product rules a number format out, in both memory orders, but not where it is the only one."""
    taken: list[str] = []

    def fastest_step_s(hp: Hyperparameters, n_images: int, device: torch.device, fastest_s: float) -> float:
        taken.append(hp.precision)
        return 1.0

    monkeypatch.setattr(
        probe, "_slowness", lambda precision: 1.0 if precision == "fp32" else 1.01 * probe.HOPELESS_FIRST
    )
    monkeypatch.setattr(probe, "_fastest_step_s", fastest_step_s)
    choice = probe.choose(hyperparameters(), CPU)
    fixed = probe.choose(hyperparameters(precision="bf16"), CPU)

    assert taken == ["fp32", "fp32", "bf16"]
    assert {timing.precision for timing in choice.timings if timing.images_per_s is None} == {"bf16"}
    assert (choice.hp.precision, fixed.hp.precision) == ("fp32", "bf16")


def test_slowness_is_that_of_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of a product in a number format over those in fp32, by matrices of that format."""
    monkeypatch.undo()
    probe._slowness.cache_clear()
    monkeypatch.setattr(probe, "product_s", lambda matrix: {torch.float32: 2.0, torch.bfloat16: 30.0}[matrix.dtype])
    try:
        assert (probe._slowness("fp32"), probe._slowness("bf16")) == (1.0, 15.0)
    finally:
        probe._slowness.cache_clear()


@pytest.mark.parametrize(("fastest_s", "n_steps"), [(math.inf, probe.MAX_STEPS), (1e-9, 1)])
def test_a_hopeless_candidate_is_given_up(monkeypatch: pytest.MonkeyPatch, fastest_s: float, n_steps: int) -> None:
    """A model of a millisecond takes all its steps; beside one of a nanosecond it takes one."""
    taken: list[int] = []
    step = probe._step

    def counted(stepper: Any, images: torch.Tensor, targets: torch.Tensor) -> None:
        taken.append(len(images))
        step(stepper, images, targets)

    monkeypatch.setattr(probe, "_step", counted)
    monkeypatch.setattr(probe, "ENOUGH_S", math.inf)
    hp = hyperparameters("fcnn", precision="fp32", memory_format="contiguous", compile="off")

    seconds = probe._fastest_step_s(hp, 4, CPU, fastest_s)

    assert taken == [4] * n_steps
    assert 0 < seconds < 10


def test_only_a_gpu_without_batch_norm_has_its_micro_batch_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest half, quarter, ... that fits is found; with BatchNorm, or if all fit, nothing is limited."""

    def update_once(hp: Hyperparameters, n_images: int, device: torch.device) -> None:
        if n_images > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(memory, "_update_once", update_once)
    monkeypatch.setattr(memory, "free", lambda device: None)
    vit, resnet = (probe.resolve(hyperparameters(name, precision="fp32"), CPU) for name in ("test_vit", "test_resnet"))

    assert probe.micro_batch_size(vit, GPU) == 8
    assert probe.micro_batch_size(replace(vit, micro_batch_size=4), GPU) is None
    assert probe.micro_batch_size(resnet, GPU) is None
    assert probe.micro_batch_size(vit, CPU) is None


DEFINITION = """
[study]
name = "small"
n_trials = 1
[fixed]
model = "{model}"
weights = "random"
image_size = 32
epochs = 1
precision = "fp32"
augmentation = "none"
[space]
drop_rate = {{ low = 0.1, high = 0.5 }}
"""


@pytest.mark.parametrize(("model", "micro_batch_size"), [("fcnn", 4), ("test_resnet", 32)])
def test_other_hardware_keeps_the_choice_and_fits_its_memory(
    run: Run,
    generated: Path,
    tmp_path: Path,
    storage_url_sqlite: str,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    micro_batch_size: int,
) -> None:
    """A second worker reports its different device, times nothing, and limits a micro-batch that is a resource."""
    (tmp_path / "small.toml").write_text(DEFINITION.format(model=model))
    assert run("create-study", "small.toml", "--data", str(generated))[0] == 0
    heard: list[tuple[str, dict[str, Any]]] = []

    def emit(event: str, /, **fields: Any) -> None:
        heard.append((event, fields))

    with open_storage(storage_url_sqlite) as storage:

        def opened() -> session.Session:
            study = studies.load_study(storage, "small")
            return session.open_session(
                storage, study, data_root=generated, device="cpu", worker="w", emit=emit, stop=StopRequest()
            )

        first = opened()
        stored = studies.load_study(storage, "small").settings["probed"]
        assert [event for event, _ in heard] == ["setting"]
        assert stored["device"] == probe.device_name(CPU)
        assert len(stored["timings"]) == 2
        assert first.hyperparameters({"drop_rate": 0.2}).micro_batch_size == 32
        shown = status_text.to_text(status.of_study(storage, first.study))
        assert words.settings(stored) in shown
        assert stored["device"] in shown

        monkeypatch.setattr(probe, "device_name", lambda device: "another")
        monkeypatch.setattr(probe, "micro_batch_size", lambda hp, device: 4)
        monkeypatch.setattr(probe, "choose", None)
        second = opened()
        assert heard[-1] == (
            "hardware",
            {"study": "small", "device": "another", "probed_on": stored["device"], "micro_batch_size": 4},
        )
        assert studies.load_study(storage, "small").settings["probed"] == stored
        assert second.hyperparameters({"drop_rate": 0.2}).micro_batch_size == micro_batch_size


def test_a_study_probed_before_graphs_were_compiled_goes_on(
    run: Run, generated: Path, tmp_path: Path, storage_url_sqlite: str
) -> None:
    """Its stored settings name two fields only; its trials are not compiled, and its status can be shown."""
    (tmp_path / "small.toml").write_text(DEFINITION.format(model="fcnn"))
    assert run("create-study", "small.toml", "--data", str(generated))[0] == 0
    with open_storage(storage_url_sqlite) as storage:
        old = {"precision": "bf16", "memory_format": "channels_last"}
        study = studies.set_setting(storage, studies.load_study(storage, "small"), "probed", old)
        assert settings(studies.hyperparameters(study, {"drop_rate": 0.2})) == ("bf16", "channels_last", "off")
    code, _, err = run("worker", "small", "--devices", "cpu", "--per-device", "1", "--data", str(generated))
    assert code == 0
    assert "event=hardware" not in err
    assert "settings: bf16 channels_last\n" in run("status", "small")[1]


def test_no_number_of_the_probe_reaches_training() -> None:
    """Probing leaves torch's random state as it was."""
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    probe.choose(hyperparameters("fcnn"), CPU)

    assert torch.equal(torch.rand(1), expected)
    assert not torch.are_deterministic_algorithms_enabled()
