"""The confirmation of the finalists of a search as a document and in sentences, and its cost."""

from dataclasses import dataclass

import numpy as np

from mhist_tune.definition.scores import SCORE_NAMES, Score
from mhist_tune.search.finalists import Confirmation
from mhist_tune.statistics import out_of_fold
from mhist_tune.storage.studies import Study

_N_BOOT = 2000


@dataclass(frozen=True)
class ConfirmedTrial:
    """A finalist that is confirmed.

    Attributes:
        search_value: its value in the search; None if it did not complete there.
        mean_f1, f1: out of fold, pooled over the folds.
        auroc: out of fold, averaged over the folds.
        ci95: the 95% interval of the study's score.
        stop_epoch: its fixed number of epochs.
        selected: the share of bootstrap resamples of the images in which it would have been chosen; equal ones share.
    """

    trial: int
    is_default: bool
    search_value: float | None
    mean_f1: float
    f1: float
    ci95: tuple[float, float] | None
    auroc: float
    stop_epoch: int
    selected: float

    def of(self, score: Score) -> float:
        """Return the confirmed score of that name."""
        return {"mean_f1": self.mean_f1, "f1": self.f1, "auroc": self.auroc}[score]


@dataclass(frozen=True)
class SearchBest:
    """The trial with the highest value in the search.

    Attributes:
        confirmed_value: its score out of fold; None if it is not confirmed.
        optimism: the first value minus the second.
    """

    trial: int
    search_value: float
    confirmed_value: float | None
    optimism: float | None


@dataclass(frozen=True)
class Confirmed:
    """A confirmation that has a finalist.

    Attributes:
        score: the study's score, by which the choice is made.
        n_images: that every finalist predicted out of fold.
        n_open: as of `finalists.Confirmation`.
        n_failed: candidates without a result.
        chosen: the trial that leads; final where nothing is open.
        finalists: the best first.
    """

    score: Score
    n_folds: int
    n_images: int
    n_open: int
    n_failed: int
    chosen: int
    finalists: list[ConfirmedTrial]
    search_best: SearchBest


def document(confirmation: Confirmation) -> Confirmed:
    """Return the document of a confirmation that has a finalist."""
    confirmed = confirmation.finalists
    score = confirmation.score
    choice = out_of_fold.selection(
        score,
        confirmation.labels,
        confirmation.folds,
        np.stack([finalist.probabilities for finalist in confirmed]),
        groups=confirmation.groups,
        n_boot=_N_BOOT,
    )
    best = confirmation.search_best
    best_confirmed = confirmation.of_trial(best.trial)
    value = best_confirmed.scores.of(score) if best_confirmed else None
    assert best.search_value is not None  # it is complete
    return Confirmed(
        score=score,
        n_folds=int(confirmation.folds.max()) + 1,
        n_images=len(confirmation.labels),
        n_open=confirmation.n_open,
        n_failed=confirmation.n_failed,
        chosen=confirmed[0].candidate.trial,
        finalists=[
            ConfirmedTrial(
                trial=finalist.candidate.trial,
                is_default=finalist.candidate.is_default,
                search_value=finalist.candidate.search_value,
                mean_f1=finalist.scores.mean_f1,
                f1=finalist.scores.f1,
                ci95=interval,
                auroc=finalist.scores.auroc,
                stop_epoch=finalist.stop_epoch,
                selected=share,
            )
            for finalist, share, interval in zip(confirmed, choice.shares, choice.intervals, strict=True)
        ],
        search_best=SearchBest(
            trial=best.trial,
            search_value=best.search_value,
            confirmed_value=value,
            optimism=None if value is None else best.search_value - value,
        ),
    )


def sentences(confirmed: Confirmed) -> list[str]:
    """Return the choice, and how much of the search's best value was optimism, in a sentence each."""
    chosen, best, score = confirmed.finalists[0], confirmed.search_best, SCORE_NAMES[confirmed.score]
    others = ", ".join(f"{SCORE_NAMES[other]} {chosen.of(other):.3f}" for other in beside(confirmed.score))
    name = f"trial {chosen.trial}" + (" (the study's default)" if chosen.is_default else "")
    lines = [
        f"{name} is chosen with a confirmed {score} of {chosen.of(confirmed.score):.3f} ({others}), out of fold on "
        f"{confirmed.n_images} images; the same choice in {chosen.selected:.0%} of resamples of these images"
    ]
    if best.confirmed_value is not None:
        lines.append(
            f"the search's best, trial {best.trial}, had {score} {best.search_value:.3f} in the search and "
            f"{best.confirmed_value:.3f} out of fold: {best.optimism:+.3f} was optimism"
        )
    return lines


def beside(score: Score) -> list[Score]:
    """Return the other scores that are shown beside a study's score: always F1 at 0.5 and AUROC."""
    shown: tuple[Score, ...] = ("f1", "auroc")
    return [other for other in shown if other != score]


def cost(study: Study) -> str:
    """Return in words what the confirm stage of a study with `[confirm]` costs at most."""
    assert study.definition.confirm is not None
    top, n_folds = study.definition.confirm["top"], study.definition.confirm["n_folds"]
    text = (
        f"confirming the best {top} trials and the default takes {n_folds * (top + 1)} trainings, {n_folds} folds x "
        f"{top + 1}"
    )
    if study.definition.at == "last":
        return text
    return f"{text}, and as many on inner splits to fix their number of epochs"
