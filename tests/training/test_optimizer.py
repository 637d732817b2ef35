"""Tests of mhist_tune.training.optimizer."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.training.models import create_model
from mhist_tune.training.optimizer import (
    build_optimizer,
    build_scheduler,
    current_learning_rate,
    effective_weight_decay,
)


def trained(**options: Any) -> torch.Tensor:
    """Return the weights of a small layer after a few updates."""
    torch.manual_seed(0)
    layer = nn.Linear(5, 1)
    optimizer = build_optimizer(layer, Hyperparameters(**options))
    for _ in range(4):
        optimizer.zero_grad()
        layer(torch.ones(3, 5)).square().mean().backward()
        optimizer.step()
    return layer.weight.detach()


def test_no_weight_decay_means_none() -> None:
    """AdamW's own default of 0.01 never slips in: without decay it is Adam, bit by bit."""
    adamw = trained(optimizer="adamw", weight_decay=0.0, learning_rate=1e-5)

    assert torch.equal(adamw, trained(optimizer="adam", weight_decay=0.0, learning_rate=1e-5))


def test_a_small_decay_at_a_small_learning_rate_does_nothing() -> None:
    """Below learning_rate x weight_decay = 2**-25 AdamW's factor is exactly 1 in float32; above, it acts."""
    without = trained(optimizer="adamw", weight_decay=0.0, learning_rate=1e-5)

    assert torch.equal(without, trained(optimizer="adamw", weight_decay=1e-3, learning_rate=1e-5))
    assert not torch.equal(without, trained(optimizer="adamw", weight_decay=0.1, learning_rate=1e-5))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("exponential", [0.1, 0.05, 0.025, 0.0125]),
        ("constant", [0.1] * 4),
        ("cosine", [0.1 * (1 + math.cos(math.pi * e / 4)) / 2 for e in range(4)]),
    ],
)
def test_the_learning_rate_of_each_epoch(schedule: Any, expected: list[float]) -> None:
    """The first epoch has the given rate; each further one follows the formula."""
    layer = nn.Linear(2, 1)
    hp = Hyperparameters(learning_rate=0.1, learning_rate_schedule=schedule, learning_rate_decay=0.5, epochs=4)
    optimizer = build_optimizer(layer, hp)
    scheduler = build_scheduler(optimizer, hp)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()

    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("exponential", [1 / 3, 2 / 3, 1, 0.5, 0.25]), ("constant", [1 / 3, 2 / 3, 1, 1, 1]), ("cosine", None)],
)
def test_warm_up_comes_before_the_schedule(schedule: Any, expected: list[float] | None) -> None:
    """The rate rises in equal steps to the given one, from which the schedule starts over the epochs left."""
    hp = Hyperparameters(
        learning_rate=1.0, learning_rate_schedule=schedule, learning_rate_decay=0.5, warmup_epochs=2, epochs=5
    )
    optimizer = build_optimizer(nn.Linear(2, 1), hp)
    scheduler = build_scheduler(optimizer, hp)
    rates = []
    for _ in range(5):
        rates.append(current_learning_rate(optimizer))
        optimizer.step()
        scheduler.step()

    assert rates == pytest.approx(expected or [1 / 3, 2 / 3, *((1 + math.cos(math.pi * e / 3)) / 2 for e in range(3))])


def test_a_warm_up_longer_than_the_run_never_ends() -> None:
    """No schedule is left after it, and nothing divides by zero."""
    hp = Hyperparameters(learning_rate_schedule="cosine", warmup_epochs=9, epochs=3)
    scheduler = build_scheduler(build_optimizer(nn.Linear(2, 1), hp), hp)

    assert scheduler.lr_lambdas[0](9) == 1.0


def test_sgd_has_its_momentum() -> None:
    """With momentum the same steps go further, and weight decay is an L2 term."""
    plain = trained(optimizer="sgd", momentum=0.0)

    assert not torch.equal(plain, trained(optimizer="sgd", momentum=0.9))
    assert not torch.equal(plain, trained(optimizer="sgd", momentum=0.0, weight_decay=0.5))


@pytest.mark.parametrize("name", ["test_vit", "resnet18", "fcnn"])
def test_layer_decay_lowers_the_rate_away_from_the_head(name: str) -> None:
    """The head has the full learning rate, each layer before it less by a factor; all have the same weight decay."""
    hp = Hyperparameters(model=name, weights="random", image_size=32, layer_decay=0.5, weight_decay=0.3)
    model = create_model(hp)
    optimizer = build_optimizer(model, hp)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    by_name = {key: rates[id(parameter)] / hp.learning_rate for key, parameter in model.named_parameters()}
    first = {"test_vit": "patch_embed.proj.weight", "resnet18": "conv1.weight", "fcnn": "features.1.weight"}[name]

    assert len(rates) == len(by_name)
    assert max(rates.values()) == current_learning_rate(optimizer) == hp.learning_rate
    assert min(by_name, key=by_name.__getitem__) in (first, "cls_token", "pos_embed", "bn1.weight")
    assert set(by_name.values()) == {0.5**power for power in range(len(set(by_name.values())))}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.3}


@pytest.mark.parametrize(
    ("optimizer", "learning_rate", "weight_decay", "expected"),
    [
        ("adamw", 1e-5, 1e-4, 0.0),
        ("adamw", 1e-5, 1e-3, 0.0),
        ("adamw", 1e-5, 0.01, 2**-23 / 1e-5),
        ("adamw", 1e-3, 0.1, 0.1),
        ("adam", 1e-5, 1e-4, 1e-4),
        ("sgd", 1e-5, 1e-4, 1e-4),
    ],
)
def test_the_weight_decay_that_float32_applies(
    optimizer: Any, learning_rate: float, weight_decay: float, expected: float
) -> None:
    """AdamW's is rounded to steps of 6e-8 per update, the L2 terms are what they are."""
    hp = Hyperparameters(optimizer=optimizer, weight_decay=weight_decay)

    assert effective_weight_decay(hp, learning_rate) == pytest.approx(expected, rel=0.01)
