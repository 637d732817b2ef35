"""Plotly figures as JSON documents, small enough for a page that polls them: no Plotly is needed to write them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from mhist_tune.arrays import FloatArray
from mhist_tune.canvas import BLUE, GREY, ORANGE

_GRID = np.linspace(0, 1, 41)
_SHOWN = ("auroc", "f1", "accuracy", "recall", "specificity")
Figure = dict[str, Any]


def of_report(report: Mapping[str, Any], labels: Any, probabilities: FloatArray) -> dict[str, Figure]:
    """Return the figures of a report by id.

    Args:
        report: the document.
        labels: of the test images, [n].
        probabilities: of SSA, [S, n].
    """
    found = {"seeds": seeds(report["metrics"]), "votes": votes(report["by_votes"])}
    return {"roc": roc(labels, probabilities), **found} if 0 < labels.sum() < labels.size else found


def roc(labels: Any, probabilities: FloatArray) -> Figure:
    """Return the mean ROC curve over the seeds with the band from the lowest to the highest."""
    curves = []
    for row in probabilities:
        false_rate, true_rate, _ = roc_curve(labels, row)
        curves.append(np.interp(_GRID, false_rate, true_rate))
    low, mean, high = np.min(curves, axis=0), np.mean(curves, axis=0), np.max(curves, axis=0)
    x = _round(_GRID)
    return _figure(
        "ROC on the test partition",
        [
            {"x": x, "y": _round(low), "mode": "lines", "line": {"width": 0}, "showlegend": False},
            {
                "x": x,
                "y": _round(high),
                "mode": "lines",
                "line": {"width": 0},
                "fill": "tonexty",
                "fillcolor": "rgba(0,114,178,0.2)",
                "name": "seeds",
            },
            {"x": x, "y": _round(mean), "mode": "lines", "line": {"color": BLUE}, "name": "mean"},
            {"x": [0, 1], "y": [0, 1], "mode": "lines", "line": {"color": GREY, "dash": "dot"}, "showlegend": False},
        ],
        x="1 - specificity",
        y="recall",
    )


def seeds(metrics: Mapping[str, Any]) -> Figure:
    """Return one box of all seeds for each metric."""
    boxes = [
        {
            "type": "box",
            "name": name,
            "y": _round(metrics[name]["per_seed"]),
            "boxpoints": "all",
            "line": {"color": BLUE},
        }
        for name in _SHOWN
        if metrics[name]["mean"] is not None
    ]
    return _figure("Seeds on the test partition", boxes, y="value", showlegend=False)


def votes(rates: Sequence[Mapping[str, Any]]) -> Figure:
    """Return the error rate for each number of votes beside the pathologists' disagreement."""
    shown = [one for one in rates if one["error_rate"] is not None]
    x = [one["votes"] for one in shown]
    human = [one["human_error_rate"] for one in shown]
    return _figure(
        "Error rate by votes for SSA",
        [
            {
                "type": "bar",
                "x": x,
                "y": _round([one["error_rate"] for one in shown]),
                "name": "model",
                "marker": {"color": BLUE},
            },
            {
                "x": x,
                "y": _round(human),
                "mode": "markers",
                "name": "pathologists",
                "marker": {"color": ORANGE, "symbol": "diamond"},
            },
        ],
        x="votes for SSA, of 7",
        y="error rate",
    )


def by_choice(name: str, values: Mapping[str, Sequence[float]]) -> Figure:
    """Return one box of validation scores for each choice of a hyperparameter."""
    boxes = [
        {"type": "box", "name": choice, "y": _round(scores), "boxpoints": "all", "line": {"color": BLUE}}
        for choice, scores in values.items()
    ]
    return _figure(f"Search: best validation F1 by {name}", boxes, y="validation F1", showlegend=False)


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
