"""Threshold and recalibration, fixed on train images that the models behind them had not seen, applied to test images.

The images are the whole train partition, predicted out of fold, where the trial was confirmed; or else the validation
images, on which the trial's best epoch was chosen as well.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy.typing as npt

from mhist_tune import calibration, ledger, statistics
from mhist_tune.arrays import FloatArray
from mhist_tune.evidence import Evidence
from mhist_tune.finalists import Confirmation
from mhist_tune.predictions import image_rows, predictions_of
from mhist_tune.stages import Stage
from mhist_tune.storage import Storage

_OF_CALIBRATION = ("log_loss", "brier", "ece")
_OF_THRESHOLD = ("f1", "precision", "recall", "specificity", "accuracy", "balanced_accuracy")


@dataclass(frozen=True)
class _Predicted:
    """Held-out images: whence they are, their labels and their probabilities of SSA, [n] each."""

    source: str
    labels: npt.NDArray[Any]
    probabilities: FloatArray


def document(storage: Storage, found: Evidence, confirmation: Confirmation | None) -> dict[str, Any] | None:
    """Return what was fixed and what it gives on the test images, as JSON; None without held-out predictions.

    Its keys: `source`, `n_images` and `share_ssa` of the held-out images, `threshold` with the test `metrics` there,
    `slope` and `intercept` of the recalibration, `calibration` and `reliability` (raw, recalibrated, prior_corrected).
    """
    images = found.images
    held_out = _predicted(storage, found, confirmation)
    if held_out is None or not 0 < held_out.labels.sum() < held_out.labels.size:
        return None
    threshold = calibration.f1_threshold(held_out.labels, held_out.probabilities)
    fitted = calibration.platt(held_out.labels, held_out.probabilities)
    tables = {"raw": found.probabilities, "recalibrated": fitted.apply(found.probabilities)}
    share, test_share = float(held_out.labels.mean()), float(images.labels.mean())
    if 0 < test_share < 1:
        tables["prior_corrected"] = calibration.correct_prior(
            tables["recalibrated"], fitted_on=share, applied_to=test_share
        )
    return {
        "source": held_out.source,
        "n_images": len(held_out.labels),
        "share_ssa": share,
        "threshold": threshold,
        "metrics": statistics.summary(
            images.labels, found.probabilities, groups=images.groups, threshold=threshold, names=_OF_THRESHOLD
        ),
        "slope": fitted.slope,
        "intercept": fitted.intercept,
        "calibration": {
            name: statistics.summary(images.labels, table, groups=images.groups, names=_OF_CALIBRATION)
            for name, table in tables.items()
        },
        "reliability": {
            name: [asdict(one) for one in calibration.reliability(images.labels, table.mean(axis=0))]
            for name, table in tables.items()
        },
    }


def _predicted(storage: Storage, found: Evidence, confirmation: Confirmation | None) -> _Predicted | None:
    study, trial = found.study, found.payload["trial"]
    finalist = confirmation.of_trial(trial) if confirmation else None
    if confirmation and finalist:
        source = f"train images that search trial {trial} predicted out of fold"
        return _Predicted(source, confirmation.labels, finalist.probabilities)
    stored = predictions_of(storage, study, Stage.SEARCH, "val")
    slots = ledger.slots(storage, study, Stage.SEARCH)
    mine = [slot.slot for slot in slots if slot.trial_number == trial and slot.slot in stored]
    if not mine:
        return None
    labels = image_rows(storage, study, "val").labels
    return _Predicted(f"validation images of search trial {trial}, at its best epoch", labels, stored[mine[0]])
