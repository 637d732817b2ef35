"""A report, a comparison or a checklist as one self-contained HTML file without scripts, fonts or requests."""

import base64
import functools
from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from mhist_tune.report import about, compare_text, report_tables, report_text
from mhist_tune.report.checklist import AnsweredChecklist
from mhist_tune.report.comparison import Comparison
from mhist_tune.report.document import Report
from mhist_tune.report.figures import ReportFigure
from mhist_tune.statistics.by_votes import Mistake

N_THUMBNAILS = 48
"""Misclassified images that a report shows at most."""
_N_OF_EACH = 16
"""Misclassified images that a comparison shows at most of each model."""


@functools.cache
def environment() -> Environment:
    """Return the templates of the documents; values are escaped."""
    documents = Environment(
        loader=PackageLoader("mhist_tune.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    documents.filters["anchor"] = report_text.anchor
    return documents


def style_sheet() -> str:
    """Return the style sheet of the documents. The dashboard's pages use it too."""
    documents = environment()
    assert documents.loader is not None
    return documents.loader.get_source(documents, "style.css")[0]


def render(
    report: Report, figures: Sequence[ReportFigure], thumbnails: Mapping[str, bytes], failures: Sequence[str] = ()
) -> str:
    """Return a report as HTML.

    Args:
        report: as from `build.build`.
        figures: its figures.
        thumbnails: JPEG files by the image's name; may lack any image.
        failures: a sentence for each part of the page that could not be made.
    """
    tables = report_tables.tables(report)
    html: str = (
        environment()
        .get_template("report.html")
        .render(
            report=report,
            headline=report_text.headline(report),
            tables=tables,
            notes=report_tables.notes(report),
            styles={report_tables.REFERENCES_TITLE: "words lead", about.TITLE: "words"},
            figures=figures,
            thumbnails=_shown(report.mistakes, thumbnails, N_THUMBNAILS),
            failures=failures,
            search_lines=[line for line in report_text.search_lines(report) if not line.startswith("Edge of range")],
            openings=report_text.opening_lines(report),
            noted=report_text.noted(report),
            facts=report_text.facts(report),
        )
    )
    return html


def render_comparison(
    comparison: Comparison,
    figures: Sequence[ReportFigure],
    thumbnails: Sequence[Mapping[str, bytes]],
    failures: Sequence[str] = (),
) -> str:
    """Return a comparison as HTML.

    Args:
        comparison: as from `compare.build`.
        figures: its figures.
        thumbnails: of each member JPEG files by the image's name; may lack any image.
        failures: a sentence for each part of the page that could not be made.
    """
    members = comparison.members
    html: str = (
        environment()
        .get_template("compare.html")
        .render(
            comparison=comparison,
            headline=compare_text.headline(comparison),
            verdicts=compare_text.verdicts(comparison),
            tables=compare_text.tables(comparison),
            caveats=[*compare_text.caveats(comparison), *failures],
            figures=figures,
            sheets=[
                (member.study, len(member.mistakes), pictures)
                for member, stored in zip(members, thumbnails, strict=True)
                if (pictures := _shown(member.mistakes, stored, _N_OF_EACH))
            ],
        )
    )
    return html


def render_checklist(document: AnsweredChecklist, headline: str, notes: Sequence[str]) -> str:
    """Return a checklist as HTML, with links to the sections of report.html beside it."""
    template = environment().get_template("checklist.html")
    page: str = template.render(document=document, headline=headline, notes=notes)
    return page


def _shown(mistakes: Sequence[Mistake], thumbnails: Mapping[str, bytes], n_most: int) -> list[tuple[Mistake, str]]:
    """Return the first `n_most` mistakes that have a thumbnail, each with the thumbnail as a data URL."""
    drawn = [mistake for mistake in mistakes if mistake.image_name in thumbnails][:n_most]
    return [(mistake, _data_url(thumbnails[mistake.image_name])) for mistake in drawn]


def _data_url(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
