"""matplotlib figures without a window system: as PNG files, or as SVG elements in the colours of an HTML page.

Colour-blind readers can tell the colours apart (after Okabe and Ito, 2008).
"""

import io
import re
import textwrap
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"
GREEN, PINK, BROWN, VIOLET = "#00795A", "#B0568B", "#8A6D00", "#5B4FC4"
INK = "#1b1b1c"
"""Colour of text and axes."""

_CSS = {
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
    PINK: "var(--pink)",
    BROWN: "var(--brown)",
    VIOLET: "var(--violet)",
    GREY: "var(--grey)",
    INK: "currentColor",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: searchable, and in the page's font
    "svg.hashsalt": "mhist-tune",  # the same figure has the same bytes
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 11.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
}
_DPI = 150


def new_figure(*, width: float = 5.4, height: float = 4.2, n_panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, which are below each other.

    Args:
        width, height: of the figure, in inches.
        n_panels: number of panels.
    """
    with matplotlib.rc_context(_STYLE):
        # Not made by pyplot, which has global state.
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        panels = [figure.add_subplot(n_panels, 1, number) for number in range(1, n_panels + 1)]
        for axes in panels:
            axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def message(text: str) -> Figure:
    """Return a figure that holds a text only."""
    figure, (axes,) = new_figure(height=2.0)
    axes.set_axis_off()
    # A dollar sign would begin a formula, which may be a wrong one.
    axes.text(0.5, 0.5, textwrap.fill(text.replace("$", "S"), 60), ha="center", va="center", transform=axes.transAxes)
    return figure


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, on a white background."""
    with matplotlib.rc_context(_STYLE):
        figure.savefig(path, format="png", dpi=_DPI, facecolor="white")


def inline_svg(figure: Figure, label: str) -> str:
    """Return a figure as an SVG element, for a page whose CSS defines --blue and the other colours.

    Args:
        figure: as from `new_figure`.
        label: description of the figure for screen readers.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, name in _CSS.items():
        svg = re.sub(colour, name, svg, flags=re.IGNORECASE)
    escaped = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escaped}" ', 1)
