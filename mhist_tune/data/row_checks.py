"""The checks of a table's rows, of both partitions. They open no image."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mhist_tune.data.annotations import GROUP_COLUMN, PARTITIONS, Annotation
from mhist_tune.data.problem import N_NAMES_SHOWN, Problem
from mhist_tune.mhist import MHIST_VOTES, MIN_POSITIVE_VOTES, N_ANNOTATORS, NEGATIVE_CLASS, POSITIVE_CLASS
from mhist_tune.words import counted

_LIKE_A_GROUP = re.compile(
    r"group|patient|subject|person|donor|participant|slide|wsi|case|specimen|accession|block|biopsy|polyp|lesion", re.I
)


@dataclass(frozen=True)
class PartitionCounts:
    """The number of images of one partition: in all, by class, and by votes for SSA (0..7)."""

    n_images: int
    by_class: dict[str, int]
    by_votes: list[int]


def count(rows: list[Annotation]) -> PartitionCounts:
    """Return the counts of the rows of one partition."""
    votes = Counter(row.votes for row in rows)
    n_positive = sum(row.label for row in rows)
    return PartitionCounts(
        n_images=len(rows),
        by_class={NEGATIVE_CLASS: len(rows) - n_positive, POSITIVE_CLASS: n_positive},
        by_votes=[votes[value] for value in range(N_ANNOTATORS + 1)],
    )


def row_problems(rows: list[Annotation]) -> list[Problem]:
    """Return what makes a table wrong: no study can be created with it."""
    problems = _partition_problems(rows, "train")
    contradicting = [row.name for row in rows if row.label != int(row.votes >= MIN_POSITIVE_VOTES)]
    if contradicting:
        message = (
            f"{len(contradicting)} labels contradict the votes ({POSITIVE_CLASS} is {MIN_POSITIVE_VOTES} votes or more)"
        )
        problems.append(Problem("label", message, contradicting))
    repeated = sorted(name for name, n in Counter(row.name for row in rows).items() if n > 1)
    if repeated:
        problems.append(Problem("duplicate-name", f"{len(repeated)} names are listed more than once", repeated))
    return problems + _group_problems(rows)


def row_warnings(rows: list[Annotation], columns: Sequence[str], *, is_mhist: bool) -> list[Problem]:
    """Return what a user should know of a table that can be used."""
    warnings = _partition_problems(rows, "test")
    counts = {partition: count([row for row in rows if row.partition == partition]) for partition in PARTITIONS}
    if is_mhist:
        warnings += [
            Problem(
                "counts", f"{partition} has {counts[partition].by_votes} images by votes, MHIST has {list(known)}", []
            )
            for partition, known in MHIST_VOTES.items()
            if counts[partition].by_votes != list(known)
        ]
    if all(row.group is None for row in rows):
        unread = [column for column in columns if _LIKE_A_GROUP.search(column) and column != GROUP_COLUMN]
        if unread:
            message = (
                f"{', '.join(repr(column) for column in unread)} not read: only a column named {GROUP_COLUMN!r} keeps "
                "the images of one patient on one side of a split"
            )
            warnings.append(Problem("column", message, []))
    return warnings


def _partition_problems(rows: list[Annotation], partition: str) -> list[Problem]:
    """Return whether a partition is empty or has one class only; scores on it mean nothing then."""
    labels = {row.label for row in rows if row.partition == partition}
    if not labels:
        return [Problem("counts", f"no image in the {partition} partition", [])]
    if len(labels) == 1:
        (only,) = labels
        name = POSITIVE_CLASS if only else NEGATIVE_CLASS
        return [Problem("class", f"every image of the {partition} partition is {name}", [])]
    return []


def _group_problems(rows: list[Annotation]) -> list[Problem]:
    problems = []
    for partition in PARTITIONS:
        of_partition = [row for row in rows if row.partition == partition]
        without = [row.name for row in of_partition if row.group is None]
        if 0 < len(without) < len(of_partition):
            message = f"{counted(len(without), 'image')} of the {partition} partition without a group"
            problems.append(Problem("group", message, without))
    partitions_of = defaultdict(set)
    for row in rows:
        if row.group is not None:
            partitions_of[row.group].add(row.partition)
    crossing = sorted(group for group, partitions in partitions_of.items() if len(partitions) > 1)
    if crossing:
        names = sorted(row.name for row in rows if row.group in crossing)
        shown = ", ".join(crossing[:N_NAMES_SHOWN])
        problems.append(Problem("group", f"{len(crossing)} groups cross the partitions: {shown}", names))
    return problems
