"""What identifies a test partition without opening one of its images: the rows of the table and the sizes of files."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from mhist_tune.data.annotations import read_annotations, read_rows


@dataclass(frozen=True)
class PartitionPin:
    """Hashes (SHA-256, hex) of a test partition, made without opening an image.

    Attributes:
        rows: of name, label, votes and group of each image, sorted by name.
        sizes: of the bytes of each file, in the same order; None if a file is missing.
        missing: the names of the missing files.
    """

    rows: str
    sizes: str | None
    missing: tuple[str, ...]


def test_pin(root: Path) -> PartitionPin | None:
    """Return the pin of the test partition; None if the table has no test rows.

    Raises:
        DataError: the annotations cannot be read.
    """
    if not any(row.partition == "test" for row in read_rows(root)):
        return None
    test = read_annotations(root, "test")
    groups = test.groups or (None,) * len(test)
    rows = [list(row) for row in zip(test.names, test.labels.tolist(), test.votes.tolist(), groups, strict=True)]
    missing = tuple(name for name, path in zip(test.names, test.paths, strict=True) if not path.is_file())
    sizes = None if missing else _sha256([path.stat().st_size for path in test.paths])
    return PartitionPin(_sha256(rows), sizes, missing)


def test_names(root: Path) -> frozenset[str]:
    """Return the names of the test images from the table alone.

    Raises:
        DataError: the annotations cannot be read.
    """
    return frozenset(row.name for row in read_rows(root) if row.partition == "test")


def _sha256(document: list[object] | list[list[object]] | list[int]) -> str:
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()
