"""The annotation table: read as it is handed out, and every fault named with its line."""

import os
from pathlib import Path

import pytest

from mhist_tune.data.annotations import REQUIRED_COLUMNS, read_annotations
from mhist_tune.errors import DataError
from mhist_tune.mhist import NEGATIVE_CLASS, POSITIVE_CLASS

HEADER = ",".join(REQUIRED_COLUMNS)
ROWS = ["b.png,SSA,6,train", "c.png,HP,3,test", "a.jpg,HP,0,train"]


def write(root: Path, rows: list[str], *, header: str = HEADER, newline: str = "\r\n", prefix: str = "") -> Path:
    root.mkdir(exist_ok=True)
    (root / "annotations.csv").write_bytes((prefix + newline.join([header, *rows]) + newline).encode())
    return root


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
@pytest.mark.parametrize("prefix", ["", "\ufeff"])
def test_one_partition_is_read_in_the_order_of_names(tmp_path: Path, newline: str, prefix: str) -> None:
    """Line ends, a byte order mark and the order of rows make no difference; SSA is label 1."""
    train = read_annotations(write(tmp_path, ROWS, newline=newline, prefix=prefix), "train")
    assert train.names == ("a.jpg", "b.png")
    assert train.votes.tolist() == [0, 6]
    assert train.labels.tolist() == [0, 1]
    assert (POSITIVE_CLASS, NEGATIVE_CLASS) == ("SSA", "HP")
    assert train.groups is None
    assert read_annotations(tmp_path, "test").names == ("c.png",)


def test_images_lie_in_their_folder_or_beside_the_table(tmp_path: Path) -> None:
    """Paths point into images/ where that folder is there, and beside the table where it is not."""
    write(tmp_path, ROWS)
    assert read_annotations(tmp_path, "test").paths == (tmp_path / "c.png",)
    (tmp_path / "images").mkdir()
    assert read_annotations(tmp_path, "test").paths == (tmp_path / "images" / "c.png",)


def test_the_group_column_is_optional_and_all_or_nothing(tmp_path: Path) -> None:
    """Groups are read from a fifth column; a row without one among others that have one is refused by its line."""
    header = f"{HEADER},Group"
    grouped = write(
        tmp_path / "a", [row + group for row, group in zip(ROWS, (",p1", ",p2", ",p3"), strict=True)], header=header
    )
    assert read_annotations(grouped, "train").groups == ("p3", "p1")
    empty = write(tmp_path / "b", [row + "," for row in ROWS], header=header)
    assert read_annotations(empty, "train").groups is None
    partly = write(tmp_path / "c", [ROWS[0] + ",p1", ROWS[1] + ",p2", ROWS[2] + ","], header=header)
    with pytest.raises(DataError, match='line 4: column "Group" is empty'):
        read_annotations(partly, "train")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("..,SSA,6,train", 'line 3: column "Image Name" must be a file name'),
        ("d\0.png,SSA,6,train", 'line 3: column "Image Name" must be a file name'),
        ("d.png,SSA,6,validation", 'line 3: column "Partition" must be train or test, got "validation"'),
        ("d.png,ssa,6,train", 'line 3: column "Majority Vote Label" must be SSA or HP, got "ssa"'),
        ("d.png,SSA,8,train", 'must be a whole number from 0 to 7, got "8"'),
        ("d.png,SSA,-1,train", 'must be a whole number from 0 to 7, got "-1"'),
        ("d.png,SSA,,train", 'must be a whole number from 0 to 7, got ""'),
        ("../d.png,SSA,6,train", 'line 3: column "Image Name" must be a file name, got "../d.png"'),
        ("d.png,SSA", 'line 3: column "Number of Annotators'),
        ("b.png,SSA,6,test", "1 image name.s. more than once, first b.png"),
    ],
)
def test_an_impossible_row_is_refused(tmp_path: Path, row: str, message: str) -> None:
    """The error names the line, the column, the allowed values and the value in the file."""
    with pytest.raises(DataError, match=message):
        read_annotations(write(tmp_path, [ROWS[0], row, ROWS[2]]), "train")


def test_a_missing_column_is_named_with_the_file(tmp_path: Path) -> None:
    """A column of a near-by name is suggested."""
    write(tmp_path, [], header=HEADER.replace("Partition", "Partitions"))
    with pytest.raises(DataError, match=r'annotations.csv lacks the column "Partition" \(did you mean Partitions\?\)'):
        read_annotations(tmp_path, "train")


def test_an_absent_folder_table_or_partition_is_said(tmp_path: Path) -> None:
    """Each has its own message, and the exit code of a data set problem."""
    with pytest.raises(DataError, match="no data folder") as caught:
        read_annotations(tmp_path / "nowhere", "train")
    assert caught.value.exit_code == 3
    with pytest.raises(DataError, match=r"has no annotations\.csv"):
        read_annotations(tmp_path, "train")
    write(tmp_path, ROWS[:1])
    with pytest.raises(DataError, match="no rows of the test partition"):
        read_annotations(tmp_path, "test")


@pytest.mark.parametrize("column", ["Partition", "Group", "Image Name"])
def test_a_column_given_twice_is_refused(tmp_path: Path, column: str) -> None:
    """Which of the two holds would be a guess: a second Partition column could move test images into training."""
    write(tmp_path, [f"{row},p,test" for row in ROWS], header=f"{HEADER},Group,{column}")
    with pytest.raises(DataError, match="more than once"):
        read_annotations(tmp_path, "train")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_table_that_never_ends_is_refused(tmp_path: Path, kind: str) -> None:
    """A pipe without a writer and an endless device are errors, not waits."""
    if kind == "pipe":
        os.mkfifo(tmp_path / "annotations.csv")
    else:
        (tmp_path / "annotations.csv").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="not a regular file"):
        read_annotations(tmp_path, "train")
