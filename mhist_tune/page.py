"""A report as one HTML file that needs nothing beside it: no script, no font, no request."""

import base64
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mhist_tune import report_text
from mhist_tune.figures import ReportFigure

N_THUMBNAILS = 48
"""Misclassified images that a page shows at most."""


@functools.cache
def environment() -> Environment:
    """Return the templates of the package; whatever is put into them is escaped."""
    return Environment(loader=PackageLoader("mhist_tune"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def render(report: Mapping[str, Any], figures: Sequence[ReportFigure], thumbnails: Mapping[str, bytes]) -> str:
    """Return a report as HTML.

    Args:
        report: the document.
        figures: that it shows.
        thumbnails: JPEG files by the image's name; may lack any image.
    """
    tables = report_text.tables(report)
    shown = [one for one in report["mistakes"] if one["image_name"] in thumbnails][:N_THUMBNAILS]
    html: str = (
        environment()
        .get_template("report.html")
        .render(
            report=report,
            headline=report_text.headline(report),
            tables=tables,
            words=tables[0][0],
            figures=figures,
            thumbnails=[(one, _data_url(thumbnails[one["image_name"]])) for one in shown],
            search_lines=[line for line in report_text.search_lines(report) if not line.startswith("Edge of range")],
            openings=report_text.opening_lines(report),
            facts=report_text.facts(report),
        )
    )
    return html


def _data_url(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
