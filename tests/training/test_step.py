"""Tests of mhist_tune.training.step: the scaled loss of fp16, and graphs that models share."""

from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.training import step
from mhist_tune.training.forward import logits_of, reproducible
from mhist_tune.training.models import create_model
from mhist_tune.training.step import Stepper

CPU = torch.device("cpu")


def hyperparameters(**options: Any) -> Hyperparameters:
    defaults = {"model": "fcnn", "weights": "random", "image_size": 32, "precision": "fp32", "compile": "off"}
    return Hyperparameters(
        **defaults | {"memory_format": "contiguous", "effective_batch_size": 8, "micro_batch_size": 4} | options
    )


def stepper_of(hp: Hyperparameters, seed: int = 0) -> tuple[torch.nn.Module, Stepper]:
    torch.manual_seed(seed)
    model = create_model(hp).train()
    return model, Stepper(model, hp)


def batch(n: int, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(n, 3, 32, 32, generator=generator), torch.arange(n).remainder(2).float()


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_fp16_moves_the_weights_as_fp32_does() -> None:
    """The scale of the loss is taken out of the gradients again; without fp16 there is none."""
    moves = []
    for precision in ("fp32", "fp16"):
        model, stepper = stepper_of(hyperparameters(precision=precision, optimizer="sgd", learning_rate=0.1))
        assert stepper.scaler.is_enabled() == (precision == "fp16")
        before = weights(model)
        images, targets = batch(8)
        for part in stepper.updates(8)[0]:
            stepper.add(images[part], targets[part], 8)
        stepper.update()
        assert all(parameter.grad is None for parameter in model.parameters())
        moves.append(weights(model) - before)

    assert moves[0].norm() > 0
    assert torch.linalg.vector_norm(moves[0] - moves[1]) < 0.02 * moves[0].norm()


def test_an_overflowing_update_is_left_out_and_halves_the_scale() -> None:
    """Gradients beyond fp16's range move nothing; the next update, with the smaller scale, does."""
    model, stepper = stepper_of(hyperparameters(precision="fp16"))
    before, scale = weights(model), stepper.scaler.get_scale()
    images, targets = batch(8, scale=1e3)
    stepper.scaler.load_state_dict({**stepper.scaler.state_dict(), "scale": 2.0**40})
    stepper.add(images, targets, 8)
    stepper.update()

    assert torch.equal(weights(model), before)
    assert stepper.scaler.get_scale() == 2.0**39
    stepper.scaler.load_state_dict({**stepper.scaler.state_dict(), "scale": scale / 2**16})
    stepper.add(images, targets, 8)
    stepper.update()
    assert not torch.equal(weights(model), before)


def test_fused_updates_are_for_gpus() -> None:
    """On a CPU the optimizer is the plain one, whose numbers the golden losses have."""
    for name in ("adam", "adamw", "sgd"):
        _, stepper = stepper_of(hyperparameters(optimizer=name))
        assert stepper.optimizer.defaults["fused"] is False


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_products_are_short_in_tf32_only(precision: str) -> None:
    """fp32 is all of it, in convolutions as well; torch gets its own setting back."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with reproducible(hyperparameters(precision=precision), CPU):
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == (precision == "tf32")
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> CompileCounterWithBackend:
    """Count the graphs that torch makes; code is not generated for them, which would take a minute."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(logits_of, backend=counter, dynamic=False)
    monkeypatch.setattr(step, "compiled_logits_of", lambda: compiled)
    return counter


def test_trials_share_a_graph(graphs: CompileCounterWithBackend) -> None:
    """Other weights and another learning rate use the same graph; another dropout rate needs one of its own."""
    images, targets = batch(4)
    common = {"compile": "on", "dropout_placement": "head"}
    for seed, (options, n_graphs) in enumerate(
        [({}, 1), ({"learning_rate": 0.3}, 1), ({"optimizer": "sgd"}, 1), ({"drop_rate": 0.2}, 2), ({}, 2)]
    ):
        hp = hyperparameters(**common | options)
        model, stepper = stepper_of(hp, seed)
        torch.manual_seed(5)
        loss = stepper.add(images, targets, 4)
        assert graphs.frame_count == n_graphs
        torch.manual_seed(5)
        expected = torch.nn.functional.binary_cross_entropy_with_logits(
            logits_of(model, images, hp), targets, reduction="sum"
        )
        torch.testing.assert_close(loss, expected.detach())


def test_an_odd_micro_batch_is_not_compiled(graphs: CompileCounterWithBackend) -> None:
    """An epoch of 8 + 8 + 3 images by fours makes one graph, not two."""
    images, targets = batch(19)
    _, stepper = stepper_of(hyperparameters(compile="on"))
    for update in stepper.updates(19):
        for part in update:
            stepper.add(images[part], targets[part], update[-1].stop - update[0].start)
        stepper.update()

    assert graphs.frame_count == 1
