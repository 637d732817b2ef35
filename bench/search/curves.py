"""The recorded learning curves of `bench.search.record_curves`, and their scores.

A file is an npz of one recording. With C configurations, E epochs and, for each seed s, its own images:

- `header`: JSON text: the space, the fixed hyperparameters, the params of each configuration, the data's fingerprint
- `labels`, `votes`, `groups`: of each image of the train partition, [N]
- `fit_images_s`, `val_images_s`, `truth_images_s`: positions of the images that seed s trained on, validated on and
  was scored on
- `val_s`, `truth_s`: float16 log odds of SSA after each epoch, [C, E, images]; NaN after an epoch that diverged
- `train_loss_s`, `seconds_s`: of each epoch, [C, E]
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mhist_tune.definition import space
from mhist_tune.statistics.binary_metrics import weighted_auroc
from mhist_tune.statistics.mean_f1 import THRESHOLDS

SCORES: tuple[str, ...] = ("f1", "mean_f1", "auroc")

Params = Mapping[str, Any]
Scores = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Curves:
    """One recording.

    Attributes:
        name: of the recording.
        header: what the file says about it.
        space: the searched hyperparameters.
        params: of each configuration.
        val, truth: each score of `SCORES` on the images of each seed, [seeds, C, E].
        is_trivial: whether the model calls all validation images one class, [seeds, C, E].
        seconds: of each epoch, [seeds, C, E].
        val_labels: of the validation images of each seed.
        val_last: their probabilities after the last epoch, [C, images] for each seed.
        val_groups: their groups.
    """

    name: str
    header: Mapping[str, Any]
    space: Mapping[str, space.Dimension]
    params: list[Params]
    val: Scores
    truth: Scores
    is_trivial: np.ndarray
    seconds: np.ndarray
    val_labels: list[np.ndarray]
    val_last: list[np.ndarray]
    val_groups: list[list[str]]

    @property
    def n_seeds(self) -> int:
        """Return the number of seeds."""
        return len(self.seconds)

    @property
    def n_epochs(self) -> int:
        """Return the number of epochs of a training."""
        return int(self.seconds.shape[2])

    def others(self, seed: int) -> list[int]:
        """Return the seeds that score a choice made on the validation images of `seed`."""
        return [other for other in range(self.n_seeds) if other != seed]


def read(path: Path) -> Curves:
    """Read a file of `record_curves`."""
    with np.load(path) as file:
        head = json.loads(file["header"].tobytes())
        seeds = range(head["n_seeds"])
        labels = {part: [file["labels"][file[f"{part}_images_{seed}"]] for seed in seeds] for part in ("val", "truth")}
        found = {part: [probabilities(file[f"{part}_{seed}"]) for seed in seeds] for part in ("val", "truth")}
        scored = {part: [scores(*one) for one in zip(labels[part], found[part], strict=True)] for part in found}
        called = [(of_seed > 0.5).mean(axis=2) for of_seed in found["val"]]
        return Curves(
            name=path.stem,
            header=head,
            space={name: space.parse(name, table) for name, table in head["space"].items()},
            params=head["params"],
            val={name: np.stack([one[name] for one in scored["val"]]) for name in SCORES},
            truth={name: np.stack([one[name] for one in scored["truth"]]) for name in SCORES},
            is_trivial=np.stack([(one == 0) | (one == 1) for one in called]),
            seconds=np.nan_to_num(np.stack([file[f"seconds_{seed}"] for seed in seeds])),
            val_labels=labels["val"],
            val_last=[of_seed[:, -1] for of_seed in found["val"]],
            val_groups=[[str(group) for group in file["groups"][file[f"val_images_{seed}"]]] for seed in seeds],
        )


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of recorded log odds. Epochs that were not trained have the probability 0."""
    return np.nan_to_num(1 / (1 + np.exp(-logits.astype(np.float64))))


def scores(labels: np.ndarray, found: np.ndarray) -> dict[str, np.ndarray]:
    """Return each score of `SCORES`, [C, E], of the probabilities `found`, [C, E, images]."""
    positive = labels.astype(bool)
    table = found.reshape(-1, len(positive))

    def f1(threshold: float) -> np.ndarray:
        called = table > threshold
        return 2 * (called & positive).sum(axis=1) / np.maximum(1, called.sum(axis=1) + positive.sum())

    by_name = {
        "f1": f1(0.5),
        "mean_f1": np.mean([f1(threshold) for threshold in THRESHOLDS], axis=0),
        "auroc": weighted_auroc(positive, table, np.ones((1, len(positive))))[0],
    }
    return {name: by_name[name].reshape(found.shape[:2]) for name in SCORES}
