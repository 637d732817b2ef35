"""The tables of a model in use, and how to read them."""

from mhist_tune.report.operating import Operating
from mhist_tune.statistics.summaries import MetricSummary
from mhist_tune.words import Rows, interval, number

CONFUSION = "Confusion matrix"
POINTS = "Sensitivity at a fixed specificity, and the reverse"
PREDICTIVE_VALUES = "Predictive values"
NET_BENEFIT = "Net benefit"
DEFERRAL = "Which share to defer"
_SHOWN = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Threshold probabilities in the table of net benefit."""


def tables(found: Operating) -> list[tuple[str, Rows]]:
    """Return the tables with their titles; the first row of each is its head."""
    return [
        (CONFUSION, _confusion(found)),
        (POINTS, _points(found)),
        (PREDICTIVE_VALUES, _predictive_values(found)),
        (NET_BENEFIT, _net_benefit(found)),
        (DEFERRAL, _deferral(found)),
    ]


def notes(found: Operating) -> dict[str, list[str]]:
    """Return how to read each table, in sentences by its title."""
    chosen = (
        "Columns on these images have a threshold that was chosen on the test images, for each seed: they describe "
        "these images and are too good for others. "
    )
    honest = (
        f"Columns there have one that was fixed on {found.source}: it may miss the target, and is what to expect."
        if found.source
        else "There are no held-out predictions to fix one beforehand."
    )
    threshold = found.predictive_values[0].threshold
    return {
        CONFUSION: ["Numbers of test images, mean over seeds, with 95% intervals for the given numbers of SSA and HP."],
        POINTS: [chosen + honest],
        PREDICTIVE_VALUES: [
            f"At the threshold {threshold:.3f}, from the test images' sensitivity and specificity by Bayes' rule. "
            "These two count as the same at every prevalence, which is not so where the cases differ."
        ],
        NET_BENEFIT: [
            "A true SSA image counts 1, and a false one t / (1 - t) at the threshold probability t, per image (Vickers "
            "and Elkin, 2006). A model is of use at t where it is above both calling every image SSA and calling none. "
            "It needs calibrated probabilities."
        ],
        DEFERRAL: [
            "The images with a probability nearest to 0.5 are deferred, so that the others are misclassified in at "
            "most a given rate. " + chosen + honest
        ],
    }


def _confusion(found: Operating) -> Rows:
    head = ["by majority"]
    ssa, hp = ["SSA"], ["HP"]
    for one in found.confusion:
        head += [f"called {name} at {one.threshold:.3g}" for name in ("SSA", "HP")]
        ssa += [_counted(one.tp), _counted(one.fn)]
        hp += [_counted(one.fp), _counted(one.tn)]
    return [head, ssa, hp]


def _points(found: Operating) -> Rows:
    head = ["held", "reached on these images", "95% interval", "threshold", "sensitivity there", "95% interval"]
    rows = [[*head, "specificity there", "95% interval"]]
    other = {"specificity": "sensitivity", "sensitivity": "specificity"}
    for point in found.points:
        reached = f"{other[point.fixed]} {number(point.reached.mean)}"
        cells = [f"{point.fixed} {point.target:.0%}", reached, interval(point.reached.ci95), number(point.threshold)]
        rows.append([*cells, *_pair(point.sensitivity), *_pair(point.specificity)])
    return rows


def _predictive_values(found: Operating) -> Rows:
    rows = [["prevalence of SSA", "PPV", "95% interval", "NPV", "95% interval"]]
    for one in found.predictive_values:
        rows.append([f"{one.prevalence:.1%}", *_pair(one.ppv), *_pair(one.npv)])
    return rows


def _net_benefit(found: Operating) -> Rows:
    curve = found.net_benefit
    rows = [
        [
            "threshold probability",
            "model",
            "95% interval",
            "call all SSA",
            "call none",
            "above the better",
            "95% interval",
        ]
    ]
    for threshold in _SHOWN:
        at = curve.thresholds.index(threshold)
        cells = []
        for band in (curve.model, curve.above_all):
            low, high = band.low[at], band.high[at]
            cells.append([number(band.mean[at]), "-" if low is None or high is None else interval((low, high))])
        rows.append([f"{threshold:.0%}", *cells[0], number(curve.treat_all[at]), number(0.0), *cells[1]])
    return rows


def _deferral(found: Operating) -> Rows:
    head = ["the rest errs in at most", "defer on these images", "95% interval", "certainty", "deferred there"]
    rows = [[*head, "95% interval", "error rate there", "95% interval"]]
    for one in found.deferral:
        cells = [f"{one.risk:.0%}", number(one.deferred.mean), interval(one.deferred.ci95), number(one.certainty)]
        rows.append([*cells, *_pair(one.deferred_there), *_pair(one.risk_there)])
    return rows


def _pair(metric: MetricSummary | None) -> list[str]:
    return ["-", "-"] if metric is None else [number(metric.mean), interval(metric.ci95)]


def _counted(metric: MetricSummary) -> str:
    ends = "" if metric.ci95 is None else f" ({interval(metric.ci95, 0)})"
    return f"{number(metric.mean, 1)}{ends}"
