"""The ceiling that the votes set, one annotator beside it, and which part of it has been reached."""

from collections.abc import Mapping

from mhist_tune.mhist import N_ANNOTATORS
from mhist_tune.report.document import DataDescription, Report
from mhist_tune.report.evidence import Evidence
from mhist_tune.statistics import vote_ceiling
from mhist_tune.statistics.vote_ceiling import Ceiling
from mhist_tune.words import Rows, interval, number, p_value

TITLE = "Ceiling from the votes"
READER_TITLE = "One annotator of the panel"
_METRICS = {"auroc": "AUROC", "accuracy": "accuracy", "f1": "F1"}
_BAD_FIT = 0.05


def document(evidence: Evidence) -> Ceiling | None:
    """Return the ceiling from the votes of the test images; None where they show no disagreement."""
    images = evidence.images
    return vote_ceiling.vote_ceiling(
        images.votes, images.labels, evidence.probabilities, n_annotators=N_ANNOTATORS, groups=images.groups
    )


def sentence(ceiling: Ceiling, data: DataDescription) -> str:
    """Return which part of what the labels allow has been reached, in one sentence."""
    auroc, known = ceiling.metrics["auroc"], ceiling.ranges["auroc"]
    low, high = ceiling.reached_range
    ends = ceiling.reached.ci95
    return (
        f"Of what the labels of {ceiling.n_annotators} {data.annotator}s allow above chance "
        f"(AUROC {number(auroc.mean)} by a beta-binomial model of the votes, {interval((known.low, known.high))} by "
        "any that fits), "
        f"{_percent(ceiling.reached.mean)} has been reached"
        + ("" if ends is None else f" (95% interval {_percent(ends[0])} to {_percent(ends[1])})")
        + f"; {_percent(low)} to {_percent(high)} over that range."
    )


def rows(ceiling: Ceiling) -> Rows:
    """Return the ceiling by the beta distribution and by any distribution, and the part of it that was reached."""
    head = ["ceiling", "beta-binomial", "95% interval", "any distribution: best fit", "range that fits"]
    found = [
        [
            _METRICS[name],
            number(metric.mean),
            interval(metric.ci95),
            number(ceiling.ranges[name].best_fit),
            interval((ceiling.ranges[name].low, ceiling.ranges[name].high)),
        ]
        for name, metric in ceiling.metrics.items()
    ]
    reached = ceiling.reached
    part = ["part of the AUROC reached", number(reached.mean), interval(reached.ci95), ""]
    return [head, *found, [*part, interval(ceiling.reached_range)]]


def reader_rows(ceiling: Ceiling) -> Rows:
    """Return what one annotator reaches, and Fleiss' kappa."""
    reader, others = ceiling.reader, ceiling.n_annotators - 1
    rows_of = (
        (f"against the majority of all {ceiling.n_annotators}, the own vote among them", "sensitivity", "specificity"),
        (f"against the majority of the other {others}, a tie half", "sensitivity_left_out", "specificity_left_out"),
        (
            f"a further one against these {ceiling.n_annotators}, by the beta-binomial",
            "new_sensitivity",
            "new_specificity",
        ),
    )
    head = ["one annotator", "sensitivity", "95% interval", "specificity", "95% interval"]
    found = [head]
    for title, *names in rows_of:
        cells = [cell for name in names for cell in (number(reader[name].mean), interval(reader[name].ci95))]
        found.append([title, *cells])
    return found


def notes(ceiling: Ceiling) -> list[str]:
    """Return what the ceiling rests on, in a sentence each."""
    found = [
        "The ceiling is what a model that knew each image's true share of annotators would reach on average against a "
        f"panel of {ceiling.n_annotators}: it ranks by that share, and calls SSA above one half.",
        "It assumes that annotators are exchangeable and that, given the image, they vote independently. Annotators "
        "who differ in skill, or who were misled by the same thing, would change it.",
        f"{ceiling.n_annotators} votes do not show the whole distribution of the shares. The range holds the ceiling "
        "of every distribution whose likelihood is not significantly below the best one's.",
        "A model may come above the ceiling by chance, or by learning what annotators have in common beside the "
        "image's class.",
    ]
    fit = ceiling.fit
    if fit is not None:
        text = (
            f"Fit of the beta-binomial: G² = {fit.statistic:.1f} with {fit.df} degrees of freedom, p {_p(fit.p_value)}."
        )
        if fit.p_value < _BAD_FIT:
            text += " It does not fit these votes, so the range is the number to go by."
        found.append(text)
    return found


def reader_notes(ceiling: Ceiling) -> list[str]:
    """Return the agreement of the annotators, in a sentence each."""
    reader = ceiling.reader
    return [
        f"Accuracy against the majority of the others is {number(reader['accuracy_left_out'].mean)} "
        f"({_ends(reader['accuracy_left_out'].ci95)}). Fleiss' kappa is {number(reader['fleiss_kappa'].mean)} "
        f"({_ends(reader['fleiss_kappa'].ci95)}).",
        "The votes do not say who voted, so each number is the mean over the annotators. The first row flatters them: "
        "the label holds their own vote.",
    ]


def points(report: Report) -> Mapping[str, tuple[float, float]]:
    """Return false positive rate and sensitivity of one annotator, for the ROC figure, by what it is judged by."""
    ceiling = report.ceiling
    if ceiling is None:
        return {}
    found = {}
    for title, suffix in (
        (f"the panel of {ceiling.n_annotators}", ""),
        (f"the other {ceiling.n_annotators - 1}", "_left_out"),
    ):
        sensitivity, specificity = (ceiling.reader[f"{name}{suffix}"].mean for name in ("sensitivity", "specificity"))
        if sensitivity is not None and specificity is not None:
            found[f"one {report.data.annotator} against {title}"] = (1 - specificity, sensitivity)
    return found


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _ends(ends: tuple[float, float] | None) -> str:
    return "no interval" if ends is None else f"95% interval {interval(ends)}"


def _p(value: float) -> str:
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"
