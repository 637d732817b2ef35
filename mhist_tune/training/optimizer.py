"""The optimizer, and the learning rate and weight decay of each epoch."""

import math
from typing import Any

import numpy as np
from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mhist_tune.definition.hyperparameters import Hyperparameters


def build_optimizer(model: nn.Module, hp: Hyperparameters) -> Optimizer:
    """Return Adam, AdamW or SGD over all parameters that are not frozen, fused if the model is on a GPU.

    Weight decay is always passed, because AdamW's default is 0.01 and not 0. With a layer decay below 1, each of timm's
    layer groups has its own learning rate. The weight decay is the same for all parameters; timm's groups would drop
    it for biases and norms.
    """
    parameters: Any = [parameter for parameter in model.parameters() if parameter.requires_grad]
    options: dict[str, Any] = {
        "lr": hp.learning_rate,
        "weight_decay": hp.weight_decay,
        "fused": parameters[0].is_cuda,
    }
    if hp.layer_decay < 1.0:
        groups = param_groups_layer_decay(model, weight_decay=hp.weight_decay, layer_decay=hp.layer_decay)
        parameters = [{"params": group["params"], "lr": hp.learning_rate * group["lr_scale"]} for group in groups]
    if hp.optimizer == "sgd":
        return SGD(parameters, momentum=hp.momentum, **options)
    return (Adam if hp.optimizer == "adam" else AdamW)(parameters, **options)


def build_scheduler(optimizer: Optimizer, hp: Hyperparameters) -> LambdaLR:
    """Return the learning rate schedule. It is stepped once after each epoch.

    After e finished epochs the learning rate is `hp.learning_rate` times learning_rate_decay ** e (exponential), 1
    (constant) or (1 + cos(pi e / epochs)) / 2 (cosine). With w warm-up epochs, the first w epochs have 1, 2, ... w
    times 1 / (w + 1) of the learning rate. The schedule starts after them and spans the remaining epochs.
    """

    def factor(n_finished: int) -> float:
        if n_finished < hp.warmup_epochs:
            return (n_finished + 1) / (hp.warmup_epochs + 1)
        n_finished -= hp.warmup_epochs
        if hp.learning_rate_schedule == "exponential":
            return hp.learning_rate_decay**n_finished
        if hp.learning_rate_schedule == "cosine":
            return (1 + math.cos(math.pi * n_finished / max(1, hp.epochs - hp.warmup_epochs))) / 2
        return 1.0

    return LambdaLR(optimizer, factor)


def current_learning_rate(optimizer: Optimizer) -> float:
    """Return the highest learning rate of all parameter groups, which is that of the head."""
    return max(float(group["lr"]) for group in optimizer.param_groups)


def effective_weight_decay(hp: Hyperparameters, learning_rate: float) -> float:
    """Return the weight decay that an epoch applies after rounding, on the scale of `hp.weight_decay`.

    AdamW multiplies the weights by 1 - learning_rate x weight_decay. float32 rounds this factor to steps of 6e-8. For a
    product below 2**-25 (3e-8) the factor is exactly 1, and no weight decays.
    """
    if hp.optimizer != "adamw":
        return hp.weight_decay
    return (1.0 - float(np.float32(1.0 - learning_rate * hp.weight_decay))) / learning_rate
