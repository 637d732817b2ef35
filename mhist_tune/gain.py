"""What tuning gained: the chosen trial against the study's default, retrained with the same seeds in one opening."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mhist_tune import paired, statistics
from mhist_tune.evidence import Evidence

_SHOWN = ("auroc", "auprc", "f1", "balanced_accuracy")


def document(found: Evidence) -> dict[str, Any] | None:
    """Return the gain as JSON; None where the opening names no default.

    Its keys: `default` (a trial), `is_chosen` (the default is the chosen trial, which leaves nothing to compare),
    `n_seeds` that have finished, `metrics` of the default on the test images (see `statistics.summary`) and
    `difference`: the chosen trial's seed-mean AUROC minus the default's, with `se`, `ci95`, `p_value` and `detectable`
    as in a comparison of studies, and `difference_f1`, the same of F1 at 0.5, which is descriptive; these are null
    without its seeds or where the test images are of one class.
    """
    default = found.opening.payload.get("default")
    if default is None:
        return None
    shown: dict[str, Any] = {
        "default": default,
        "is_chosen": default == found.opening.payload["trial"],
        "n_seeds": len(found.default_slots),
        "metrics": None,
        "difference": None,
        "difference_f1": None,
    }
    images, table = found.images, found.default_probabilities
    if table is None or not 0 < images.labels.sum() < images.labels.size:
        return shown
    shown["metrics"] = statistics.summary(images.labels, table, groups=images.groups, names=_SHOWN)
    models = [found.probabilities, table]
    [shown["difference"]] = map(_difference, paired.auroc_differences(images.labels, models, groups=images.groups))
    [shown["difference_f1"]] = map(_difference, paired.f1_differences(images.labels, models, groups=images.groups))
    return shown


def _difference(one: paired.Difference) -> dict[str, Any]:
    of_difference = ("estimate", "se", "ci95", "p_value", "detectable")
    found = {name: value for name, value in asdict(one).items() if name in of_difference}
    return found | {"ci95": list(one.ci95)}


def sentence(gain: Mapping[str, Any]) -> str | None:
    """Return what tuning gained in one sentence; None while the default has no results."""
    if gain["is_chosen"]:
        return "The study's default was the best confirmed configuration, so tuning gained nothing here."
    difference = gain["difference"]
    if difference is None:
        return None
    low, high = difference["ci95"]
    text = (
        f"Against the study's default (trial {gain['default']}), tuning changed test AUROC by "
        f"{difference['estimate']:+.4f}, 95% interval {low:+.4f} to {high:+.4f}"
    )
    if low <= 0 <= high:
        text += f", so no gain is shown (smallest difference found with 80% power here: {difference['detectable']:.4f})"
    return text + "."
