"""Small SVG charts as strings, without a drawing library, for pages that are rendered every second.

The style sheet of the page sets colours and fonts by class. `standalone` makes a file with a style of its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 8, 24
_FILE_STYLE = (
    "svg{background:#fff;font-family:system-ui,sans-serif}text{font-size:11px;fill:#5b6068}"
    ".grid{stroke:#e3e5e9}.axis{stroke:#9aa0a9}path{fill:none;stroke-width:2;stroke-linejoin:round}"
    ".c0{stroke:#0072b2}.c1{stroke:#d55e00}.c2{stroke:#009e73}.c3{stroke:#cc79a7}"
)


@dataclass(frozen=True)
class Line:
    """One curve by epoch, from epoch 1 on; None where nothing was measured.

    Attributes:
        label: the tooltip.
        values: [n epochs].
        style: its class in the style sheet.
    """

    label: str
    values: Sequence[float | None]
    style: str


class _Scale:
    """Values to pixels along one axis, with round ticks inside the range."""

    def __init__(self, low: float, high: float, start: float, end: float, *, is_log: bool = False) -> None:
        if low == high:
            low, high = (low / 2, high * 2) if is_log else (low - 0.5, high + 0.5)
        self._is_log, self._low, self._high = is_log, low, high
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(number) if self._is_log else number for number in (self._low, self._high, value))
        return self._start + (value - low) / (high - low) * (self._end - self._start)

    def ticks(self, *, is_whole: bool = False) -> list[float]:
        """Return up to six round values."""
        if self._is_log:
            decades = range(math.ceil(math.log10(self._low)), math.floor(math.log10(self._high)) + 1)
            powers = [10.0**exponent for exponent in decades]
            return powers if 2 <= len(powers) <= 6 else powers[:: max(1, len(powers) // 4)] or [self._low, self._high]
        span = self._high - self._low
        step = 10.0 ** math.floor(math.log10(span / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)
        step = max(step, 1.0) if is_whole else step
        first = math.ceil(self._low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self._high / step + 1e-9) + 1)]


def curves(title: str, lines: Sequence[Line], *, n_epochs: int, is_log: bool = False) -> str:
    """Return one panel with a curve for each line.

    Args:
        title: the text alternative of the chart.
        lines: later ones are drawn on top.
        n_epochs: right end of the axis.
        is_log: whether the values, then above 0, are on a logarithmic scale.
    """
    values = [value for line in lines for value in line.values if value is not None and (value > 0 or not is_log)]
    if not values:
        return _frame(title, '<text class="none" x="180" y="104">nothing measured yet</text>')
    x = _Scale(1, max(2, n_epochs), _LEFT, WIDTH - _RIGHT)
    y = _Scale(min(values), max(values), HEIGHT - _BOTTOM, _TOP, is_log=is_log)
    parts = [_axes(x, y, "epoch")]
    for line in lines:
        known = [
            (n, value) for n, value in enumerate(line.values, 1) if value is not None and (value > 0 or not is_log)
        ]
        if known:
            # a path of one point is drawn as a dot by its round cap
            points = "L".join(f"{x(n):.1f} {y(value):.1f}" for n, value in known)
            path = f"M{points}" if len(known) > 1 else f"M{points}h0"
            parts.append(f'<path class="{line.style}" d="{path}"><title>{escape(line.label)}</title></path>')
    return _frame(title, "".join(parts))


def history(title: str, complete: Sequence[tuple[int, float]], pruned: Sequence[tuple[int, float]]) -> str:
    """Return the panel of a search: a dot for each trial's number and best value, and the best complete one so far."""
    trials = [*complete, *pruned]
    if not trials:
        return _frame(title, '<text class="none" x="180" y="104">no trial has ended yet</text>')
    x = _Scale(min(n for n, _ in trials), max(n for n, _ in trials), _LEFT, WIDTH - _RIGHT)
    y = _Scale(min(v for _, v in trials), max(v for _, v in trials), HEIGHT - _BOTTOM, _TOP)
    dots = {"pruned": pruned, "complete": complete}
    parts = [_axes(x, y, "trial")]
    for name, points in dots.items():
        path = "".join(f"M{x(n):.1f} {y(value):.1f}h0" for n, value in points)
        parts.append(f'<path class="dots {name}" d="{path}"><title>{name} trials</title></path>')
    best, steps = -math.inf, ""
    for n, value in sorted(complete):
        if value > best:
            best = value
            steps += f"H{x(n):.1f}V{y(value):.1f}" if steps else f"M{x(n):.1f} {y(value):.1f}"
    if steps:
        parts.append(f'<path class="best" d="{steps}H{WIDTH - _RIGHT}"><title>best so far: {best:.4f}</title></path>')
    return _frame(title, "".join(parts))


def bar(title: str, counts: Sequence[tuple[str, int]]) -> str:
    """Return a bar of stacked parts, each a class and a count."""
    total, parts, start = sum(count for _, count in counts), [], 0.0
    for style, count in counts:
        width = 100 * count / total if total else 0.0
        parts.append(f'<rect class="{style}" x="{start:.2f}" y="0" width="{width:.2f}" height="4"/>')
        start += width
    return (
        f'<svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def standalone(titles_and_panels: Sequence[tuple[str, str]]) -> str:
    """Return panels side by side as one SVG file on white, each below its title."""
    n_panels = len(titles_and_panels)
    parts = [
        f'<g transform="translate({index * WIDTH} 0)"><text x="{_LEFT}" y="14">{escape(title)}</text>'
        f'<g transform="translate(0 20)">{panel}</g></g>'
        for index, (title, panel) in enumerate(titles_and_panels)
    ]
    width, height = n_panels * WIDTH, HEIGHT + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f"<style>{_FILE_STYLE}</style>{''.join(parts)}</svg>"
    )


def _frame(title: str, content: str) -> str:
    return (
        f'<svg class="chart" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{content}</svg>'
    )


def _axes(x: _Scale, y: _Scale, x_label: str) -> str:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = []
    for tick in y.ticks():
        at = f"{y(tick):.1f}"
        parts.append(
            f'<path class="grid" d="M{_LEFT} {at}H{right}"/><text class="y" x="{_LEFT - 6}" y="{at}">{tick:.4g}</text>'
        )
    parts += [
        f'<text class="x" x="{x(tick):.1f}" y="{bottom + 15}">{tick:.0f}</text>' for tick in x.ticks(is_whole=True)
    ]
    parts.append(f'<path class="axis" d="M{_LEFT} {bottom}H{right}"/>')
    parts.append(f'<text class="y" x="{_LEFT - 6}" y="{bottom + 11}">{x_label}</text>')
    return "".join(parts)
