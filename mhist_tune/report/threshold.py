"""Decision threshold and recalibration, fixed on held-out images of the train partition and applied to test images.

If the trial is confirmed, the held-out images are the whole train partition, predicted out of fold. Otherwise they are
the validation images, on which the best epoch of the trial was chosen as well.
"""

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from mhist_tune.arrays import FloatArray
from mhist_tune.report.evidence import Evidence
from mhist_tune.search.finalists import Confirmation
from mhist_tune.statistics import calibration, summaries
from mhist_tune.statistics.calibration import ReliabilityBin
from mhist_tune.statistics.summaries import MetricSummary
from mhist_tune.storage import ledger
from mhist_tune.storage.database import Storage
from mhist_tune.storage.predictions import image_rows, predictions_of
from mhist_tune.storage.stages import Stage
from mhist_tune.words import number

_OF_CALIBRATION = ("log_loss", "brier", "ece")
_OF_THRESHOLD = ("f1", "precision", "recall", "specificity", "accuracy", "balanced_accuracy")


@dataclass(frozen=True)
class Predicted:
    """Held-out images: a description of their source, their labels [n] and their probabilities of SSA [n]."""

    source: str
    labels: npt.NDArray[Any]
    probabilities: FloatArray


@dataclass(frozen=True)
class FixedThreshold:
    """A threshold and a recalibration with their results on the test images.

    Attributes:
        source: description of the held-out images.
        n_images: number of held-out images.
        share_ssa: share of SSA among the held-out images.
        metrics: on the test images at the threshold, by name.
        slope: of the recalibration of logits, as is `intercept`.
        calibration: log loss, Brier score and calibration error on the test images, of raw, recalibrated and
            prior-corrected probabilities; of raw ones alone where the slope is not positive.
        reliability: the bins of each.
    """

    source: str
    n_images: int
    share_ssa: float
    threshold: float
    metrics: dict[str, MetricSummary]
    slope: float
    intercept: float
    calibration: dict[str, dict[str, MetricSummary]]
    reliability: dict[str, list[ReliabilityBin]]


def document(storage: Storage, evidence: Evidence, confirmation: Confirmation | None) -> FixedThreshold | None:
    """Return the threshold, the recalibration and their results; None without held-out predictions of both classes."""
    images = evidence.images
    held_out = predicted(storage, evidence, confirmation)
    if held_out is None or not 0 < held_out.labels.sum() < held_out.labels.size:
        return None
    threshold = calibration.f1_threshold(held_out.labels, held_out.probabilities)
    fitted = calibration.platt(held_out.labels, held_out.probabilities)
    probabilities = {"raw": evidence.probabilities}
    share, test_share = float(held_out.labels.mean()), float(images.labels.mean())
    if fitted.keeps_order:
        probabilities["recalibrated"] = fitted.apply(evidence.probabilities)
    if fitted.keeps_order and 0 < test_share < 1:
        probabilities["prior_corrected"] = calibration.correct_prior(
            probabilities["recalibrated"], fitted_on=share, applied_to=test_share
        )
    return FixedThreshold(
        source=held_out.source,
        n_images=len(held_out.labels),
        share_ssa=share,
        threshold=threshold,
        metrics=summaries.summary(
            images.labels, evidence.probabilities, groups=images.groups, threshold=threshold, names=_OF_THRESHOLD
        ),
        slope=fitted.slope,
        intercept=fitted.intercept,
        calibration={
            name: summaries.summary(images.labels, mapped, groups=images.groups, names=_OF_CALIBRATION)
            for name, mapped in probabilities.items()
        },
        reliability={
            name: calibration.reliability(images.labels, mapped.mean(axis=0)) for name, mapped in probabilities.items()
        },
    )


def sentences(held_out: FixedThreshold) -> list[str]:
    """Return whether the recalibration was refused or made the test probabilities worse, in a sentence each."""
    if "recalibrated" not in held_out.calibration:
        return [
            f"The recalibration is not applied: its slope on held-out images is {held_out.slope:.3f}, which would turn "
            "the order of the images round."
        ]
    raw, mapped = (held_out.calibration[name] for name in ("raw", "recalibrated"))
    found = []
    for name, title in (("log_loss", "log loss"), ("brier", "Brier score")):
        before, after = raw[name].mean, mapped[name].mean
        if before is not None and after is not None and after > before:
            found.append(
                f"The recalibration made the {title} on the test images worse: {number(before)} before, "
                f"{number(after)} after."
            )
    return found


def predicted(storage: Storage, evidence: Evidence, confirmation: Confirmation | None) -> Predicted | None:
    """Return the held-out images with predictions of the reported trial; None without any."""
    study, trial = evidence.study, evidence.payload.trial
    finalist = confirmation.of_trial(trial) if confirmation else None
    if confirmation and finalist:
        source = f"train images that search trial {trial} predicted out of fold"
        return Predicted(source, confirmation.labels, finalist.probabilities)
    stored = predictions_of(storage, study, Stage.SEARCH, "val")
    slots = ledger.slots(storage, study, Stage.SEARCH)
    slots_of_trial = [slot.slot for slot in slots if slot.trial_number == trial and slot.slot in stored]
    if not slots_of_trial:
        return None
    labels = image_rows(storage, study, "val").labels
    return Predicted(f"validation images of search trial {trial}, at its best epoch", labels, stored[slots_of_trial[0]])
