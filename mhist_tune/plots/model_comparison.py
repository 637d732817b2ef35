"""Figures of several models on the same test images, from plain arrays.

Models are told apart by colour, line and marker, so that no figure rests on colour alone.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice

import numpy as np
from matplotlib.figure import Figure

from mhist_tune.plots import predictions
from mhist_tune.plots.canvas import BLUE, BROWN, GREEN, GREY, INK, ORANGE, PINK, VIOLET, new_figure
from mhist_tune.statistics import by_votes
from mhist_tune.statistics.by_votes import VoteRate
from mhist_tune.statistics.roc import RocBand
from mhist_tune.statistics.summaries import MetricSummary

_COLOURS = (BLUE, ORANGE, GREEN, PINK, BROWN, VIOLET)
_LINES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "v", "P", "X")


def roc(models: Mapping[str, RocBand]) -> Figure:
    """Draw each model's mean ROC curve in the band between its lowest and its highest seed, by the model's name."""
    figure, (axes,) = new_figure(width=5.0, height=5.0)
    for (name, band), colour, line in zip(models.items(), cycle(_COLOURS), cycle(_LINES), strict=False):
        axes.fill_between(band.fpr, band.low, band.high, color=colour, alpha=0.15, linewidth=0)
        axes.plot([0, *band.fpr], [0, *band.mean], color=colour, linestyle=line, linewidth=2, label=name)
    predictions.finish_roc(axes)
    return figure


def seeds(models: Mapping[str, MetricSummary]) -> Figure:
    """Draw the AUROC of each seed, their mean and its interval, the first model on top.

    Args:
        models: a metric over the seeds, by name.
    """
    figure, (axes,) = new_figure(width=6.0, height=1.4 + 0.6 * len(models))
    for place, ((name, summary), colour) in enumerate(zip(models.items(), cycle(_COLOURS), strict=False)):
        values = [value for value in summary.per_seed if value is not None]
        axes.plot(values, np.full(len(values), place - 0.16), "o", color=colour, markersize=4.5, alpha=0.7, label=name)
        if summary.mean is not None and summary.ci95 is not None:
            axes.plot(summary.ci95, [place + 0.16] * 2, color=INK, linewidth=1.4)
            axes.plot([summary.mean], [place + 0.16], "D", color=INK, markersize=5.5)
    axes.set_yticks(range(len(models)), list(models))
    axes.set(ylim=(len(models) - 0.5, -0.5), xlabel="AUROC")
    return figure


def differences(pairs: Mapping[str, tuple[float, tuple[float, float] | None]]) -> Figure:
    """Draw differences with their intervals beside 0, the first on top.

    Args:
        pairs: estimate and interval by name; None where there is no interval.
    """
    figure, (axes,) = new_figure(width=6.0, height=1.4 + 0.45 * len(pairs))
    for place, (estimate, ends) in enumerate(pairs.values()):
        if ends is not None:
            axes.plot(ends, [place] * 2, color=BLUE, linewidth=1.8)
        axes.plot([estimate], [place], "D", color=BLUE, markersize=6)
    axes.axvline(0, color=GREY, linewidth=0.9, linestyle=":")
    axes.set_yticks(range(len(pairs)), list(pairs))
    axes.set(ylim=(len(pairs) - 0.5, -0.5), xlabel="difference of AUROC")
    axes.locator_params(axis="x", nbins=4)  # two long names leave little width
    return figure


def error_rates(models: Mapping[str, Sequence[VoteRate]]) -> Figure:
    """Draw each model's error rate with its interval for each number of SSA votes, and each annotator's.

    Args:
        models: as from `by_votes.error_rates`, by name.
    """
    figure, (axes,) = new_figure(width=6.0, height=4.4)
    step = 0.7 / len(models)
    styles = zip(cycle(_COLOURS), cycle(_MARKERS), strict=False)
    for place, ((name, rates), (colour, marker)) in enumerate(
        zip(models.items(), islice(styles, len(models)), strict=True)
    ):
        drawn = by_votes.arrays(rates)
        x = drawn.votes + (place - (len(models) - 1) / 2) * step
        axes.errorbar(
            x, drawn.rates, yerr=drawn.spread, fmt=marker, color=colour, markersize=5, elinewidth=1, label=name
        )
    predictions.finish_votes(axes, list(models.values()))
    return figure
