"""The confirmation of the finalists of a search as a document and in sentences, and its cost."""

import math
from dataclasses import asdict, dataclass

import numpy as np

from mhist_tune.arrays import FloatArray
from mhist_tune.definition.scores import SCORE_NAMES, Score
from mhist_tune.mhist import NEGATIVE_CLASS, POSITIVE_CLASS, THRESHOLD
from mhist_tune.search.finalists import Confirmation
from mhist_tune.search.race import Dropped
from mhist_tune.statistics import out_of_fold
from mhist_tune.statistics.out_of_fold import Corrected, Selection
from mhist_tune.storage.studies import Study
from mhist_tune.words import interval

_N_BOOT = 2000
_Z = 1.96
"""A difference of at most this many standard errors is within its error."""


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
        never_calls: the class that it calls no image at 0.5; None if it calls both.
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
    never_calls: str | None

    def of(self, score: Score) -> float:
        """Return the confirmed score of that name."""
        return {"mean_f1": self.mean_f1, "f1": self.f1, "auroc": self.auroc}[score]


@dataclass(frozen=True)
class DroppedTrial(Dropped):
    """A finalist that the race dropped; `reason` says so in words."""

    reason: str


@dataclass(frozen=True)
class Fall:
    """A metric of one trial in the search and out of fold, the first minus the second, and the standard error."""

    search: float
    confirmed: float
    difference: float
    se: float


@dataclass(frozen=True)
class SearchBest:
    """The trial with the highest value in the search.

    Attributes:
        confirmed_value: its score out of fold; None if it is not confirmed, as all that follows from it.
        optimism: the first value minus the second.
        optimism_se: its standard error, that of the second value. It covers the images, not other trainings.
        auroc: the same of AUROC; None if that is the score, or is not recorded.
    """

    trial: int
    search_value: float
    confirmed_value: float | None = None
    optimism: float | None = None
    optimism_se: float | None = None
    auroc: Fall | None = None


@dataclass(frozen=True)
class Confirmed:
    """A confirmation that has a finalist.

    Attributes:
        score: the study's score, by which the choice is made.
        n_images: that every finalist predicted out of fold.
        n_open: as of `finalists.Confirmation`.
        n_failed: candidates without a result.
        dropped: those that the race dropped.
        chosen: the trial that leads; final where nothing is open.
        finalists: the best first.
        corrected: the score of the chosen one, corrected for being the highest; None with one finalist, or where the
            images are too few.
        gain: its difference from the default's score, corrected likewise; None also without a confirmed default.
    """

    score: Score
    n_folds: int
    n_images: int
    n_open: int
    n_failed: int
    dropped: list[DroppedTrial]
    chosen: int
    finalists: list[ConfirmedTrial]
    search_best: SearchBest
    corrected: Corrected | None
    gain: Corrected | None


def document(confirmation: Confirmation) -> Confirmed:
    """Return the document of a confirmation that has a finalist."""
    confirmed = confirmation.finalists
    score = confirmation.score
    default = next((place for place, finalist in enumerate(confirmed) if finalist.candidate.is_default), None)
    choice = out_of_fold.selection(
        score,
        confirmation.labels,
        confirmation.folds,
        np.stack([finalist.probabilities for finalist in confirmed]),
        default=default,
        groups=confirmation.groups,
        n_boot=_N_BOOT,
    )
    return Confirmed(
        score=score,
        n_folds=int(confirmation.folds.max()) + 1,
        n_images=len(confirmation.labels),
        n_open=confirmation.n_open,
        n_failed=confirmation.n_failed,
        dropped=[DroppedTrial(**asdict(one), reason=one.in_words(SCORE_NAMES[score])) for one in confirmation.dropped],
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
                never_calls=_never_calls(finalist.probabilities),
            )
            for finalist, share, interval in zip(confirmed, choice.shares, choice.intervals, strict=True)
        ],
        search_best=_search_best(confirmation, choice),
        corrected=choice.corrected if len(confirmed) > 1 else None,
        gain=choice.gain if len(confirmed) > 1 else None,
    )


