"""Whole searches and their confirm stage, simulated on curves, for `bench.search.replay`.

Simulated workers take the time of the recorded epochs and call the functions that real workers call: those of
`mhist_tune.search.pruning`, `mhist_tune.search.promotion` and `mhist_tune.statistics.racing`.
"""

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.search.curves import Curves, Params
from mhist_tune.definition.scores import At, Score, sets_trivial_apart
from mhist_tune.search import pruning, values
from mhist_tune.search.promotion import Rung, arrive, close
from mhist_tune.statistics import out_of_fold, racing
from mhist_tune.storage.decision import Decision, Verdict

PROMOTION = "promotion"
N_FOLDS = 5
LEVEL = 0.05
"""The level of the race, as `statistics.racing.look` has it."""


@dataclass(frozen=True)
class Rules:
    """How a search decides.

    Attributes:
        score, at, smoothing: what a trial's value is, as in a definition.
        pruner: a complete `pruner` table.
        patience: epochs without a better score that complete a trial; None for no such end.
        is_capped: whether a rung promotes no more than its share of all slots of the search.
    """

    score: Score
    at: At
    pruner: Mapping[str, Any]
    patience: int | None = None
    smoothing: int = 1
    is_capped: bool = False


@dataclass(frozen=True)
class Curve:
    """A configuration as a search sees it: each validation score after each epoch, and what else decides.

    Attributes:
        params: the configuration.
        scores: by name, [E].
        is_trivial: [E].
        seconds: of each epoch, [E].
        which: the number of the recorded configuration; -1 if it was not recorded.
    """

    params: Params
    scores: Mapping[str, np.ndarray]
    is_trivial: np.ndarray
    seconds: np.ndarray
    which: int = -1


@dataclass
class Trial:
    """One simulated trial. `values` has its value after each epoch, by `running_values`."""

    slot: int
    curve: Curve
    values: np.ndarray
    state: str = "running"
    n_epochs: int = 0

    @property
    def value(self) -> float:
        """Return the value so far."""
        return float(self.values[self.n_epochs - 1])


@dataclass
class Search:
    """One simulated search and its cost."""

    rules: Rules
    n_epochs: int = 0
    wall_s: float = 0.0
    trials: list[Trial] = field(default_factory=list)

    def ranked(self) -> list[Trial]:
        """Return the complete trials, or all while none is complete, the best first, as `selection.ranked` does."""
        apart = sets_trivial_apart(self.rules.score, self.rules.at)
        begun = [trial for trial in self.trials if trial.n_epochs]
        complete = [trial for trial in begun if trial.state == "complete"]

        def key(trial: Trial) -> tuple[bool, float, float, int]:
            last = trial.n_epochs - 1
            tie_break = trial.curve.scores["mean_f1"][last] if self.rules.score == "auroc" else 0.0
            return (apart and bool(trial.curve.is_trivial[last]), -trial.value, -tie_break, trial.slot)

        return sorted(complete or begun, key=key)


def running_values(scores: np.ndarray, rules: Rules) -> np.ndarray:
    """Return a trial's value after each of its epochs."""
    if rules.smoothing == 1:
        return scores if rules.at == "last" else np.maximum.accumulate(scores)
    seen = scores.tolist()
    found = []
    for n in range(1, len(seen) + 1):
        counts = n if rules.at == "last" else int(np.argmax(seen[:n])) + 1
        found.append(values.objective(seen[:n], counts, rules.smoothing))
    return np.array(found)


def stopping(scores: np.ndarray, rules: Rules) -> tuple[int, int]:
    """Return the epoch that a training of full length is judged by, and its number of epochs; both 1-based."""
    if rules.at == "last":
        return len(scores), len(scores)
    n_epochs = len(scores)
    for epoch in range(1, n_epochs + 1):
        if rules.patience is not None and epoch - 1 - int(scores[:epoch].argmax()) >= rules.patience:
            n_epochs = epoch
            break
    return int(scores[:n_epochs].argmax()) + 1, n_epochs


