"""Figures from plain arrays, as PNG files. Colours are told apart by colour-blind readers too (Okabe and Ito, 2008)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from mhist_tune.difficulty import VoteRate

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"
_FIRST_SSA_VOTE = 4
_DPI = 150


def roc(labels: npt.ArrayLike, probabilities: npt.ArrayLike, path: Path) -> None:
    """Draw one thin ROC line per seed and their mean, and write it to `path`.

    The mean is vertical: the sensitivities of all seeds averaged at each false positive rate.

    Args:
        labels: [n], 0 or 1, both present.
        probabilities: [S, n], in 0..1.
        path: of the PNG file.
    """
    figure, axes = _figure(width=5.0, height=5.0)
    grid = np.linspace(0, 1, 501)
    table = np.asarray(probabilities)
    rates = [roc_curve(labels, row, drop_intermediate=False)[:2] for row in table]
    for fpr, tpr in rates:
        axes.plot(fpr, tpr, color=BLUE, linewidth=0.7, alpha=0.45)
    mean = np.mean([np.interp(grid, fpr, tpr) for fpr, tpr in rates], axis=0)
    # Interpolation at 0 meets the vertical start of the curves at its upper end; a mean ROC starts at (0, 0) too.
    axes.plot([0, *grid], [0, *mean], color=ORANGE, linewidth=2.2, label="mean")
    axes.plot([], [], color=BLUE, linewidth=0.7, label=f"each of {len(table)} seeds" if len(table) > 1 else "one seed")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="chance")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title="ROC on the test partition")
    axes.set(xlabel="false positive rate (1 - specificity)", ylabel="sensitivity (recall of SSA)")
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, format="png", dpi=_DPI)


def error_rates(rates: Sequence[VoteRate], path: Path) -> None:
    """Draw the error rate for each number of SSA votes 0..7 with the number of images, and write it to `path`.

    Args:
        rates: as from `difficulty.rates_by_votes`.
        path: of the PNG file.
    """
    figure, axes = _figure(width=6.4, height=4.0)
    for start, stop, name, colour, hatch in (
        (0, _FIRST_SSA_VOTE, "HP by majority", BLUE, ""),
        (_FIRST_SSA_VOTE, len(rates), "SSA by majority", ORANGE, "//"),
    ):
        shown = rates[start:stop]
        heights = [rate["error_rate"] or 0.0 for rate in shown]
        bars = axes.bar([rate["votes"] for rate in shown], heights, color=colour, hatch=hatch, label=name)
        for bar in bars:
            bar.set_edgecolor("white")
        texts = [
            "none" if rate["error_rate"] is None else f"{rate['error_rate']:.0%}\nn={rate['n_images']}"
            for rate in shown
        ]
        axes.bar_label(bars, texts, padding=2, fontsize=8)
    highest = max((rate["error_rate"] or 0.0 for rate in rates), default=0.0)
    axes.set(title="Error rate by agreement of the seven pathologists", xticks=range(len(rates)))
    axes.set(xlabel="votes for SSA, of 7", ylabel="misclassified images", ylim=(0, max(1.3 * highest, 0.1)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(loc="upper left", frameon=False)
    figure.savefig(path, format="png", dpi=_DPI)


def _figure(*, width: float, height: float) -> tuple[Figure, Axes]:
    # A figure of its own, not pyplot's: no global state, no window system.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
