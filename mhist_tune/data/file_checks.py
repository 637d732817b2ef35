"""The checks of image files: present, readable, of one size, and in one partition only."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mhist_tune.data.annotations import PARTITIONS, Annotation
from mhist_tune.data.decoding import decode
from mhist_tune.data.near_identical import Signature, copies, signature
from mhist_tune.data.problem import Problem
from mhist_tune.reading import read_file
from mhist_tune.words import counted


@dataclass(frozen=True)
class ImageFile:
    """One image file: its fault, or its size (width, height), sha256 and signature; a blank image has no signature."""

    missing: bool = False
    fault: str | None = None
    size: tuple[int, int] | None = None
    sha256: bytes | None = None
    signature: Signature | None = None


def read_files(paths: Sequence[Path]) -> dict[str, ImageFile]:
    """Return what is known of each file, by its name. Nothing is raised: a fault is recorded."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip([path.name for path in paths], pool.map(_read, paths), strict=True))


def _read(path: Path) -> ImageFile:
    try:
        data = read_file(path)
    except FileNotFoundError:
        return ImageFile(missing=True)
    except OSError as error:
        return ImageFile(fault=error.strerror or str(error))
    digest = hashlib.sha256(data).digest()
    try:
        image = decode(data)
    except ValueError as error:
        return ImageFile(fault=str(error), sha256=digest)
    return ImageFile(size=image.size, sha256=digest, signature=signature(image))


def file_problems(rows: list[Annotation], files: Mapping[str, ImageFile]) -> list[Problem]:
    """Return what is wrong with the files: they cannot be read, or an image is in both partitions."""
    problems = []
    missing = [name for name, file in files.items() if file.missing]
    if missing:
        problems.append(Problem("missing", f"{len(missing)} image files are not there", missing))
    faults = {name: file.fault for name, file in files.items() if file.fault is not None}
    if faults:
        first = next(iter(faults.values()))
        problems.append(Problem("unreadable", f"{len(faults)} images cannot be read (first: {first})", list(faults)))
    return [*problems, *_identical(rows, files), *_near_identical(rows, files)]


def file_warnings(files: Mapping[str, ImageFile]) -> list[Problem]:
    """Return what is unusual about files that can be read."""
    warnings = []
    sizes = Counter(file.size for file in files.values() if file.size is not None)
    if len(sizes) > 1:
        usual = sizes.most_common(1)[0][0]
        other = [name for name, file in files.items() if file.size not in (usual, None)]
        warnings.append(Problem("size", f"{len(other)} images are not {pixels(usual)} px like the others", other))
    blank = [name for name, file in files.items() if file.size is not None and file.signature is None]
    if blank:
        warnings.append(Problem("blank", f"{counted(len(blank), 'image')} with nothing on it", blank))
    return warnings


def n_copies(rows: list[Annotation], files: Mapping[str, ImageFile]) -> int:
    """Return how many files are copies of another one in the same partition."""
    return sum(len(names) - 1 for p in PARTITIONS for names in _by_digest(rows, files, p).values())


def pixels(size: tuple[int, int]) -> str:
    """Return a size as text."""
    return f"{size[0]}x{size[1]}"


def _identical(rows: list[Annotation], files: Mapping[str, ImageFile]) -> list[Problem]:
    train, test = (_by_digest(rows, files, partition) for partition in PARTITIONS)
    shared = [digest for digest in train if digest in test]
    if not shared:
        return []
    names = sorted(name for digest in shared for name in train[digest] | test[digest])
    return [Problem("identical", f"{counted(len(shared), 'file')} in both partitions", names)]


def _by_digest(rows: list[Annotation], files: Mapping[str, ImageFile], partition: str) -> dict[bytes, set[str]]:
    names = defaultdict(set)
    for row in rows:
        digest = files[row.name].sha256 if row.name in files else None
        if row.partition == partition and digest is not None:
            names[digest].add(row.name)
    return names


def _near_identical(rows: list[Annotation], files: Mapping[str, ImageFile]) -> list[Problem]:
    def signed(partition: str) -> dict[str, Signature]:
        names = (row.name for row in rows if row.partition == partition and row.name in files)
        return {name: found for name in names if (found := files[name].signature) is not None}

    train, test = (signed(partition) for partition in PARTITIONS)
    pairs = [
        (train_name, test_name)
        for train_name, test_name in copies(train, test)
        if files[train_name].sha256 != files[test_name].sha256
    ]
    if not pairs:
        return []
    message = f"{counted(len(pairs), 'pair')} of a train and a test image that are nearly the same"
    return [Problem("near-identical", message, [name for pair in pairs for name in pair])]
