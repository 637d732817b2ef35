"""The optimizer and the learning rate of each epoch."""

import math

from torch import nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mhist_tune.hyperparameters import Hyperparameters


def build_optimizer(model: nn.Module, hp: Hyperparameters) -> Optimizer:
    """Return Adam or AdamW over all parameters, fused where the model lies on a GPU.

    Weight decay is always passed: AdamW's own default is 0.01, not 0. AdamW multiplies by 1 - learning_rate x
    weight_decay, which is exactly 1 in float32 while the product stays below 2**-25 (3e-8).
    """
    parameters = list(model.parameters())
    build = Adam if hp.optimizer == "adam" else AdamW
    is_fused = parameters[0].is_cuda
    return build(parameters, lr=hp.learning_rate, weight_decay=hp.weight_decay, fused=is_fused)


def build_scheduler(optimizer: Optimizer, hp: Hyperparameters) -> LambdaLR:
    """Return the schedule, stepped once after each epoch.

    With e finished epochs the learning rate is the first one times learning_rate_decay ** e (exponential), 1
    (constant) or (1 + cos(pi e / epochs)) / 2 (cosine).
    """

    def factor(n_finished: int) -> float:
        if hp.learning_rate_schedule == "exponential":
            return hp.learning_rate_decay**n_finished
        if hp.learning_rate_schedule == "cosine":
            return (1 + math.cos(math.pi * n_finished / hp.epochs)) / 2
        return 1.0

    return LambdaLR(optimizer, factor)
