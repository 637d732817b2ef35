"""The check of a data folder: `data check` runs it on all files, `create-study` without those of the test partition.

It returns counts, and the names of images with problems, nothing else of the test partition.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mhist_tune.data.annotations import CSV_NAME, PARTITIONS, Annotation, image_path, read_table
from mhist_tune.data.file_checks import file_problems, file_warnings, n_copies, pixels, read_files
from mhist_tune.data.problem import Problem
from mhist_tune.data.row_checks import PartitionCounts, count, row_problems, row_warnings
from mhist_tune.errors import DataError
from mhist_tune.mhist import MHIST_VOTES, N_ANNOTATORS, NEGATIVE_CLASS, POSITIVE_CLASS
from mhist_tune.words import counted, text_table


@dataclass(frozen=True)
class CheckReport:
    """The result of ``check``.

    Attributes:
        counts: by partition.
        is_mhist: whether all images are named as MHIST's are.
        problems: what is wrong; empty for a sound data set.
        warnings: what a user should know of a data set that can be used.
        notes: facts that are no faults, one line each.
    """

    counts: dict[str, PartitionCounts]
    is_mhist: bool
    problems: list[Problem]
    warnings: list[Problem]
    notes: list[str]


def check(root: Path, *, opened: Sequence[str] = PARTITIONS) -> CheckReport:
    """Check the table, and the files of some partitions.

    Args:
        root: the folder of the data set.
        opened: the partitions whose files are read. A file that the table lists in another partition, too, is not.

    Raises:
        DataError: there is no table, or it cannot be read (a missing column, an impossible value).
    """
    columns, rows = read_table(root)
    if not rows:
        raise DataError(f"{root / CSV_NAME} has no rows")
    sealed = {row.name for row in rows if row.partition not in opened}
    files = read_files([image_path(root, name) for name in sorted({row.name for row in rows} - sealed)])
    counts = {partition: count([row for row in rows if row.partition == partition]) for partition in PARTITIONS}
    is_mhist = all(row.name.startswith("MHIST_") for row in rows)
    notes = _notes(rows, counts, is_mhist)
    sizes = Counter(file.size for file in files.values() if file.size is not None)
    if sizes:
        notes.insert(1, f"images are {pixels(sizes.most_common(1)[0][0])} px")
    if n := n_copies(rows, files):
        notes.append(f"{n} images are copies of another one in the same partition")
    return CheckReport(
        counts,
        is_mhist,
        problems=row_problems(rows) + file_problems(rows, files),
        warnings=row_warnings(rows, columns, is_mhist=is_mhist) + file_warnings(files),
        notes=notes,
    )


def require_sound(root: Path) -> list[str]:
    """Check the data set of a new study, without opening a test image; return the warnings, one line each.

    Raises:
        DataError: there is a problem; the message has all of them.
    """
    report = check(root, opened=("train",))
    if report.problems:
        raise DataError(
            f"{root} has {counted(len(report.problems), 'problem')}: {'; '.join(map(str, report.problems))}",
            hint=f"correct {CSV_NAME} or the images; mhist-tune data check {root} checks the test images, too",
        )
    return [str(warning) for warning in report.warnings]


def to_text(report: CheckReport) -> str:
    """Return the report as text: a table of counts, then the notes, then the warnings and the problems."""
    head = [
        "partition",
        "images",
        NEGATIVE_CLASS,
        POSITIVE_CLASS,
        *(f"{votes}/{N_ANNOTATORS}" for votes in range(N_ANNOTATORS + 1)),
    ]
    rows = [head] + [
        [partition, *map(str, (counts.n_images, *counts.by_class.values(), *counts.by_votes))]
        for partition, counts in report.counts.items()
    ]
    warnings = [f"Warning: {warning}" for warning in report.warnings]
    problems = [str(problem) for problem in report.problems] or ["no problems found"]
    return "\n".join([*text_table(rows), *report.notes, *warnings, *problems])


def _notes(rows: list[Annotation], counts: dict[str, PartitionCounts], is_mhist: bool) -> list[str]:
    notes = []
    if is_mhist and all(counts[partition].by_votes == list(known) for partition, known in MHIST_VOTES.items()):
        notes.append("this is MHIST, and its counts are complete")
    elif is_mhist:
        notes.append("the images are named as MHIST's, and some are missing")
    else:
        notes.append("this is not MHIST (its images are named MHIST_*): counts are not compared")
    if all(row.group is None for row in rows):
        notes.append("no Group column: nothing keeps images of one patient on one side of a split")
    return notes
