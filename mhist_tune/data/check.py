"""The checks of a data folder: counts, files, labels against votes, images that are in both partitions.

They read the files of both partitions and return counts and the names of faulty images, nothing else.
"""

import hashlib
import os
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mhist_tune.data.annotations import CSV_NAME, PARTITIONS, Annotation, image_path, read_rows
from mhist_tune.data.decoding import decode
from mhist_tune.data.near_identical import HashBits, difference_hash, near_pairs
from mhist_tune.errors import DataError
from mhist_tune.mhist import MHIST_VOTES, MIN_POSITIVE_VOTES, N_ANNOTATORS, NEGATIVE_CLASS, POSITIVE_CLASS
from mhist_tune.reading import read_file
from mhist_tune.words import text_table

N_NAMES_SHOWN = 5


@dataclass(frozen=True)
class PartitionCounts:
    """The number of images of one partition: in all, by class, and by votes for SSA (0..7)."""

    n_images: int
    by_class: dict[str, int]
    by_votes: list[int]


@dataclass(frozen=True)
class Problem:
    """One fault of the data set and the images that have it.

    Attributes:
        kind: counts, missing, unreadable, size, label, duplicate-name, group, identical or near-identical.
        message: one line for users.
        names: the faulty images.
    """

    kind: str
    message: str
    names: list[str]


@dataclass(frozen=True)
class CheckReport:
    """The result of ``check``.

    Attributes:
        counts: by partition.
        is_mhist: whether all images are named as MHIST's are.
        problems: empty for a sound data set.
        notes: facts that are no faults, one line each.
    """

    counts: dict[str, PartitionCounts]
    is_mhist: bool
    problems: list[Problem]
    notes: list[str]


@dataclass(frozen=True)
class _ImageFile:
    """One image file: its fault, or its size (width, height), sha256 and difference hash."""

    missing: bool = False
    fault: str | None = None
    size: tuple[int, int] | None = None
    sha256: bytes | None = None
    hash_bits: HashBits | None = None


def check(root: Path) -> CheckReport:
    """Read every file of the data set and return its problems.

    Raises:
        DataError: there is no table, or it cannot be read (a missing column, an impossible value).
    """
    rows = read_rows(root)
    if not rows:
        raise DataError(f"{root / CSV_NAME} has no rows")
    files = _read_all(root, rows)
    counts = {partition: count([row for row in rows if row.partition == partition]) for partition in PARTITIONS}
    is_mhist = all(row.name.startswith("MHIST_") for row in rows)
    problems = [
        *(_check_counts(counts) if is_mhist else []),
        *_check_rows(rows),
        *_check_files(files),
        *_check_sizes(files),
        *_check_identical(rows, files),
        *_check_near_identical(rows, files),
    ]
    return CheckReport(counts, is_mhist, problems, _notes(rows, files, counts, is_mhist))


def to_text(report: CheckReport) -> str:
    """Return the report as text: a table of counts, then the notes, then the problems."""
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
    problems = [f"{problem.kind}: {problem.message}{_examples(problem.names)}" for problem in report.problems]
    return "\n".join([*text_table(rows), *report.notes, *(problems or ["no problems found"])])


def _read_all(root: Path, rows: list[Annotation]) -> dict[str, _ImageFile]:
    names = sorted({row.name for row in rows})
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(names, pool.map(lambda name: _read(image_path(root, name)), names), strict=True))


def _read(path: Path) -> _ImageFile:
    try:
        data = read_file(path)
    except FileNotFoundError:
        return _ImageFile(missing=True)
    except OSError as error:
        return _ImageFile(fault=error.strerror or str(error))
    try:
        image = decode(data)
    except ValueError as error:
        return _ImageFile(fault=str(error), sha256=hashlib.sha256(data).digest())
    return _ImageFile(size=image.size, sha256=hashlib.sha256(data).digest(), hash_bits=difference_hash(image))


def count(rows: list[Annotation]) -> PartitionCounts:
    """Return the counts of the rows of one partition."""
    votes = Counter(row.votes for row in rows)
    n_positive = sum(row.label for row in rows)
    return PartitionCounts(
        n_images=len(rows),
        by_class={NEGATIVE_CLASS: len(rows) - n_positive, POSITIVE_CLASS: n_positive},
        by_votes=[votes[value] for value in range(N_ANNOTATORS + 1)],
    )


def _check_counts(counts: dict[str, PartitionCounts]) -> list[Problem]:
    return [
        Problem("counts", f"{partition} has {counts[partition].by_votes} images by votes, MHIST has {list(known)}", [])
        for partition, known in MHIST_VOTES.items()
        if counts[partition].by_votes != list(known)
    ]