def _search_best(confirmation: Confirmation, choice: Selection) -> SearchBest:
    best, search_auroc = confirmation.search_best, confirmation.search_auroc
    assert best.search_value is not None  # it is complete
    trials = [finalist.candidate.trial for finalist in confirmation.finalists]
    if best.trial not in trials:
        return SearchBest(best.trial, best.search_value)
    place = trials.index(best.trial)
    scores = confirmation.finalists[place].scores
    value = scores.of(confirmation.score)
    fall = None
    if confirmation.score != "auroc" and search_auroc is not None and math.isfinite(search_auroc + scores.auroc):
        fall = Fall(search_auroc, scores.auroc, search_auroc - scores.auroc, choice.auroc_se[place])
    return SearchBest(best.trial, best.search_value, value, best.search_value - value, choice.se[place], fall)


def _never_calls(probabilities: FloatArray) -> str | None:
    called = probabilities > THRESHOLD
    if called.any():
        return NEGATIVE_CLASS if called.all() else None
    return POSITIVE_CLASS


def sentences(confirmed: Confirmed) -> list[str]:
    """Return the choice, its corrected score, and how far the search's best value fell, in a sentence each."""
    chosen, best, score = confirmed.finalists[0], confirmed.search_best, SCORE_NAMES[confirmed.score]
    others = ", ".join(f"{SCORE_NAMES[other]} {chosen.of(other):.3f}" for other in beside(confirmed.score))
    name = f"trial {chosen.trial}" + (" (the study's default)" if chosen.is_default else "")
    lines = [
        f"{name} is chosen with a confirmed {score} of {chosen.of(confirmed.score):.3f} ({others}), out of fold on "
        f"{confirmed.n_images} images; the same choice in {chosen.selected:.0%} of resamples of these images"
    ]
    value = chosen.of(confirmed.score)
    tied = [one.trial for one in confirmed.finalists if math.isclose(one.of(confirmed.score), value, abs_tol=1e-12)]
    if len(tied) > 1:
        second = {"mean_f1": "mean F1", "auroc": "AUROC"}[out_of_fold.second_score(confirmed.score)]
        listed = ", ".join(map(str, sorted(tied)))
        lines.append(f"trials {listed} have the same {score}, so the higher {second} decides, in each resample, too")
    lines += [f"trial {one.trial} {one.reason}" for one in confirmed.dropped]
    lines += [_never_called(finalist) for finalist in confirmed.finalists if finalist.never_calls]
    if confirmed.corrected:
        text = (
            f"the highest of {len(confirmed.finalists)} scores is too high in the mean; on images that did not choose, "
            f"the choice has {score} {confirmed.corrected.estimate:.3f} ({_interval(confirmed.corrected)})"
        )
        gain = confirmed.gain
        lines.append(f"{text}, {gain.estimate:+.3f} ({_interval(gain)}) against the study's default" if gain else text)
    if best.confirmed_value is not None:
        lines.append(fall(best, confirmed.score))
    return lines


def _interval(corrected: Corrected) -> str:
    return f"95% interval {interval(corrected.ci95)}" if corrected.ci95 else "no interval: too few groups hold a class"


def _never_called(finalist: ConfirmedTrial) -> str:
    return (
        f"trial {finalist.trial} never calls {finalist.never_calls} at the threshold {THRESHOLD}, so its F1 there does "
        "not show how well it ranks images"
    )


def fall(best: SearchBest, score: Score) -> str:
    """Return how far the search's best trial, which is confirmed, fell out of fold, and whether that is optimism."""
    assert best.confirmed_value is not None and best.optimism is not None and best.optimism_se is not None
    name = SCORE_NAMES[score]
    text = (
        f"the search's best, trial {best.trial}, had {name} {best.search_value:.3f} in the search and "
        f"{best.confirmed_value:.3f} out of fold, {best.optimism:+.3f} (standard error {best.optimism_se:.3f})"
    )
    if best.auroc:
        text += (
            f", and AUROC {best.auroc.search:.3f} and {best.auroc.confirmed:.3f}, {best.auroc.difference:+.3f} "
            f"({best.auroc.se:.3f})"
        )
    if best.optimism <= _Z * best.optimism_se:
        return f"{text}: no optimism is shown, since {name} did not fall beyond its error"
    if best.auroc and best.auroc.difference <= _Z * best.auroc.se:
        return (
            f"{text}: {name} fell beyond its error and AUROC did not, so what changed is the share of images above a "
            "threshold rather than the ranking"
        )
    return f"{text}: the search's value was optimistic"


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
