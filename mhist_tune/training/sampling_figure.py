"""A figure of the votes in an epoch with and without a sampling strategy."""

import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mhist_tune.data.cache import load_train
from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.mhist import N_ANNOTATORS
from mhist_tune.training.features import image_features
from mhist_tune.training.sampling import prepare


def sampled_votes(root: Path, path: Path, strategy: str, *, seed: int) -> None:
    """Write a PNG with the number of images for each number of votes, in the train partition and in one epoch.

    adasyn and tomek find neighbours at the default image size.

    Args:
        root: folder of the data set.
        path: PNG file to write.
        strategy: one of `sampling.STRATEGIES`.
        seed: of the run; its first epoch is drawn.

    Raises:
        DataError: the annotations or a train image are missing or damaged.
        ValueError: `strategy` is unknown.
    """
    with tempfile.TemporaryDirectory() as folder:
        train = load_train(root, image_size=Hyperparameters().image_size, cache_dir=Path(folder))
        votes = train.votes.numpy()
        sampling = prepare(strategy, train.labels.numpy(), votes, lambda: image_features(train.images))
    epoch_votes = votes[sampling.draw(seed=seed, epoch=1).indices]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for offset, values, name in ((-0.2, votes, "train partition"), (0.2, epoch_votes, f"an epoch with {strategy}")):
        counts = np.bincount(values, minlength=N_ANNOTATORS + 1)
        axes.bar(np.arange(N_ANNOTATORS + 1) + offset, counts, width=0.4, label=f"{name}, {len(values)} images")
    axes.set_xlabel(f"votes for SSA, of {N_ANNOTATORS} annotators")
    axes.set_ylabel("images")
    if sampling.fallback:
        axes.set_title(sampling.fallback, fontsize=8, wrap=True)
    axes.legend()
    figure.savefig(path, dpi=110)