def _check_rows(rows: list[Annotation]) -> list[Problem]:
    problems = []
    for partition in PARTITIONS:
        if not any(row.partition == partition for row in rows):
            problems.append(Problem("counts", f"no image in the {partition} partition", []))
    contradicting = [row.name for row in rows if row.label != int(row.votes >= MIN_POSITIVE_VOTES)]
    if contradicting:
        message = (
            f"{len(contradicting)} labels contradict the votes ({POSITIVE_CLASS} is {MIN_POSITIVE_VOTES} votes or more)"
        )
        problems.append(Problem("label", message, contradicting))
    repeated = sorted(name for name, n in Counter(row.name for row in rows).items() if n > 1)
    if repeated:
        problems.append(Problem("duplicate-name", f"{len(repeated)} names are listed more than once", repeated))
    partitions_of = defaultdict(set)
    for row in rows:
        if row.group is not None:
            partitions_of[row.group].add(row.partition)
    crossing = sorted(group for group, partitions in partitions_of.items() if len(partitions) > 1)
    if crossing:
        names = sorted(row.name for row in rows if row.group in crossing)
        problems.append(
            Problem("group", f"{len(crossing)} groups cross the partitions: {', '.join(crossing[:5])}", names)
        )
    return problems


def _check_files(files: dict[str, _ImageFile]) -> list[Problem]:
    missing = [name for name, file in files.items() if file.missing]
    faults = {name: file.fault for name, file in files.items() if file.fault is not None}
    problems = [Problem("missing", f"{len(missing)} image files are not there", missing)] if missing else []
    if faults:
        first = next(iter(faults.values()))
        problems.append(Problem("unreadable", f"{len(faults)} images cannot be read (first: {first})", list(faults)))
    return problems


def _check_sizes(files: dict[str, _ImageFile]) -> list[Problem]:
    sizes = Counter(file.size for file in files.values() if file.size is not None)
    if len(sizes) < 2:
        return []
    usual = sizes.most_common(1)[0][0]
    other = [name for name, file in files.items() if file.size not in (usual, None)]
    return [Problem("size", f"{len(other)} images are not {_pixels(usual)} px like the others", other)]


def _check_identical(rows: list[Annotation], files: dict[str, _ImageFile]) -> list[Problem]:
    train, test = (_by_digest(rows, files, partition) for partition in PARTITIONS)
    return [
        Problem("identical", "the same file lies in both partitions", sorted(train[digest] | test[digest]))
        for digest in train
        if digest in test
    ]


def _by_digest(rows: list[Annotation], files: dict[str, _ImageFile], partition: str) -> dict[bytes, set[str]]:
    names = defaultdict(set)
    for row in rows:
        digest = files[row.name].sha256
        if row.partition == partition and digest is not None:
            names[digest].add(row.name)
    return names


def _check_near_identical(rows: list[Annotation], files: dict[str, _ImageFile]) -> list[Problem]:
    def hashed(partition: str) -> dict[str, HashBits]:
        names = (row.name for row in rows if row.partition == partition)
        return {name: bits for name in names if (bits := files[name].hash_bits) is not None}

    train, test = (hashed(partition) for partition in PARTITIONS)
    return [
        Problem(
            "near-identical",
            f"a train and a test image are nearly the same ({n_bits} bits apart)",
            [train_name, test_name],
        )
        for train_name, test_name, n_bits in near_pairs(train, test)
        if files[train_name].sha256 != files[test_name].sha256
    ]


def _notes(
    rows: list[Annotation], files: dict[str, _ImageFile], counts: dict[str, PartitionCounts], is_mhist: bool
) -> list[str]:
    notes = []
    if is_mhist and all(counts[partition].by_votes == list(known) for partition, known in MHIST_VOTES.items()):
        notes.append("this is MHIST, and its counts are complete")
    elif not is_mhist:
        notes.append("this is not MHIST (its images are named MHIST_*): counts are not compared")
    sizes = Counter(file.size for file in files.values() if file.size is not None)
    if sizes:
        notes.append(f"images are {_pixels(sizes.most_common(1)[0][0])} px")
    if all(row.group is None for row in rows):
        notes.append("no Group column: nothing keeps images of one patient on one side of a split")
    copies = sum(len(names) - 1 for p in PARTITIONS for names in _by_digest(rows, files, p).values())
    if copies:
        notes.append(f"{copies} images are copies of another one in the same partition")
    return notes


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _examples(names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - N_NAMES_SHOWN} more" if len(names) > N_NAMES_SHOWN else ""
    return f": {', '.join(names[:N_NAMES_SHOWN])}{more}"
