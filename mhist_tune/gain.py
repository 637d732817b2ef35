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
    as in a comparison of studies; both null without its seeds or where the test images are of one class.
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
    }
    images, table = found.images, found.default_probabilities
    if table is None or not 0 < images.labels.sum() < images.labels.size:
        return shown
    shown["metrics"] = statistics.summary(images.labels, table, groups=images.groups, names=_SHOWN)
    [difference] = paired.auroc_differences(images.labels, [found.probabilities, table], groups=images.groups)
    of_difference = ("estimate", "se", "ci95", "p_value", "detectable")
    shown["difference"] = {name: value for name, value in asdict(difference).items() if name in of_difference}
    shown["difference"]["ci95"] = list(difference.ci95)
    return shown


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
