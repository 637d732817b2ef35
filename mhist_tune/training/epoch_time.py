"""The seconds of an epoch on a device, measured before a study is trained."""

from dataclasses import replace

import torch

from mhist_tune.data.images import ImageSet
from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.training import weight_files
from mhist_tune.training.fit import fit
from mhist_tune.training.fit_result import EpochResult
from mhist_tune.training.probe import resolve

_OVER = ("random_over", "smote", "adasyn", "adasyn_votes")
_N_UPDATES = {"cpu": 2, "cuda": 16}  # of an epoch: on a GPU two would measure what comes before and after them
_N_EPOCHS = 2  # the first one includes set-up


def measure(hp: Hyperparameters, device: torch.device, *, n_train: int, n_positive: int, n_val: int) -> float:
    """Return the seconds of an epoch with validation, from a short training with random weights on images of noise.

    Args:
        hp: the hyperparameters; fields that are "auto" are measured first.
        device: the device to train on.
        n_train: number of training images.
        n_positive: number of these that are SSA.
        n_val: number of validation images.
    """
    n = _N_UPDATES[device.type] * min(32, hp.effective_batch_size)
    generator = torch.Generator().manual_seed(0)
    images = ImageSet(
        pixels=torch.randint(0, 256, (n, 3, hp.image_size, hp.image_size), dtype=torch.uint8, generator=generator),
        labels=torch.arange(n).remainder(2).float(),
        votes=torch.arange(n).remainder(2).mul(7),
        names=tuple(str(number) for number in range(n)),
        groups=None,
    )
    tried = replace(
        weight_files.without(hp), freeze="none", sampling="none", exclude_votes=(), n_per_class=0, epochs=_N_EPOCHS
    )
    rates: list[float] = []

    def add_rate(result: EpochResult) -> None:
        rates.append(float(result.metrics["images_per_s"] or 1.0))

    fit(
        resolve(tried, device),
        images,
        None,
        seed=0,
        device=device,
        checkpoint=None,
        on_epoch=add_rate,
        on_step=lambda n_done, n_images: None,
    )
    n_drawn = 2 * max(n_train - n_positive, n_positive) if hp.sampling in _OVER else n_train
    return (n_drawn + n_val / 3) / rates[-1]  # a forward pass is a third of a step
