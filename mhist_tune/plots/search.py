"""Figures of training and search: learning curves, history, importance. They show validation scores only."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mhist_tune.plots.canvas import BLUE, GREY, INK, ORANGE, new_figure

Curve = Sequence[float | None]
"""One value for each epoch, starting with epoch 1; None for an epoch in which it was not measured."""


def learning_curves(chosen: Mapping[str, Curve], retrained: Sequence[Curve]) -> Figure:
    """Draw the chosen trial's losses, F1 and AUROC by epoch, and the training loss of each retrained seed.

    Args:
        chosen: `train_loss`, `val_loss`, `val_f1` and `val_auroc` of the chosen search trial; empty if there is none.
        retrained: the training loss of each seed.
    """
    figure, panels = new_figure(width=6.0, height=5.6 if chosen else 3.4, n_panels=2 if chosen else 1)
    loss = panels[0]
    for number, curve in enumerate(retrained):
        label = "training, retrained seeds" if number == 0 else None
        _draw(loss, curve, color=GREY, linewidth=0.8, alpha=0.7, label=label)
    if chosen:
        _draw(loss, chosen["train_loss"], color=BLUE, linewidth=1.8, label="training, chosen trial")
        _draw(loss, chosen["val_loss"], color=ORANGE, linewidth=1.8, linestyle="--", label="validation, chosen trial")
        _draw(panels[1], chosen["val_auroc"], color=BLUE, linewidth=1.8, label="AUROC")
        _draw(panels[1], chosen["val_f1"], color=ORANGE, linewidth=1.8, linestyle="--", label="F1")
        panels[1].set(ylabel="validation, chosen trial")
        panels[1].legend(loc="best", frameon=False, fontsize=10)
    loss.set(ylabel="loss, mean per image", ylim=(0, None))
    loss.legend(loc="best", frameon=False, fontsize=10)
    panels[-1].set(xlabel="epoch")
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def history(
    numbers: Sequence[int], values: Sequence[float], states: Sequence[str], chosen: int | None, *, ylabel: str
) -> Figure:
    """Draw the value of each trial, and the best of the complete trials so far.

    Args:
        numbers: the numbers of the trials, ascending.
        values: the value of each trial.
        states: COMPLETE or PRUNED for each trial.
        chosen: the number of the retrained trial; None if there is none.
        ylabel: what the values are.
    """
    figure, (axes,) = new_figure(width=6.0, height=4.0)
    for state, colour, marker in (("COMPLETE", BLUE, "o"), ("PRUNED", GREY, "x")):
        positions = [position for position, other in enumerate(states) if other == state]
        points = [numbers[position] for position in positions], [values[position] for position in positions]
        axes.plot(*points, color=colour, marker=marker, markersize=5, linestyle="", label=state.lower())
    best = np.maximum.accumulate([v if s == "COMPLETE" else -np.inf for v, s in zip(values, states, strict=True)])
    exists = np.isfinite(best)
    axes.step(np.array(numbers)[exists], best[exists], where="post", color=ORANGE, linewidth=1.6, label="best so far")
    if chosen is not None and chosen in numbers:
        value = values[numbers.index(chosen)]
        axes.plot([chosen], [value], marker="o", markersize=12, markerfacecolor="none", color=INK, linestyle="")
        axes.annotate("retrained", (chosen, value), xytext=(0, 10), textcoords="offset points", ha="center")
    axes.set(xlabel="trial", ylabel=ylabel)
    axes.margins(y=0.15)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best", frameon=False, fontsize=10)
    return figure


def importance(shares: Mapping[str, tuple[float, float, float]], score: str) -> Figure:
    """Draw each hyperparameter's share of the explained variance with its interval, the largest on top.

    Args:
        shares: (share, lower end, upper end) of each hyperparameter, each 0..1, the largest share first.
        score: what the score of the study is called.
    """
    figure, (axes,) = new_figure(width=6.0, height=1.2 + 0.45 * len(shares))
    names = list(shares)[::-1]
    values = np.array([shares[name] for name in names])
    axes.barh(names, values[:, 0], color=BLUE)
    spread = np.clip(np.stack([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]), 0, None)
    axes.errorbar(values[:, 0], range(len(names)), xerr=spread, fmt="none", ecolor=INK, elinewidth=1, capsize=3)
    axes.set(xlabel=f"share of the explained variance of validation {score}", xlim=(0, 1))
    return figure


def _draw(axes: Axes, curve: Curve, **style: object) -> None:
    values = np.array([np.nan if value is None else value for value in curve], dtype=np.float64)
    axes.plot(np.arange(1, len(values) + 1), values, marker="." if len(values) == 1 else "", **style)  # type: ignore[arg-type]
