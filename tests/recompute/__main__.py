"""Recomputes every number that a report prints, from its records: `python -m tests.recompute FOLDER`.

The folder is a report's (report.md, report.json, predictions.csv, study.toml) with the records that `mhist-tune export`
writes in `records/`. Nothing of mhist-tune is imported: results come from the CSV files by NumPy, SciPy and
scikit-learn. Settings, versions, hashes and times are no results; they are compared with report.json and study.toml.

A number that depends on random resamples is drawn again with other random numbers. It may differ by a tenth of its
interval, about four Monte Carlo errors. Every other number agrees in each printed digit.
"""

import re
import sys
from pathlib import Path

from tests.recompute.ceiling import CEILING
from tests.recompute.checks import Check
from tests.recompute.operating import OPERATING
from tests.recompute.records import table
from tests.recompute.sentences import HEAD, SENTENCES
from tests.recompute.tables import TABLES


def recompute(folder: Path) -> Check:
    """Return the check of a report. A table or a line with a digit that no rule recomputes is a problem."""
    check = Check(folder)
    head, *sections = (folder / "report.md").read_text(encoding="utf-8").split("\n## ")
    check.sentences("head", head.splitlines(), HEAD)
    for section in sections:
        title, _, text = section.partition("\n")
        if rows := table(text):
            if rule := (TABLES | OPERATING | CEILING).get(title):
                rule(check, rows)
            else:
                check.problems.append(f"{title}: the table is not recomputed")
        lines = [line for line in text.splitlines() if not line.startswith("|")]
        if title == "Methods" or title in OPERATING | CEILING:
            lines = re.split(r"(?<=\.) (?=[A-Z\d])", " ".join(lines))
        check.sentences(title, lines, SENTENCES)
    return check


if __name__ == "__main__":
    found = recompute(Path(sys.argv[1]))
    print("\n".join([*found.problems, f"{found.n_checked} numbers, {len(found.problems)} problems"]))  # noqa: T201
    sys.exit(bool(found.problems))
