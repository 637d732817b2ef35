"""The gain from tuning: the chosen trial against the study's default, retrained with the same seeds in one opening."""

from dataclasses import dataclass

from mhist_tune.report.evidence import Evidence
from mhist_tune.statistics import paired, summaries
from mhist_tune.statistics.summaries import MetricSummary
from mhist_tune.words import number

_METRICS = ("auroc", "auprc", "f1", "balanced_accuracy")


@dataclass(frozen=True)
class Change:
    """The chosen trial's seed-mean metric minus the default's, as in a comparison of studies (`paired.Difference`)."""

    estimate: float
    se: float | None
    ci95: tuple[float, float] | None
    p_value: float | None
    detectable: float | None


@dataclass(frozen=True)
class Gain:
    """The chosen trial against the default on the test images.

    Attributes:
        default: a trial.
        is_chosen: whether the default is the chosen trial; then there is nothing to compare.
        n_seeds: of the default, that have finished.
        metrics: of the default, by name; None without its seeds or where the test images are of one class, as are the
            differences.
        difference: of AUROC.
        difference_f1: of F1 at 0.5; descriptive, the test is that of AUROC.
    """

    default: int
    is_chosen: bool
    n_seeds: int
    metrics: dict[str, MetricSummary] | None = None
    difference: Change | None = None
    difference_f1: Change | None = None


def document(evidence: Evidence) -> Gain | None:
    """Return the gain; None where the opening names no default."""
    default = evidence.opening.payload.get("default")
    if default is None:
        return None
    is_chosen = default == evidence.opening.payload["trial"]
    images, probabilities = evidence.images, evidence.default_probabilities
    if probabilities is None or not 0 < images.labels.sum() < images.labels.size:
        return Gain(default, is_chosen, len(evidence.default_slots))
    models = [evidence.probabilities, probabilities]
    [auroc] = paired.auroc_differences(images.labels, models, groups=images.groups)
    [f1] = paired.f1_differences(images.labels, models, groups=images.groups)
    return Gain(
        default,
        is_chosen,
        len(evidence.default_slots),
        metrics=summaries.summary(images.labels, probabilities, groups=images.groups, names=_METRICS),
        difference=_change(auroc),
        difference_f1=_change(f1),
    )


def _change(difference: paired.Difference) -> Change:
    return Change(difference.estimate, difference.se, difference.ci95, difference.p_value, difference.detectable)


def sentence(gain: Gain) -> str | None:
    """Return the gain in one sentence; None while the default has no results."""
    if gain.is_chosen:
        return "The study's default was the best confirmed configuration, so tuning gained nothing here."
    difference = gain.difference
    if difference is None:
        return None
    text = (
        f"Against the study's default (trial {gain.default}), tuning changed test AUROC by {difference.estimate:+.4f}"
    )
    if difference.ci95 is None:
        return f"{text}; fewer than {paired.MIN_GROUPS} groups hold a class, too few for an interval."
    low, high = difference.ci95
    text += f", 95% interval {low:+.4f} to {high:+.4f}"
    if low <= 0 <= high:
        smallest = number(difference.detectable, 4)
        text += f", so no gain is shown (smallest difference found with 80% power here: {smallest})"
    return text + "."
