"""Tests of mhist_tune.optim."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from mhist_tune.hyperparameters import Hyperparameters
from mhist_tune.optim import build_optimizer, build_scheduler


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
