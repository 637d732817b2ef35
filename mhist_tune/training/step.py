"""The training step: forward pass, loss, backward pass, update. Training and the timing of settings share it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.training.forward import compiled_logits_of, logits_of
from mhist_tune.training.models import has_batch_norm
from mhist_tune.training.optimizer import build_optimizer
from mhist_tune.training.sampling import cut_updates


class Stepper:
    """Computes gradients of one model and updates its weights.

    In fp16 the loss is scaled so that small gradients are not rounded to zero. An update whose scaled gradients
    overflow is skipped, and the scale is halved (Micikevicius et al. 2018, arXiv:1710.03740). Neither waits for a GPU.

    Args:
        model: on its device, see `forward.ready`.
        hp: resolved, see `probe.resolve`.

    Attributes:
        is_coupled: whether the images of a micro-batch affect each other (unfrozen BatchNorm).
        optimizer: of the parameters that are not frozen.
        scaler: scales the loss in fp16; does nothing in other precisions.
    """

    def __init__(self, model: nn.Module, hp: Hyperparameters) -> None:
        self._model, self._hp = model, hp
        self.is_coupled = has_batch_norm(model)
        self.optimizer = build_optimizer(model, hp)
        device = next(model.parameters()).device
        self.scaler = torch.amp.GradScaler(device.type, enabled=hp.precision == "fp16")
        # torch compiles each batch size anew. The sizes of a full update are worth that, those of the last one are not.
        (parts, *_) = self.updates(hp.effective_batch_size)
        self._compiled_sizes = {part.stop - part.start for part in parts} if hp.compile == "on" else set()

    def updates(self, n_images: int) -> list[list[slice]]:
        """Return the micro-batches of each update of an epoch of `n_images`; see `sampling.cut_updates`."""
        return cut_updates(
            n_images,
            effective_batch_size=self._hp.effective_batch_size,
            micro_batch_size=self._hp.micro_batch_size,
            is_coupled=self.is_coupled,
        )

    def add(self, images: Tensor, targets: Tensor, n_in_update: int) -> Tensor:
        """Add the gradients of a micro-batch to those of its update.

        Args:
            images: normalized, float [B, 3, H, W].
            targets: float [B], 0..1.
            n_in_update: images in the whole update, whose mean loss is minimized.

        Returns:
            The sum of the B losses, a scalar on the device.
        """
        forward = compiled_logits_of() if len(images) in self._compiled_sizes else logits_of
        logits = forward(self._model, images, self._hp)
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        torch.autograd.backward(self.scaler.scale(loss / n_in_update))
        return loss.detach()

    def update(self) -> None:
        """Update the weights with the added gradients, and reset the gradients."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
