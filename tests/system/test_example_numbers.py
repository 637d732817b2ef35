"""Every number of the committed example report, recomputed from its records by code that is not mhist-tune's."""

import ast
import json
import re
import runpy
import shutil
from html import unescape
from pathlib import Path

import pytest

from tests.recompute.__main__ import recompute

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "docs" / "results" / "example-report" / "generated"


def test_every_printed_number_is_recomputed() -> None:
    """No table and no line with a digit is left out, and each number agrees with the records."""
    check = recompute(REPORT)
    assert check.problems == []
    assert check.n_checked > 400


def test_numbers_that_are_changed_are_found(tmp_path: Path) -> None:
    """A wrong digit in a table or in a sentence, and a sentence that no rule knows, are each a problem."""
    shutil.copytree(REPORT, tmp_path / "report")
    path = tmp_path / "report" / "report.md"
    text = path.read_text()
    changes = {
        r"\| AUROC \| 0\.(\d)": r"| AUROC | 0.\g<1>9",
        r"Trials: (\d)": r"Trials: 1\1",
        r"\| all \| (\d)": r"| all | 9\1",
        r"Test AUROC was 0\.(\d)": r"Test AUROC was 0.0\1",
        "## Methods\n": "## Methods\n\nThe AUROC was 0.99.\n",
    }
    for printed, changed in changes.items():
        text, n_changed = re.subn(printed, changed, text, count=1)
        assert n_changed == 1
    path.write_text(text)
    problems = " ".join(recompute(tmp_path / "report").problems)
    for where in (
        "metrics, AUROC",
        "Search: Trials",
        "all votes",
        "Test AUROC was",
        "not recomputed: The AUROC was 0.99",
    ):
        assert where in problems


def test_the_page_has_the_numbers_of_the_markdown() -> None:
    """Each cell of a table and each line with a digit is in report.html too, and the misclassified images are those."""
    page = unescape(re.sub(r"\s+", " ", (REPORT / "report.html").read_text()))
    for line in (REPORT / "report.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            for cell in line.strip("|").split(" | "):
                assert f">{cell.strip()}<" in page, cell
        elif re.search(r"\d", line) and not line.startswith(("#", "!")):
            text = line.removeprefix("- ")
            text = text.split(": ", 1)[1] if re.match(r"- [A-Z][\w ]+: ", line) and text not in page else text
            assert text in page, text
    mistakes = json.loads((REPORT / "report.json").read_text())["mistakes"]
    shown = re.findall(r"<li class=\"(?:ssa|hp)\">.*?</li>", page)
    assert len(shown) == len(mistakes[:48]) > 0
    for item, mistake in zip(shown, mistakes, strict=False):
        assert f"{mistake['image_name']}<br>" in item
        assert f"p = {mistake['probability']:.3f}" in item


def test_nothing_of_the_package_is_used() -> None:
    """The code that recomputes imports NumPy, SciPy, scikit-learn and the standard library."""
    for path in (ROOT / "tests" / "recompute").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("mhist_tune") for name in names), path


@pytest.mark.slow
def test_every_number_of_a_new_demonstration_is_recomputed(tmp_path: Path) -> None:
    """What `mhist-tune demo` prints today is recomputed too, whatever its search has chosen."""
    runpy.run_path(str(ROOT / "tools" / "example_report.py"))["write_generated"](tmp_path)
    check = recompute(tmp_path / "generated")
    assert check.problems == []
    assert check.n_checked > 400
