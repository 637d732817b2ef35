"""Recorded curves, and whole searches simulated on them, for `bench.search.replay`."""

import heapq
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from mhist_tune.definition import space
from mhist_tune.search import pruning, values
from mhist_tune.search.promotion import Rung, arrive, close
from mhist_tune.storage.decision import Decision, Verdict

Params = Mapping[str, Any]

PROMOTION = "promotion"


@dataclass(frozen=True)
class Curves:
    """One recording. f1 and seconds are [2 seeds, configurations, epochs]. A diverged curve repeats its last value."""

    name: str
    space: dict[str, space.Dimension]
    params: list[Params]
    f1: np.ndarray
    seconds: np.ndarray


@dataclass
class Trial:
    """One simulated trial. `curve` and `seconds` hold the results of its epochs, `score` the other seed's scores.

    `values` holds the value that decides about it after each epoch, from `running_values`.
    """

    slot: int
    params: Params
    curve: np.ndarray
    seconds: np.ndarray
    score: np.ndarray
    values: np.ndarray = field(default_factory=lambda: np.empty(0))
    state: str = "running"
    n_epochs: int = 0

    @property
    def best(self) -> float:
        """Return the value so far: that of its best epoch."""
        return float(self.values[self.n_epochs - 1])

    @property
    def worth(self) -> float:
        """Return the other seed's value of the best epoch."""
        return float(self.score[int(self.curve[: self.n_epochs].argmax())])


@dataclass
class Search:
    """One simulated search: its cost, and after each ended trial the epochs spent and the score of its best."""

    n_epochs: int = 0
    wall_s: float = 0.0
    trials: list[Trial] = field(default_factory=list)
    steps: list[tuple[int, float]] = field(default_factory=list)

    def best(self) -> Trial:
        """Return the choice of a search: its best complete trial, or the best so far while none is complete."""
        begun = [trial for trial in self.trials if trial.n_epochs]
        complete = [trial for trial in begun if trial.state == "complete"]
        return max(complete or begun, key=lambda trial: (trial.best, -trial.slot))


def read(path: Path) -> Curves:
    """Read a file of `record_curves`. Configurations that lack a seed are left out."""
    head, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    by_seed: tuple[dict[int, Any], dict[int, Any]] = ({}, {})
    for line in lines:
        by_seed[line["seed"] - 1][line["configuration"]] = line
    both = sorted(by_seed[0].keys() & by_seed[1].keys())
    n_epochs = head["fixed"]["epochs"]

    def curves(name: str) -> np.ndarray:
        rows = [[one[number][name] or [0.0] for number in both] for one in by_seed]
        return np.array([[row + row[-1:] * (n_epochs - len(row)) for row in seed] for seed in rows])

    dimensions = {name: space.parse(name, table) for name, table in head["space"].items()}
    return Curves(path.stem, dimensions, [by_seed[0][n]["params"] for n in both], curves("val_f1"), curves("elapsed_s"))


def running_values(curve: np.ndarray, smoothing: int) -> np.ndarray:
    """Return a trial's value after each of its epochs, as `values.objective` has it of the best epoch so far."""
    if smoothing == 1:
        return np.maximum.accumulate(curve)
    seen = curve.tolist()
    found = [values.objective(seen[:n], int(np.argmax(seen[:n])) + 1, smoothing) for n in range(1, len(seen) + 1)]
    return np.array(found)


def rank_correlations(curves: Curves) -> list[float]:
    """Return for each epoch how its best value so far ranks configurations as the last does (Spearman)."""
    best = np.maximum.accumulate(curves.f1, axis=2)
    return [
        float(np.mean([spearmanr(best[seed, :, epoch], best[seed, :, -1]).statistic for seed in (0, 1)]))
        for epoch in range(best.shape[2])
    ]


class Simulation:
    """A search by workers that only wait for epochs.

    Args:
        begin: makes the trial of the next slot, given those before it.
        n_slots: trials of the search.
        pruner: a complete `pruner` table.
        n_workers: workers that train at the same time.
        patience: epochs without a better value that complete a trial; None for no such end.
        smoothing: epochs whose mean is a trial's value, its best one and those before.
    """

    def __init__(
        self,
        begin: Callable[[Sequence[Trial]], Trial],
        n_slots: int,
        pruner: Mapping[str, Any],
        *,
        n_workers: int,
        patience: int | None = None,
        smoothing: int = 1,
    ) -> None:
        self._begin, self._n_slots, self._pruner = begin, n_slots, pruner
        self._n_workers, self._patience, self._smoothing = n_workers, patience, smoothing
        self._busy: list[tuple[float, int, Trial]] = []
        self._promoted: list[Trial] = []
        self._order = itertools.count()
        self._rungs: dict[int, Rung] = {}
        self.search = Search()

    def run(self) -> Search:
        """Run the search to its end."""
        search = self.search
        self._employ()
        while self._busy:
            search.wall_s, _, trial = heapq.heappop(self._busy)
            trial.n_epochs += 1
            search.n_epochs += 1
            self._judge(trial)
            if trial.state == "running":
                self._train(trial)
            else:
                search.steps.append((search.n_epochs, search.best().worth))
            self._employ()
            if not self._busy and self._rungs:
                for slot, decision in close(self._rungs.values(), reduction_factor=self._factor).items():
                    self._take(slot, decision)
                self._employ()
        return search

    @property
    def _factor(self) -> int:
        return int(self._pruner["reduction_factor"])

    def _train(self, trial: Trial) -> None:
        ends_at = self.search.wall_s + trial.seconds[trial.n_epochs]
        heapq.heappush(self._busy, (ends_at, next(self._order), trial))

    def _employ(self) -> None:
        trials = self.search.trials
        while len(self._busy) < self._n_workers and (self._promoted or len(trials) < self._n_slots):
            if self._promoted:
                trial = self._promoted.pop(0)
                trial.state = "running"
            else:
                trial = self._begin(trials)
                trial.values = running_values(trial.curve, self._smoothing)
                trials.append(trial)
            self._train(trial)

    def _judge(self, trial: Trial) -> None:
        epoch, n_epochs = trial.n_epochs, len(trial.curve)
        is_late = self._patience is not None and epoch - 1 - trial.curve[:epoch].argmax() >= self._patience
        if epoch == n_epochs or is_late:
            trial.state = "complete"
        elif self._pruner["name"] == PROMOTION:
            if epoch in pruning.rungs(self._pruner, n_epochs):
                rung = self._rungs.setdefault(epoch, Rung(epoch))
                found = arrive(rung, trial.slot, trial.best, reduction_factor=self._factor, n_slots=self._n_slots)
                for slot, decision in found.items():
                    self._take(slot, decision)
        elif (
            pruning.decide(
                self._pruner,
                slot=trial.slot,
                epoch=epoch,
                n_epochs=n_epochs,
                value=trial.best,
                values_at=self._values_at,
            ).verdict
            is Verdict.PRUNE
        ):
            trial.state = "pruned"

    def _take(self, slot: int, decision: Decision) -> None:
        trial = self.search.trials[slot]
        self._rungs[decision.epoch].take(slot, decision)
        if decision.verdict is not Verdict.GO_ON:
            trial.state = "pruned" if decision.verdict is Verdict.PRUNE else "waiting"
        elif trial not in self._promoted:
            trial.state = "promoted"
            self._promoted.append(trial)

    def _values_at(self, epoch: int) -> dict[int, float]:
        return {trial.slot: float(trial.values[epoch - 1]) for trial in self.search.trials if trial.n_epochs >= epoch}
