"""The annotation table of a data folder in MHIST's layout: one row for each image.

A folder holds ``annotations.csv`` and the images, in ``images/`` or beside the table. The table may have CRLF or LF
line ends, rows in any order, and a fifth column ``Group`` (a patient or a slide).
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mhist_tune.arrays import Int64Array
from mhist_tune.errors import DataError, did_you_mean
from mhist_tune.mhist import N_ANNOTATORS, NEGATIVE_CLASS, POSITIVE_CLASS
from mhist_tune.reading import read_file

CSV_NAME = "annotations.csv"
IMAGE_FOLDER = "images"
PARTITIONS = ("train", "test")

NAME_COLUMN = "Image Name"
LABEL_COLUMN = "Majority Vote Label"
VOTES_COLUMN = "Number of Annotators who Selected SSA (Out of 7)"
PARTITION_COLUMN = "Partition"
GROUP_COLUMN = "Group"
REQUIRED_COLUMNS = (NAME_COLUMN, LABEL_COLUMN, VOTES_COLUMN, PARTITION_COLUMN)


@dataclass(frozen=True)
class Annotation:
    """One row of the table; ``line`` is its number in the file, where the header is line 1."""

    line: int
    name: str
    label: int
    votes: int
    partition: str
    group: str | None


@dataclass(frozen=True)
class Annotations:
    """The rows of one partition, sorted by image name.

    ``votes`` (0..7) and ``labels`` (1 = ``POSITIVE_CLASS``) have shape [n]; ``groups`` is None without a Group column.
    ``paths`` are the expected places of the images; nothing here opens them.
    """

    names: tuple[str, ...]
    votes: Int64Array
    labels: Int64Array
    groups: tuple[str, ...] | None
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.names)


def read_rows(root: Path) -> list[Annotation]:
    """Return the rows of ``read_table``."""
    return read_table(root)[1]


def read_table(root: Path) -> tuple[list[str], list[Annotation]]:
    """Return every column and every row of ``root/annotations.csv``, in the file's order; duplicate names are kept.

    Raises:
        DataError: no such folder or table, a missing column, or an impossible value (the message names the line).
    """
    path = root / CSV_NAME
    if not root.is_dir():
        raise DataError(f"no data folder {root}", hint="give the folder that holds annotations.csv with --data")
    try:
        # utf-8-sig: a table that went through a spreadsheet starts with a byte order mark.
        reader = csv.DictReader(io.StringIO(read_file(path).decode("utf-8-sig"), newline=""))
        columns = list(reader.fieldnames or ())
        _check_columns(path, columns)
        return columns, [_parse_row(path, reader.line_num, values) for values in reader]
    except FileNotFoundError:
        raise DataError(
            f"{root} has no {CSV_NAME}", hint="give the folder that holds annotations.csv and images/"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise DataError(f"cannot read {path}: {reason}") from error


def class_counts(root: Path, partition: str) -> tuple[int, int]:
    """Return the number of SSA and of HP images of a partition, from the table alone; (0, 0) for an empty partition.

    Raises:
        DataError: as `read_table`.
    """
    labels = [row.label for row in read_rows(root) if row.partition == partition]
    return sum(labels), len(labels) - sum(labels)


def read_annotations(root: Path, partition: str) -> Annotations:
    """Return the rows of one partition, ``train`` or ``test``, sorted by image name.

    Raises:
        DataError: as ``read_table``; or a name is in the table twice, a Group column has values in some rows only, or
            the partition has no rows.
    """
    all_rows = read_rows(root)
    repeated = [name for name, count in Counter(row.name for row in all_rows).items() if count > 1]
    if repeated:
        raise DataError(
            f"{root / CSV_NAME} lists {len(repeated)} image name(s) more than once, first {sorted(repeated)[0]}",
            hint=f"mhist-tune data check {root} lists them all",
        )
    rows = sorted((row for row in all_rows if row.partition == partition), key=lambda row: row.name)
    if not rows:
        raise DataError(f"{root / CSV_NAME} has no rows of the {partition} partition")
    groups = [row.group for row in rows if row.group is not None]
    if groups and len(groups) < len(rows):
        line = next(row.line for row in rows if row.group is None)
        raise DataError(f'{root / CSV_NAME}, line {line}: column "{GROUP_COLUMN}" is empty but other rows have a group')
    return Annotations(
        names=tuple(row.name for row in rows),
        votes=np.array([row.votes for row in rows], dtype=np.int64),
        labels=np.array([row.label for row in rows], dtype=np.int64),
        groups=tuple(groups) or None,
        paths=tuple(image_path(root, row.name) for row in rows),
    )


def image_path(root: Path, name: str) -> Path:
    """Return the path of an image: ``root/images/name``, or beside the table where there is no such folder."""
    folder = root / IMAGE_FOLDER
    return (folder if folder.is_dir() else root) / name


def _check_columns(path: Path, columns: list[str]) -> None:
    missing = [column for column in REQUIRED_COLUMNS if column not in columns]
    if missing:
        names = ", ".join(f'"{column}"{did_you_mean(column, columns)}' for column in missing)
        raise DataError(
            f"{path} lacks the column {names}", hint="the header must be MHIST's: " + ",".join(REQUIRED_COLUMNS)
        )
    twice = [column for column in (*REQUIRED_COLUMNS, GROUP_COLUMN) if columns.count(column) > 1]
    if twice:
        raise DataError(f'{path} has the column "{twice[0]}" more than once', hint="leave one of them")


def _parse_row(path: Path, line: int, values: Mapping[str | None, str | None]) -> Annotation:
    def refuse(column: str, expected: str) -> DataError:
        return DataError(f'{path}, line {line}: column "{column}" must be {expected}, got "{values[column] or ""}"')

    def read(column: str) -> str:
        return (values[column] or "").strip()

    name = read(NAME_COLUMN)
    # A name is a file in the images folder; a path to another folder must not be opened.
    if Path(name).name != name or name in ("", "..") or not name.isprintable():
        raise refuse(NAME_COLUMN, "a file name")
    if read(LABEL_COLUMN) not in (POSITIVE_CLASS, NEGATIVE_CLASS):
        raise refuse(LABEL_COLUMN, f"{POSITIVE_CLASS} or {NEGATIVE_CLASS}")
    if read(VOTES_COLUMN) not in {str(votes) for votes in range(N_ANNOTATORS + 1)}:
        raise refuse(VOTES_COLUMN, f"a whole number from 0 to {N_ANNOTATORS}")
    if read(PARTITION_COLUMN) not in PARTITIONS:
        raise refuse(PARTITION_COLUMN, " or ".join(PARTITIONS))
    return Annotation(
        line=line,
        name=name,
        label=int(read(LABEL_COLUMN) == POSITIVE_CLASS),
        votes=int(read(VOTES_COLUMN)),
        partition=read(PARTITION_COLUMN),
        group=(values.get(GROUP_COLUMN) or "").strip() or None,
    )
