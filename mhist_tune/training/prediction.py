"""The probabilities that a trained model predicts."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mhist_tune.arrays import FloatArray
from mhist_tune.data.images import ImageSet
from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.training import weight_files
from mhist_tune.training.forward import evaluate, probabilities_of, ready, reproducible
from mhist_tune.training.models import create_model


def predict(
    state_dict: Mapping[str, Tensor],
    hp: Hyperparameters,
    images: ImageSet,
    *,
    device: torch.device,
    batch_size: int | None = None,
) -> FloatArray:
    """Return the probability of the positive class of each image, float64 [n], strictly between 0 and 1.

    Args:
        state_dict: weights as in `FitResult`.
        hp: the run's hyperparameters, resolved.
        images: at `hp.image_size`.
        device: where the model runs.
        batch_size: images in one pass; None for the size that `forward.EVALUATION_BATCH` gives.
    """
    with reproducible(hp, device):
        logits = evaluate(trained_model(state_dict, hp, device), images.to(device), hp, batch_size=batch_size)
    return probabilities_of(logits).cpu().numpy()


def trained_model(state_dict: Mapping[str, Tensor], hp: Hyperparameters, device: torch.device) -> nn.Module:
    """Return a run's model with its trained weights on a device. Changes torch's global random state.

    Raises:
        RuntimeError: the weights do not fit the model.
    """
    model = create_model(weight_files.without(hp))
    model.load_state_dict(state_dict)
    return ready(model, hp, device)
