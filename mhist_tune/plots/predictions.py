"""Figures of predictions on the test partition, from plain arrays."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

from mhist_tune.mhist import MIN_POSITIVE_VOTES, N_ANNOTATORS, POSITIVE_CLASS
from mhist_tune.plots.canvas import BLUE, GREEN, GREY, INK, ORANGE, new_figure
from mhist_tune.statistics import by_votes
from mhist_tune.statistics.by_votes import VoteRate
from mhist_tune.statistics.calibration import ReliabilityBin
from mhist_tune.statistics.roc import RocBand


def roc(
    band: RocBand,
    ceiling: tuple[Sequence[float], Sequence[float]] | None = None,
    readers: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Draw the mean ROC curve in the band between the lowest and the highest seed, and each seed as a thin line.

    Args:
        band: of the seeds.
        ceiling: false positive rates and sensitivities of the curve that the votes allow.
        readers: false positive rate and sensitivity of single annotators, by their description.
    """
    figure, (axes,) = new_figure(width=5.0, height=5.0)
    for fpr, tpr in band.seeds:
        axes.plot(fpr, tpr, color=BLUE, linewidth=0.6, alpha=0.45)
    axes.fill_between(band.fpr, band.low, band.high, color=BLUE, alpha=0.15, linewidth=0)
    # Interpolation at 0 meets the vertical start of the curves at its upper end; a mean ROC starts at (0, 0) too.
    axes.plot([0, *band.fpr], [0, *band.mean], color=ORANGE, linewidth=2.2, label="mean")
    axes.plot([], [], color=BLUE, linewidth=0.7, label=_seeds(len(band.seeds)))
    if ceiling is not None:
        axes.plot(*ceiling, color=INK, linewidth=1.3, linestyle="--", label="ceiling from the votes")
    for (name, point), fill in zip((readers or {}).items(), ("white", GREEN), strict=False):
        axes.plot(*point, color=GREEN, marker="D", markersize=7, linestyle="", markerfacecolor=fill, label=name)
    finish_roc(axes)
    return figure


def finish_roc(axes: Axes) -> None:
    """Draw the line of chance, and the axes of a ROC figure."""
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="chance")
    axes.set(xlim=(0, 1), ylim=(0, 1.005), aspect="equal")
    axes.set(xlabel="false positive rate (1 - specificity)", ylabel="sensitivity (recall of SSA)")
    axes.legend(loc="lower right", frameon=False)


def precision_recall(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> Figure:
    """Draw each seed's precision-recall curve, and the share of SSA, which is the precision of a blind guess.

    Args:
        labels: [n], 0 or 1, both present.
        probabilities: [S, n], in 0..1.
    """
    figure, (axes,) = new_figure(width=5.0, height=4.4)
    rows = np.asarray(probabilities)
    for row in rows:
        # The last point is scikit-learn's own, at recall 0; without it the curve starts at its first image.
        precision, recall, _ = precision_recall_curve(labels, row, drop_intermediate=True)
        axes.plot(recall[:-1], precision[:-1], color=BLUE, linewidth=0.8, alpha=0.6)
    share = float(np.asarray(labels).mean())
    axes.plot([], [], color=BLUE, linewidth=0.8, label=_seeds(len(rows)))
    axes.axhline(share, color=GREY, linewidth=0.8, linestyle=":", label=f"share of SSA, {share:.0%}")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall of SSA (sensitivity)", ylabel="precision of SSA")
    axes.legend(loc="lower left", frameon=False)
    return figure


def reliability(curves: Mapping[str, Sequence[ReliabilityBin]]) -> Figure:
    """Draw the share of SSA against the mean probability for up to three sets of probabilities.

    Args:
        curves: the bins of each, by name.
    """
    figure, (axes,) = new_figure(width=5.0, height=5.0)
    styles = ((ORANGE, "o", "-"), (BLUE, "s", "--"), (INK, "^", ":"))
    for (name, bins), (colour, marker, line) in zip(curves.items(), styles, strict=False):
        x, y = [point.probability for point in bins], [point.share for point in bins]
        axes.plot(x, y, color=colour, marker=marker, linestyle=line, linewidth=1.4, markersize=5, label=name)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="perfect")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set(xlabel="mean predicted probability of SSA", ylabel="share of SSA")
    axes.legend(loc="upper left", frameon=False)
    return figure


def error_rates(rates: Sequence[VoteRate]) -> Figure:
    """Draw the error rate with its interval for each number of SSA votes 0..7, and each annotator's.

    Args:
        rates: as from `by_votes.error_rates`.
    """
    figure, (axes,) = new_figure(width=6.0, height=4.4)
    for start, stop, name, colour, hatch in (
        (0, MIN_POSITIVE_VOTES, "HP by majority", BLUE, ""),
        (MIN_POSITIVE_VOTES, len(rates), "SSA by majority", ORANGE, "//"),
    ):
        drawn = by_votes.arrays(rates[start:stop])
        with matplotlib.rc_context({"hatch.linewidth": 0.6}):
            axes.bar(drawn.votes, drawn.rates, color=colour, hatch=hatch, edgecolor="white", linewidth=0, label=name)
        axes.errorbar(drawn.votes, drawn.rates, yerr=drawn.spread, fmt="none", ecolor=INK, elinewidth=1, capsize=3)
    finish_votes(axes, [rates])
    return figure


def finish_votes(axes: Axes, models: Sequence[Sequence[VoteRate]]) -> None:
    """Draw each annotator's error rate against the other six, and the axes of a figure of error rates.

    Args:
        axes: the axes of the figure.
        models: the rates of each model that it shows, on the same images.
    """
    first = models[0]
    human = [rate.human_error_rate for rate in first]
    tops = [rate.ci95[1] for rates in models for rate in rates if rate.ci95 is not None]
    axes.plot(range(len(first)), human, color=INK, marker="D", markersize=5, linestyle="", label="each annotator")
    axes.set(ylim=(0, min(1.3 * max([0.1, *tops, *human]), 1.25)))
    axes.set_xticks(range(len(first)), [f"{rate.votes}\nn={rate.n_images}" for rate in first], fontsize=10)
    axes.set(xlabel=f"votes for {POSITIVE_CLASS}, of {N_ANNOTATORS}", ylabel="misclassified images")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(loc="upper left", frameon=False, fontsize=10)


def _seeds(count: int) -> str:
    return f"each of {count} seeds" if count > 1 else "one seed"
