"""Figures of a data folder: train images for each number of votes, and the votes of both partitions."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mhist_tune.data.annotations import PARTITIONS, read_annotations, read_rows
from mhist_tune.data.decoding import decode
from mhist_tune.data.row_checks import count
from mhist_tune.errors import DataError
from mhist_tune.mhist import MIN_POSITIVE_VOTES, N_ANNOTATORS, NEGATIVE_CLASS, POSITIVE_CLASS
from mhist_tune.reading import read_file


def contact_sheet(root: Path, path: Path, *, seed: int) -> None:
    """Write a PNG with up to four random train images for each number of votes.

    Raises:
        DataError: the table or one of the images is missing or damaged.
    """
    train = read_annotations(root, "train")
    rng = np.random.default_rng(seed)
    n_rows = 4
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    axes = figure.subplots(n_rows, N_ANNOTATORS + 1)
    for votes, column in enumerate(axes.T):
        label = POSITIVE_CLASS if votes >= MIN_POSITIVE_VOTES else NEGATIVE_CLASS
        column[0].set_title(f"{votes}/{N_ANNOTATORS} {label}")
        members = rng.permutation(np.flatnonzero(train.votes == votes))[:n_rows]
        for axis in column:
            axis.set_axis_off()
        for axis, index in zip(column, members, strict=False):
            try:
                axis.imshow(decode(read_file(train.paths[index])))
            except (OSError, ValueError) as error:
                raise DataError(f"image {train.paths[index]}: {error}", hint=f"mhist-tune data check {root}") from error
    figure.savefig(path, dpi=110)


def vote_histogram(root: Path, path: Path) -> None:
    """Write a PNG with the share of images at each number of votes, for both partitions.

    Raises:
        DataError: the table is missing or damaged.
    """
    rows = read_rows(root)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for offset, partition in zip((-0.2, 0.2), PARTITIONS, strict=True):
        counts = count([row for row in rows if row.partition == partition])
        share = np.array(counts.by_votes) / max(1, counts.n_images)
        axes.bar(np.arange(N_ANNOTATORS + 1) + offset, share, width=0.4, label=f"{partition}, {counts.n_images} images")
    axes.axvline(MIN_POSITIVE_VOTES - 0.5, color="0.3", linestyle="--", linewidth=1)
    axes.set_xlabel(f"annotators of {N_ANNOTATORS} who chose {POSITIVE_CLASS}")
    axes.set_ylabel("share of the partition")
    axes.legend()
    figure.savefig(path, dpi=110)
