"""A checklist with the answers of a report, as Markdown, page and JSON beside the report, with links into it."""

import re
from pathlib import Path

from mhist_tune.report import checklist, html
from mhist_tune.report.checklist import Answer, AnsweredChecklist
from mhist_tune.report.document import Report, to_json
from mhist_tune.report.report_text import anchor
from mhist_tune.words import Rows, markdown_table
from mhist_tune.writing import output_folder

_HEAD = ["item", "asks for", "answer", "in the report", "the author must add"]


def write(key: str, report: Report, folder: Path) -> AnsweredChecklist:
    """Write checklist-KEY.md, .html and .json beside a written report, and return the checklist with its answers.

    Args:
        key: of the checklist.
        report: that was written into `folder`.
        folder: of the report.

    Raises:
        UsageError: the folder cannot be written.
    """
    # The headings of the written file, so that no link leads nowhere.
    sections = re.findall(r"^## (.+)$", (folder / "report.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    document = checklist.answered(checklist.load(key), report.study, report.about, sections)
    with output_folder(folder, "the checklist", hint="choose another folder: --output DIR"):
        for name, text in (
            ("md", to_markdown(document)),
            ("html", html.render_checklist(document, headline(document), notes(document))),
            ("json", to_json(document) + "\n"),
        ):
            (folder / f"checklist-{key}.{name}").write_text(text, encoding="utf-8")
    return document


def headline(document: AnsweredChecklist) -> str:
    """Return the name of the checklist, its version and the study."""
    return f"{document.name} ({document.version}) for {document.study}"


def notes(document: AnsweredChecklist) -> list[str]:
    """Return the source, whose words the items are, and how many are answered."""
    states = ", ".join(f"{count} {state}" for state, count in checklist.counts(document).items())
    return [
        f"{document.source}. {document.url}",
        document.wording,
        f"{len(document.items)} rows: {states}. A section answers an item as far as the records go; whether that "
        "suffices is for the author to judge.",
    ]


def to_markdown(document: AnsweredChecklist) -> str:
    """Return the checklist as Markdown, with links to the sections of report.md."""
    rows: Rows = [_HEAD, *(_row(item) for item in document.items)]
    parts = [f"# {headline(document)}", *notes(document), "\n".join(markdown_table(rows)).replace("---:", "---")]
    return "\n\n".join(parts) + "\n"


def _row(item: Answer) -> list[str]:
    links = ", ".join(f"[{title}](report.md#{anchor(title)})" for title in item.sections)
    return [f"{item.number} {item.topic}", item.asks, item.state, links, item.remark or "; ".join(item.author)]