class Simulation:
    """A search by workers that only wait for epochs.

    Args:
        begin: makes the curve of the next slot, given the trials before it.
        n_slots: trials of the search.
        rules: how it decides.
        n_workers: workers that train at the same time.
    """

    def __init__(
        self, begin: Callable[[Sequence[Trial]], Curve], n_slots: int, rules: Rules, *, n_workers: int = 4
    ) -> None:
        self._begin, self._n_slots, self._rules, self._n_workers = begin, n_slots, rules, n_workers
        self._busy: list[tuple[float, int, Trial]] = []
        self._promoted: list[Trial] = []
        self._order = itertools.count()
        self._rungs: dict[int, Rung] = {}
        self._apart = sets_trivial_apart(rules.score, rules.at)
        self.search = Search(rules)

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
            self._employ()
            if not self._busy and self._rungs:
                for slot, decision in close(self._rungs.values(), reduction_factor=self._factor).items():
                    self._take(slot, decision)
                self._employ()
        return search

    @property
    def _factor(self) -> int:
        return int(self._rules.pruner["reduction_factor"])

    def _train(self, trial: Trial) -> None:
        ends_at = self.search.wall_s + trial.curve.seconds[trial.n_epochs]
        heapq.heappush(self._busy, (ends_at, next(self._order), trial))

    def _employ(self) -> None:
        trials = self.search.trials
        while len(self._busy) < self._n_workers and (self._promoted or len(trials) < self._n_slots):
            if self._promoted:
                trial = self._promoted.pop(0)
                trial.state = "running"
            else:
                curve = self._begin(trials)
                trial = Trial(len(trials), curve, running_values(curve.scores[self._rules.score], self._rules))
                trials.append(trial)
            self._train(trial)

    def _judge(self, trial: Trial) -> None:
        epoch, n_epochs, pruner = trial.n_epochs, len(trial.values), self._rules.pruner
        scores = trial.curve.scores[self._rules.score][:epoch]
        is_late = self._rules.patience is not None and epoch - 1 - scores.argmax() >= self._rules.patience
        if epoch == n_epochs or is_late:
            trial.state = "complete"
        elif pruner["name"] == PROMOTION:
            if epoch in pruning.rungs(pruner, n_epochs):
                self._arrive(trial, self._rungs.setdefault(epoch, Rung(epoch)))
        elif (
            pruning.decide(
                pruner,
                slot=trial.slot,
                epoch=epoch,
                n_epochs=n_epochs,
                value=trial.value,
                values_at=self._values_at,
            ).verdict
            is Verdict.PRUNE
        ):
            trial.state = "pruned"

    def _arrive(self, trial: Trial, rung: Rung) -> None:
        extra: dict[str, Any] = {}
        if self._apart:
            extra["is_trivial"] = bool(trial.curve.is_trivial[rung.epoch - 1])
        if self._rules.score == "auroc":
            extra["tie_break"] = float(trial.curve.scores["mean_f1"][rung.epoch - 1])
        found = arrive(rung, trial.slot, trial.value, reduction_factor=self._factor, n_slots=self._n_slots, **extra)
        for slot, decision in found.items():
            self._take(slot, decision, **(extra if slot == trial.slot else {}))

    def _take(self, slot: int, decision: Decision, **extra: Any) -> None:
        trial, rung = self.search.trials[slot], self._rungs[decision.epoch]
        share = max(1, self._n_slots // self._factor)
        if self._rules.is_capped and decision.verdict is Verdict.GO_ON and rung.n_promoted >= share:
            if slot in rung.values:
                return  # it goes on waiting
            decision = Decision(
                verdict=Verdict.WAIT,
                epoch=decision.epoch,
                value=decision.value,
                reason="its rung has promoted its share",
            )
        rung.take(slot, decision, **extra)
        if decision.verdict is not Verdict.GO_ON:
            trial.state = "pruned" if decision.verdict is Verdict.PRUNE else "waiting"
        elif trial not in self._promoted:
            trial.state = "promoted"
            self._promoted.append(trial)

    def _values_at(self, epoch: int) -> dict[int, float]:
        return {trial.slot: float(trial.values[epoch - 1]) for trial in self.search.trials if trial.n_epochs >= epoch}


@dataclass(frozen=True)
class Confirmed:
    """The result of a confirm stage: the number of the chosen configuration, and the epochs of all trainings."""

    which: int
    n_epochs: int


def finalists(search: Search, top: int) -> list[int]:
    """Return the recorded configurations of the best trials and of the first one, which stands for the default."""
    return list(dict.fromkeys(trial.curve.which for trial in [*search.ranked()[:top], search.trials[0]]))


def confirm(curves: Curves, search: Search, seed: int, *, top: int, is_race: bool) -> Confirmed:
    """Confirm the finalists of a search on the validation images of the other seeds, which stand for folds.

    The choice depends on the folds that are recorded; the cost is that of `N_FOLDS` folds. In a race the finalists that
    are clearly behind after two folds stop there. A search by the best epoch trains each finalist twice for each fold:
    once with early stopping on an inner split, then for that number of epochs.

    Args:
        curves: the recording that was searched.
        search: the search.
        seed: the one that it decided by.
        top: finalists beside the default.
        is_race: whether finalists may stop.
    """
    chosen, rules, folds = finalists(search, top), search.rules, curves.others(seed)
    epochs = {one: [stopping(curves.val[rules.score][fold, one], rules) for fold in folds] for one in chosen}
    per_fold = {
        one: np.mean([last if rules.at == "last" else best + last for best, last in epochs[one]]) for one in chosen
    }
    if rules.at == "last":
        labels = np.concatenate([curves.val_labels[fold] for fold in folds])
        of_image = np.repeat(np.arange(len(folds)), [len(curves.val_labels[fold]) for fold in folds])
        table = np.concatenate([curves.val_last[fold][chosen] for fold in folds], axis=1)
        observed = out_of_fold.weighted(rules.score, labels == 1, of_image, table, np.ones((1, len(labels))))[0]
    else:
        observed = np.array(
            [
                np.mean(
                    [
                        curves.val[rules.score][fold, one, best - 1]
                        for fold, (best, _) in zip(folds, epochs[one], strict=True)
                    ]
                )
                for one in chosen
            ]
        )
    n_trained = dict.fromkeys(chosen, N_FOLDS)
    if is_race and len(chosen) > 1:
        seen = racing.look(
            rules.score,
            labels,
            of_image,
            table,
            n_folds=N_FOLDS,
            n_finalists=len(chosen),
            level=LEVEL,
            groups=[group for fold in folds for group in curves.val_groups[fold]],
        )
        n_trained |= {chosen[one.place]: len(folds) for one in seen.against if one.is_behind}
    cost = sum(round(n_trained[one] * per_fold[one]) for one in chosen)
    return Confirmed(chosen[int(np.argmax(observed))], cost)
