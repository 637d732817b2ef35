"""The records of a report's folder, and the finalists of its search, recomputed from them."""

import csv
import json
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
from scipy import special
from sklearn import metrics as sklearn_metrics

from tests.recompute.models import Model, draws, fitted_threshold, logit, mean_f1, platt


class Records:
    """The records of a report, and what they say of its finalists and of its held-out images."""

    def __init__(self, folder: Path) -> None:
        self.report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        self.study = tomllib.loads((folder / "study.toml").read_text(encoding="utf-8"))

        self.trials, self.epochs, self.predictions = (
            rows(folder / "records" / f"{name}.csv") for name in ("trials", "epochs", "predictions")
        )
        self.test, self.seeds, self.votes = tested(folder / "predictions.csv")
        default = folder / "predictions-default.csv"
        self.default = tested(default)[0] if default.exists() else None
        self._confirmed()
        self._held_out()

    def _confirmed(self) -> None:
        """Collect the out-of-fold predictions of each finalist, and the fold of each image."""
        slots = {row["slot"]: row for row in self.trials if row["stage"] == "confirm" and row["state"] == "COMPLETE"}
        self.out_of_fold: dict[int, dict[str, tuple[int, int, float]]] = {}
        for row in self.predictions:
            if row["stage"] == "confirm" and row["image_set"].startswith("fold"):
                trial = int(slots[row["slot"]]["for_trial"])
                image = (int(row["label"]), int(row["image_set"][4:]), float(row["probability"]))
                self.out_of_fold.setdefault(trial, {})[row["image_name"]] = image

    def finalist(self, trial: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return labels, folds and probabilities of a finalist, in the order of the images' names."""
        images = self.out_of_fold[trial]
        columns = list(zip(*(images[name] for name in sorted(images)), strict=True))
        return np.array(columns[0], dtype=bool), np.array(columns[1]), np.array(columns[2])

    def _held_out(self) -> None:
        """Fit threshold and recalibration on the images that the chosen trial predicted out of fold."""
        self.chosen = int(self.report["trial"]["number"])
        self.default_trial = int(self.report["test_openings"][-1]["default"])
        if self.chosen in self.out_of_fold:
            y, _, p = self.finalist(self.chosen)
        else:
            of_trial = [
                row
                for row in self.predictions
                if row["stage"] == "search" and row["image_set"] == "val" and row["number"] == str(self.chosen)
            ]
            y = np.array([row["label"] == "1" for row in of_trial])
            p = np.array([float(row["probability"]) for row in of_trial])
        self.held_out_labels, self.held_out_probabilities = y, p
        self.threshold = fitted_threshold(y, p)
        slope, intercept = platt(y, p)
        mapped = special.expit(slope * logit(self.test.p) + intercept)
        share, there = y.mean(), self.test.y.mean()
        corrected = special.expit(logit(mapped) + special.logit(there) - special.logit(share))
        self.mapped = {"raw": self.test.p, "recalibrated": mapped, "prior-corrected": corrected}

    def resampled_finalists(self) -> dict[int, dict[str, np.ndarray]]:
        """Return mean F1 and AUROC of each finalist in and outside of resamples of the images, [B] each."""
        if not hasattr(self, "_resampled"):
            trials = sorted(self.out_of_fold)
            y, *_ = self.finalist(trials[0])
            w = draws(np.random.default_rng(7), y.size)
            out = (w == 0).astype(float)
            self._resampled = {}
            for trial in trials:
                model = Model(y, [self.finalist(trial)[2]])
                self._resampled[trial] = {
                    "inside": self._mean_f1(model, w),
                    "outside": self._mean_f1(model, out),
                    "auroc": self._auroc(trial, w),
                }
            self._is_scored = (out[:, y].sum(axis=1) > 0) & (out[:, ~y].sum(axis=1) > 0)
            self._left_out = float(out.mean())
        return self._resampled

    @staticmethod
    def _mean_f1(model: Model, w: np.ndarray) -> np.ndarray:
        return np.mean([model.weighted("f1", w, t / 10)[:, 0] for t in range(1, 10)], axis=0)

    def _auroc(self, trial: int, w: np.ndarray) -> np.ndarray:
        y, folds, p = self.finalist(trial)
        parts = [
            Model(y[folds == one], [p[folds == one]]).weighted("auroc", w[:, folds == one]) for one in np.unique(folds)
        ]
        return np.nanmean(np.stack(parts)[:, :, 0], axis=0)

    def scores(self, trial: int) -> dict[str, float]:
        """Return the scores of a finalist: pooled over the folds, AUROC averaged over them."""
        y, folds, p = self.finalist(trial)
        aurocs = [sklearn_metrics.roc_auc_score(y[folds == one], p[folds == one]) for one in np.unique(folds)]
        return {
            "mean F1": mean_f1(y, p),
            "F1": float(sklearn_metrics.f1_score(y, p > 0.5, zero_division=0)),
            "AUROC": float(np.mean(aurocs)),
        }

    def choice(self) -> dict[int, np.ndarray]:
        """Return whether each finalist is chosen in each resample; equal ones share it."""
        found = self.resampled_finalists()
        first = np.stack([found[trial]["inside"] for trial in found])
        second = np.where(first >= first.max(axis=0) - 1e-12, np.stack([one["auroc"] for one in found.values()]), -1)
        best = second >= second.max(axis=0) - 1e-12
        return dict(zip(found, best / best.sum(axis=0), strict=True))

    def corrected(self, against: int | None = None) -> tuple[float, float, float, float]:
        """Return score or gain of the choice on images that did not choose it, its interval, and the tolerance."""
        found, chosen = self.resampled_finalists(), self.choice()
        values = sum(chosen[trial] * found[trial]["outside"] for trial in found)
        nearer = np.sqrt(self._left_out / (1 - self._left_out))
        if against is not None:
            values, nearer = values - found[against]["outside"], 1.0
        values = np.asarray(values)[self._is_scored]
        mean, (low, high) = float(values.mean()), np.quantile(values, (0.025, 0.975))
        return mean, mean - nearer * (mean - low), mean + nearer * (high - mean), 0.1 * float(high - low) * nearer

    def of_search(self, state: str) -> int:
        """Return the number of search trials that ended so."""
        return sum(row["stage"] == "search" and row["state"] == state for row in self.trials)

    def search_row(self, trial: int) -> dict[str, str]:
        """Return the row of a search trial."""
        return next(row for row in self.trials if row["stage"] == "search" and row["number"] == str(trial))

    def last_epoch(self, trial: int) -> dict[str, str]:
        """Return the last epoch of a search trial."""
        return [row for row in self.epochs if row["stage"] == "search" and row["number"] == str(trial)][-1]

    def spent(self, stage: str | None = None, states: tuple[str, ...] = ()) -> tuple[int, int, float]:
        """Return trainings, epochs and hours of a stage (None for all), of trainings that ended so (all if empty)."""
        ended = {(row["stage"], row["slot"]): row["state"] for row in self.trials}
        chosen = [
            row
            for row in self.epochs
            if stage in (None, row["stage"]) and (not states or ended[row["stage"], row["slot"]] in states)
        ]
        n = len({(row["stage"], row["slot"]) for row in chosen})
        return n, len(chosen), sum(float(row["elapsed_s"]) for row in chosen) / 3600


def tested(path: Path) -> tuple[Model, list[str], np.ndarray]:
    """Return the models of a file of test predictions, their seeds, and the votes of the images."""
    stored = rows(path)
    seeds = list(dict.fromkeys(row["seed"] for row in stored))
    of_seed = [[row for row in stored if row["seed"] == seed] for seed in seeds]
    model = Model(
        [int(row["label"]) for row in of_seed[0]], [[float(row["probability"]) for row in one] for one in of_seed]
    )
    return model, seeds, np.array([int(row["votes"]) for row in of_seed[0]])


def rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(text: str) -> list[dict[str, str]]:
    """Return the rows of the table of a section, by its heads; heads that repeat get a number."""
    if not any(line.startswith("|") for line in text.splitlines()):
        return []
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    seen: Counter[str] = Counter()
    heads = []
    for head in lines[0]:
        seen[head] += 1
        heads.append(head if seen[head] == 1 else f"{head} {seen[head]}")
    return [dict(zip(heads, line, strict=True)) for line in lines[2:]]
