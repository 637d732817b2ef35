"""Figures of a model in use: the decision curve, and risk against coverage."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mhist_tune.plots.canvas import BLUE, GREY, INK, ORANGE, new_figure
from mhist_tune.statistics.estimates import Band
from mhist_tune.statistics.net_benefit import DecisionCurve
from mhist_tune.statistics.selective import RiskCoverage


def decision_curve(curve: DecisionCurve) -> Figure:
    """Draw net benefit against the threshold probability, with those of calling every image SSA and of calling none."""
    figure, (axes,) = new_figure(width=6.0, height=4.4)
    _draw_band(axes, curve.thresholds, curve.model)
    if curve.recalibrated is not None:
        axes.plot(
            curve.thresholds, curve.recalibrated, color=BLUE, linestyle="--", linewidth=1.6, label="model, recalibrated"
        )
    axes.plot(curve.thresholds, curve.treat_all, color=INK, linestyle="-.", linewidth=1.2, label="call all SSA")
    axes.axhline(0, color=GREY, linewidth=1.0, linestyle=":", label="call none SSA")
    top = max([value for value in (*curve.model.high, *curve.model.mean) if value is not None])
    axes.set(xlim=(0, 1), ylim=(-0.15 * top, 1.1 * top))
    axes.set(xlabel="threshold probability of SSA", ylabel="net benefit per image")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(loc="upper right", frameon=False)
    return figure


def risk_coverage(curve: RiskCoverage) -> Figure:
    """Draw the error rate of the images that are kept against their share."""
    figure, (axes,) = new_figure(width=6.0, height=4.4)
    _draw_band(axes, curve.coverage, curve.risk)
    axes.set(xlim=(0, 1.005), xlabel="coverage: share of the images that is not deferred", ylabel="error rate of these")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(loc="upper left", frameon=False)
    return figure


def _draw_band(axes: Axes, places: list[float], band: Band) -> None:
    """Draw the mean over seeds and, where there is one, its 95% interval."""
    known = [
        (place, low, high)
        for place, low, high in zip(places, band.low, band.high, strict=True)
        if low is not None and high is not None
    ]
    if known:
        x, low, high = zip(*known, strict=True)
        axes.fill_between(x, low, high, color=ORANGE, alpha=0.18, linewidth=0, label="95% interval")
    means = [float("nan") if mean is None else mean for mean in band.mean]
    axes.plot(places, means, color=ORANGE, linewidth=2, label="model, mean over seeds")
