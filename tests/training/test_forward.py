"""Tests of mhist_tune.training.forward."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils import deterministic

from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.training import forward
from mhist_tune.training.augmentation import normalize_
from mhist_tune.training.forward import evaluate, logits_of, probabilities_of, ready, reproducible, statistics_on
from mhist_tune.training.models import create_model

CPU = torch.device("cpu")


def hyperparameters(model: str = "test_vit", **options: Any) -> Hyperparameters:
    fixed = {"weights": "random", "image_size": 32, "precision": "fp32", "memory_format": "contiguous"}
    return Hyperparameters(**{"model": model} | fixed | options)


def images(n: int = 10) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)


def model_of(hp: Hyperparameters) -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model(hp)


@pytest.mark.parametrize("model", ["test_vit", "test_resnet", "fcnn"])
def test_evaluation_does_not_depend_on_the_batch(model: str) -> None:
    """Dropout and batch statistics are off, inputs are normalized, and the batch size is only a resource."""
    hp = hyperparameters(model, dropout_placement="head")
    built = model_of(hp)

    logits = evaluate(built, images(), hp, batch_size=3)

    expected = built.eval()(normalize_(images().float() / 255, *statistics_on(CPU, hp))).flatten().detach()
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits, expected.double(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(evaluate(built, images(), hp), logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model", ["test_vit", "test_resnet", "fcnn"])
def test_bf16_keeps_the_head_in_float32(model: str) -> None:
    """Logits in bf16 are near those in fp32 but not equal, and finer than bf16 itself."""
    hp = hyperparameters(model)
    built = model_of(hp).eval()
    inputs = images().float() / 255

    with torch.inference_mode():
        fp32, bf16 = (logits_of(built, inputs, replace(hp, precision=name)) for name in ("fp32", "bf16"))

    assert bf16.dtype == torch.float32
    torch.testing.assert_close(fp32, bf16, atol=0.05, rtol=0.05)
    assert not torch.equal(fp32, bf16)
    assert not torch.equal(bf16, bf16.bfloat16().float())


def test_bf16_takes_a_head_of_several_scales() -> None:
    """CoaT's head is given a list of features, which are float32 there too."""
    hp = hyperparameters("coat_tiny", precision="bf16")

    with torch.inference_mode():
        logits = logits_of(model_of(hp).eval(), images(1).float() / 255, hp)

    assert logits.dtype == torch.float32
    assert bool(logits.isfinite().all())


def test_probabilities_stay_inside_the_open_interval() -> None:
    """Huge logits give neither 0 nor 1, so that they never pass for classes and the log loss stays finite."""
    probabilities = probabilities_of(torch.tensor([-1e6, -1.0, 0.0, 1e6], dtype=torch.float64))

    assert 0 < probabilities[0] < probabilities[1] < probabilities[2] < probabilities[3] < 1
    assert probabilities[2] == 0.5


def test_channels_last_gives_the_same_logits() -> None:
    """The memory format changes the order of additions, not the model."""
    hp = hyperparameters("test_resnet")
    inputs = images().float() / 255
    model = model_of(hp).eval()
    with torch.inference_mode():
        expected = logits_of(model, inputs, hp)
        last = replace(hp, memory_format="channels_last")
        got = logits_of(ready(model, last, CPU), inputs, last)

    assert model.conv1[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_a_reproducible_block_leaves_the_random_state_alone() -> None:
    """What is drawn inside does not move the generator outside, even when the block fails."""
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with pytest.raises(KeyError), reproducible(hyperparameters(), CPU):
        torch.manual_seed(9)
        raise KeyError

    assert torch.equal(torch.rand(1), expected)


class Scattering(torch.nn.Module):
    """A model with an operation that torch has no deterministic kernel for, on any device."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = images.flatten(1)[:, 0] * self.scale
        return torch.zeros(len(values)).put_(torch.arange(len(values)), values)


@pytest.fixture
def like_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A GPU's name, with the CPU doing what it is asked for."""
    forked = torch.random.fork_rng
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: forked(devices=[]))
    monkeypatch.setattr(forward, "ready", lambda model, hp, device: ready(model, hp, CPU))
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, device=None: zeros(*size))
    forward._has_deterministic_kernels.cache_clear()
    yield torch.device("cuda")
    forward._has_deterministic_kernels.cache_clear()


@pytest.mark.parametrize("has_kernels", [True, False])
def test_on_a_gpu_torch_warns_only_where_a_model_needs_it(
    like_a_gpu: torch.device, monkeypatch: pytest.MonkeyPatch, *, has_kernels: bool
) -> None:
    """Strict, torch's attention is deterministic as well; nothing is filled, and the process gets its settings back."""
    settings: Any = deterministic
    if not has_kernels:
        monkeypatch.setattr(forward, "create_model", lambda hp: Scattering())
    with reproducible(hyperparameters(), like_a_gpu):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled() != has_kernels
        assert not settings.fill_uninitialized_memory

    assert not torch.are_deterministic_algorithms_enabled()
    assert settings.fill_uninitialized_memory


def test_a_studys_trials_ask_once_for_deterministic_kernels(
    like_a_gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a search varies changes no kernel; any other error of the step is the model's own."""
    made = list[Hyperparameters]()
    monkeypatch.setattr(forward, "create_model", lambda hp: made.append(hp) or create_model(hp))
    for learning_rate in (1e-3, 1e-4):
        with reproducible(hyperparameters(learning_rate=learning_rate), like_a_gpu):
            pass
    assert len(made) == 1

    monkeypatch.setattr(forward, "create_model", lambda hp: torch.nn.Linear(1, 1))
    with pytest.raises(RuntimeError, match="shapes"), reproducible(hyperparameters(image_size=48), like_a_gpu):
        pass
