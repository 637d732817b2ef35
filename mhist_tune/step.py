"""The training step: forward, loss, backward, update. Training runs it, and so does all that measures training."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhist_tune.forward import compiled_logits_of, logits_of
from mhist_tune.hyperparameters import Hyperparameters
from mhist_tune.models import has_batch_norm
from mhist_tune.optim import build_optimizer
from mhist_tune.sampling import plan_updates


class Stepper:
    """The updates of one model.

    In fp16 the loss is scaled so that small gradients are not rounded to zero; an update whose scaled gradients
    overflow is left out and the scale halved (Micikevicius et al. 2018, arXiv:1710.03740). On a GPU neither waits for
    the device.

    Args:
        model: on its device, see `forward.ready`.
        hp: resolved.

    Attributes:
        is_coupled: whether the images of a micro-batch influence each other.
        optimizer: of the weights that learn.
        scaler: of the loss; it does nothing but in fp16.
    """

    def __init__(self, model: nn.Module, hp: Hyperparameters) -> None:
        self._model, self._hp = model, hp
        self.is_coupled = has_batch_norm(model)
        self.optimizer = build_optimizer(model, hp)
        device = next(model.parameters()).device
        self.scaler = torch.amp.GradScaler(device.type, enabled=hp.precision == "fp16")
        # Each size would be a graph of its own: those of a whole update are worth it, those of an epoch's last one not.
        (parts, *_) = self.updates(hp.effective_batch_size)
        self._compiled_sizes = {part.stop - part.start for part in parts} if hp.compile == "on" else set()

    def updates(self, n_images: int) -> list[list[slice]]:
        """Return the updates of an epoch, and the micro-batches of each; see `sampling.plan_updates`."""
        return plan_updates(
            n_images,
            effective_batch_size=self._hp.effective_batch_size,
            micro_batch_size=self._hp.micro_batch_size,
            is_coupled=self.is_coupled,
        )

    def add(self, images: Tensor, targets: Tensor, n_in_update: int) -> Tensor:
        """Add the gradients of a micro-batch, and return the sum of its losses, a scalar on the device.

        Args:
            images: normalized, [B, 3, H, W].
            targets: 0..1, [B].
            n_in_update: the images of the whole update, whose mean loss is minimized.
        """
        logits_by = compiled_logits_of() if len(images) in self._compiled_sizes else logits_of
        logits = logits_by(self._model, images, self._hp)
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        torch.autograd.backward(self.scaler.scale(loss / n_in_update))
        return loss.detach()

    def update(self) -> None:
        """Move the weights by the gradients that were added, and forget these."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
