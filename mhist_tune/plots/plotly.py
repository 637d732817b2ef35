"""Plotly figures as JSON documents, small enough for a page that polls them. Plotly is not imported."""

from collections.abc import Mapping, Sequence
from typing import Any

from mhist_tune.mhist import N_ANNOTATORS, POSITIVE_CLASS
from mhist_tune.plots.canvas import BLUE, GREY, ORANGE
from mhist_tune.statistics.by_votes import VoteRate
from mhist_tune.statistics.roc import RocBand
from mhist_tune.statistics.summaries import MetricSummary

_STEP = 5  # every fifth point of a ROC curve is drawn
_METRICS = ("auroc", "f1", "accuracy", "recall", "specificity")
Figure = dict[str, Any]


def of_report(
    metrics: Mapping[str, MetricSummary], by_votes: Sequence[VoteRate], band: RocBand | None
) -> dict[str, Figure]:
    """Return the figures of a report by id.

    Args:
        metrics: by name.
        by_votes: as from `by_votes.error_rates`.
        band: None where the test images are of one class.
    """
    figures = {"seeds": seeds(metrics), "votes": votes(by_votes)}
    return {"roc": roc(band), **figures} if band else figures


def roc(band: RocBand) -> Figure:
    """Return the mean ROC curve over the seeds with the band from the lowest to the highest."""
    x, low, mean, high = (curve[::_STEP] for curve in (band.fpr, band.low, band.mean, band.high))
    return _figure(
        "ROC on the test partition",
        [
            {"x": _round(x), "y": _round(low), "mode": "lines", "line": {"width": 0}, "showlegend": False},
            {
                "x": _round(x),
                "y": _round(high),
                "mode": "lines",
                "line": {"width": 0},
                "fill": "tonexty",
                "fillcolor": "rgba(0,114,178,0.2)",
                "name": "seeds",
            },
            {"x": _round(x), "y": _round(mean), "mode": "lines", "line": {"color": BLUE}, "name": "mean"},
            {"x": [0, 1], "y": [0, 1], "mode": "lines", "line": {"color": GREY, "dash": "dot"}, "showlegend": False},
        ],
        x="1 - specificity",
        y="recall",
    )


def seeds(metrics: Mapping[str, MetricSummary]) -> Figure:
    """Return one box of all seeds for each metric."""
    boxes = [
        {
            "type": "box",
            "name": name,
            "y": _round(metrics[name].per_seed),
            "boxpoints": "all",
            "line": {"color": BLUE},
        }
        for name in _METRICS
        if metrics[name].mean is not None
    ]
    return _figure("Seeds on the test partition", boxes, y="value", showlegend=False)


def votes(rates: Sequence[VoteRate]) -> Figure:
    """Return the error rate for each number of votes beside each annotator's against the other six."""
    drawn = [rate for rate in rates if rate.error_rate is not None]
    x = [rate.votes for rate in drawn]
    human = [rate.human_error_rate for rate in drawn]
    return _figure(
        "Error rate by votes for SSA",
        [
            {
                "type": "bar",
                "x": x,
                "y": _round([rate.error_rate for rate in drawn]),
                "name": "model",
                "marker": {"color": BLUE},
            },
            {
                "x": x,
                "y": _round(human),
                "mode": "markers",
                "name": "each annotator against the other six",
                "marker": {"color": ORANGE, "symbol": "diamond"},
            },
        ],
        x=f"votes for {POSITIVE_CLASS}, of {N_ANNOTATORS}",
        y="error rate",
    )


def by_choice(name: str, values: Mapping[str, Sequence[float]], score: str) -> Figure:
    """Return one box of the trials' values for each choice of a hyperparameter; `score` is the name of the score."""
    boxes = [
        {"type": "box", "name": choice, "y": _round(scores), "boxpoints": "all", "line": {"color": BLUE}}
        for choice, scores in values.items()
    ]
    return _figure(f"Search: validation {score} by {name}", boxes, y=f"validation {score}", showlegend=False)


def _figure(title: str, data: list[dict[str, Any]], *, y: str, x: str = "", showlegend: bool = True) -> Figure:
    layout: dict[str, Any] = {
        "title": {"text": title},
        "showlegend": showlegend,
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}},
    }
    return {"data": data, "layout": layout}


def _round(values: Any) -> list[float | None]:
    return [None if value is None else round(float(value), 4) for value in values]
