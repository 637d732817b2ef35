"""The live pages' charts: well-formed, inside their frame, with round ticks."""

import re
from xml.etree import ElementTree

import pytest

from mhist_tune.plots import svg
from mhist_tune.plots.svg import Line


def coordinates(drawn: str) -> list[tuple[float, float]]:
    """Return every point that a path moves or draws to."""
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]?(\d+\.\d) (\d+\.\d)", drawn)]


@pytest.mark.parametrize(
    "values",
    [[0.5], [0.5, 0.5], [0.1, None, 0.9], [1e-9, 2e-9], [1e6, -1e6], [0.0, 1.0]],
)
def test_curves_stay_in_their_frame(values: list[float | None]) -> None:
    """One point, equal points, gaps and any range are drawn inside the axes."""
    drawn = svg.curves("F1 < 1 & more", [Line("a <b>", values, "c0")], n_epochs=3)
    ElementTree.fromstring(drawn)
    points = coordinates(drawn)

    assert points
    assert all(0 <= x <= svg.WIDTH and 0 <= y <= svg.HEIGHT for x, y in points)


def test_a_logarithmic_panel_leaves_out_what_it_cannot_show() -> None:
    """A learning rate of 0 has no place on the axis; the others have decades as ticks."""
    drawn = svg.curves("rate", [Line("a", [1e-6, 0.0, 1e-3], "c0")], n_epochs=3, is_log=True)

    assert len(coordinates(drawn)) == 2
    assert ">0.0001<" in drawn


def test_nothing_to_draw_says_so() -> None:
    """Empty panels are no error."""
    assert "nothing measured yet" in svg.curves("F1", [Line("a", [None], "c0")], n_epochs=1)
    assert "no trial has ended yet" in svg.history("search", [], [])
    ElementTree.fromstring(svg.bar("slots", [("done", 0)]))


def test_the_history_steps_up_to_the_best() -> None:
    """The line of the best so far has one step for each improvement by a complete trial, and ends at the best."""
    drawn = svg.history("search", [(0, 0.5), (1, 0.4), (2, 0.7)], [(3, 0.9)])

    assert "best so far: 0.7000" in drawn
    assert drawn.count("V") == 1
    ElementTree.fromstring(drawn)


def test_a_file_of_its_own_has_its_own_colours() -> None:
    """Panels side by side, with a name space and a style."""
    panel = svg.curves("F1", [Line("a", [0.1, 0.2], "c0")], n_epochs=2)
    root = ElementTree.fromstring(svg.standalone([("F1", panel), ("Loss", panel)]))

    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert int(root.attrib["width"]) == 2 * svg.WIDTH
