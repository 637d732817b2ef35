"""How a sampling strategy changes the votes that an epoch sees, as a figure."""

import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mhist_tune.dataset import load_train
from mhist_tune.features import image_features
from mhist_tune.hyperparameters import N_ANNOTATORS, Hyperparameters
from mhist_tune.sampling import plan


def sampled_votes(root: Path, path: Path, strategy: str, *, seed: int) -> None:
    """Write a PNG with the number of train images, and of images in the first epoch of a seed, at each number of votes.

    Images are compared at the default image size.

    Raises:
        DataError: the table or a train image is missing or damaged.
    """
    with tempfile.TemporaryDirectory() as folder:
        train = load_train(root, image_size=Hyperparameters().image_size, cache_dir=Path(folder))
        sampling = plan(strategy, train.labels.numpy(), lambda: image_features(train.images))
    votes = train.votes.numpy()
    drawn = votes[sampling.draw(seed=seed, epoch=1).indices]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for offset, shown, name in ((-0.2, votes, "train partition"), (0.2, drawn, f"an epoch with {strategy}")):
        counts = np.bincount(shown, minlength=N_ANNOTATORS + 1)
        axes.bar(np.arange(N_ANNOTATORS + 1) + offset, counts, width=0.4, label=f"{name}, {len(shown)} images")
    axes.set_xlabel(f"annotators of {N_ANNOTATORS} who chose SSA")
    axes.set_ylabel("images")
    if sampling.fallback:
        axes.set_title(sampling.fallback, fontsize=8, wrap=True)
    axes.legend()
    figure.savefig(path, dpi=110)
