"""The check of a data folder: each fault planted in a sound set is found, and nothing else is."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mhist_tune.data import check, figures
from mhist_tune.data.annotations import REQUIRED_COLUMNS, read_annotations
from mhist_tune.data.problem import Problem
from mhist_tune.data.synthesize import synthesize
from mhist_tune.errors import DataError
from mhist_tune.mhist import MHIST_VOTES


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound") / "data"
    synthesize(root, n_images=120, image_size=48)
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "data")
    return tmp_path / "data"


def found(root: Path) -> dict[str, list[str]]:
    """Return the names of the images with problems of each kind."""
    return names_by_kind(check.check(root).problems)


def names_by_kind(of: list[Problem]) -> dict[str, list[str]]:
    problems: dict[str, list[str]] = {}
    for problem in of:
        problems.setdefault(problem.kind, []).extend(problem.names)
    return problems


def edit_table(root: Path, old: str, new: str) -> None:
    path = root / "annotations.csv"
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())


def first_row(root: Path, partition: str) -> str:
    return next(line for line in (root / "annotations.csv").read_text().splitlines() if line.endswith(partition))


def test_a_sound_set_has_counts_and_no_problems(sound: Path) -> None:
    """Counts add up, and the whole report can be written as JSON and as text."""
    report = check.check(sound)
    assert report.problems == []
    assert not report.is_mhist
    train = report.counts["train"]
    assert (train.n_images, report.counts["test"].n_images) == (83, 37)
    assert sum(train.by_votes) == train.n_images
    assert train.by_class == {"HP": sum(train.by_votes[:4]), "SSA": sum(train.by_votes[4:])}
    assert json.loads(json.dumps(asdict(report)))["counts"]["test"]["n_images"] == 37
    text = check.to_text(report)
    assert "no problems found" in text
    assert "images are 48x48 px" in text
    assert "no Group column" in text


def test_missing_unreadable_and_odd_sized_images_are_found(root: Path) -> None:
    """Each kind names its own image and none of the others."""
    gone, cut, small = read_annotations(root, "train").paths[:3]
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:300])
    Image.open(small).resize((40, 48)).save(small)
    assert found(root) == {"missing": [gone.name], "unreadable": [cut.name]}
    assert names_by_kind(check.check(root).warnings) == {"size": [small.name]}
    assert gone.name in check.to_text(check.check(root))


def test_what_is_no_regular_file_is_found_and_waits_for_nothing(root: Path) -> None:
    """A pipe without a writer, an endless device and a text file are each named as unreadable."""
    pipe, device, text = read_annotations(root, "train").paths[:3]
    for path in (pipe, device):
        path.unlink()
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    text.write_text("not an image")
    assert found(root) == {"unreadable": [pipe.name, device.name, text.name]}
    with pytest.raises(DataError, match="not a regular file"):
        figures.contact_sheet(root, root / "sheet.png", seed=0)


def test_a_label_against_the_votes_is_found(root: Path) -> None:
    """An HP image with 7 votes for SSA contradicts label = votes >= 4."""
    row = next(line for line in (root / "annotations.csv").read_text().splitlines() if ",SSA,7," in line)
    edit_table(root, row, row.replace("SSA", "HP"))
    assert found(root) == {"label": [row.split(",")[0]]}


def test_a_name_listed_twice_is_found(root: Path) -> None:
    """Twice in one partition is a duplicate name, and no image is missing for it."""
    row = first_row(root, "train")
    edit_table(root, row, f"{row}\r\n{row}")
    assert found(root) == {"duplicate-name": [row.split(",")[0]]}


def test_a_file_in_both_partitions_is_found(root: Path) -> None:
    """A test image copied over a train image is identical, not near-identical; within train it is only a note."""
    train, test = read_annotations(root, "train").paths, read_annotations(root, "test").paths
    shutil.copy(test[3], train[5])
    assert found(root) == {"identical": sorted([train[5].name, test[3].name])}
    shutil.copy(train[6], train[5])
    report = check.check(root)
    assert report.problems == []
    assert any("1 images are copies" in note for note in report.notes)


@pytest.mark.parametrize("change", ["recompressed", "brighter", "enlarged"])
def test_a_changed_copy_across_the_partitions_is_found(root: Path, change: str) -> None:
    """A copy saved as JPEG, made brighter, or halved and enlarged again is near-identical to its original."""
    train, test = read_annotations(root, "train").paths[5], read_annotations(root, "test").paths[3]
    with Image.open(test) as image:
        if change == "recompressed":
            image.save(train, "JPEG", quality=80)
        elif change == "brighter":
            image.point([min(255, value + 12) for value in range(256)] * 3).save(train)
        else:
            image.resize((24, 24)).resize((48, 48)).save(train)
    assert found(root) == {"near-identical": [train.name, test.name]}


def test_blank_images_are_not_taken_for_copies(root: Path) -> None:
    """Two nearly white images, one in each partition, are alike only because nothing is on them."""
    rng = np.random.default_rng(0)
    for partition in ("train", "test"):
        white = rng.integers(250, 256, size=(48, 48, 3), dtype=np.uint8)
        Image.fromarray(white).save(read_annotations(root, partition).paths[0])
    assert found(root) == {}
    assert [warning.kind for warning in check.check(root).warnings] == ["blank"]


def low_detail_image(rng: np.random.Generator, size: int = 28) -> Image.Image:
    """Draw a bright oval on a dark field, as aligned radiographs are: any two of them look alike."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1) - 0.5
    width, height, left, top = rng.normal((0.35, 0.42, 0, 0), 0.015)
    radius = ((x - left) / width) ** 2 + ((y - top) / height) ** 2
    levels = 200 / (1 + np.exp(12 * (radius - 1))) + 30 * np.exp(-((x / 0.06) ** 2)) + rng.normal(0, 1.5, x.shape)
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


def test_images_with_little_detail_are_not_taken_for_copies(tmp_path: Path) -> None:
    """Of aligned grey images many have similar hashes. Only the brighter copy that was planted is found."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    lines = [",".join(REQUIRED_COLUMNS)]
    for index in range(200):
        low_detail_image(rng).save(tmp_path / "images" / f"{index}.png")
        lines.append(f"{index}.png,{'SSA,7' if index % 2 else 'HP,0'},{'train' if index < 150 else 'test'}")
    (tmp_path / "annotations.csv").write_text("\n".join(lines))
    assert found(tmp_path) == {}
    with Image.open(tmp_path / "images" / "170.png") as image:
        image.point([min(255, value + 12) for value in range(256)]).save(tmp_path / "images" / "20.png")
    assert found(tmp_path) == {"near-identical": ["20.png", "170.png"]}


def test_many_copies_are_one_line(root: Path) -> None:
    """Thirty recompressed copies are counted, and five images are named."""
    train, test = read_annotations(root, "train").paths, read_annotations(root, "test").paths
    for copy, original in zip(train[:30], test[:30], strict=True):
        with Image.open(original) as image:
            image.save(copy, "JPEG", quality=80)
    (problem,) = check.check(root).problems
    assert (problem.kind, len(problem.names)) == ("near-identical", 60)
    assert str(problem).startswith("near-identical: 30 pairs of a train and a test image")
    assert str(problem).endswith(" and 55 more")


def grouped(root: Path, column: str, groups: Callable[[int], str]) -> None:
    """Add a column to the table."""
    path = root / "annotations.csv"
    header, *rows = path.read_text().splitlines()
    lines = [f"{header},{column}", *(f"{row},{groups(index)}" for index, row in enumerate(rows))]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("column", ["group", "Patient ID", "slide_id", "CaseNumber"])
def test_a_column_like_a_group_is_said_not_to_be_read(root: Path, column: str) -> None:
    """Only `Group` is read; with it the other column is no matter."""
    grouped(root, column, lambda index: f"p{index}")
    (warning,) = check.check(root).warnings
    assert warning.kind == "column"
    assert f"{column!r} not read: only a column named 'Group'" in warning.message
    grouped(root, "Group", lambda index: f"p{index}")
    assert check.check(root).warnings == []


def test_a_group_column_with_gaps_is_found(root: Path) -> None:
    """It is refused when a partition is read, so the check says so."""
    grouped(root, "Group", lambda index: f"p{index}" if index else "")
    (names,) = found(root).values()
    assert len(names) == 1


@pytest.mark.parametrize("rows_left", ["none", "one class"])
@pytest.mark.parametrize("partition", ["train", "test"])
def test_a_partition_without_a_class_is_found(root: Path, partition: str, rows_left: str) -> None:
    """A train partition that is empty or of one class is a problem; the search can do without a test partition."""
    path = root / "annotations.csv"
    header, *rows = path.read_text().splitlines()
    kept = [row for row in rows if not row.endswith(partition) or (rows_left == "one class" and ",SSA," in row)]
    path.write_text("\n".join([header, *kept]) + "\n")
    report = check.check(root)
    expected = "counts" if rows_left == "none" else "class"
    assert [problem.kind for problem in report.problems] == ([expected] if partition == "train" else [])
    assert [problem.kind for problem in report.warnings] == ([expected] if partition == "test" else [])


@pytest.mark.parametrize("fault", ["label", "group", "unreadable", "missing"])
def test_a_new_study_is_checked_alike(root: Path, fault: str) -> None:
    """What the check calls a problem refuses a study, in the same words."""
    if fault == "label":
        row = next(line for line in (root / "annotations.csv").read_text().splitlines() if ",SSA,7,test" in line)
        edit_table(root, row, row.replace("SSA", "HP"))
    elif fault == "group":
        grouped(root, "Group", lambda index: f"p{index % 7}")
    elif fault == "unreadable":
        read_annotations(root, "train").paths[0].write_text("text")
    else:
        read_annotations(root, "train").paths[0].unlink()
    (problem,) = check.check(root).problems
    assert problem.kind == fault
    with pytest.raises(DataError) as caught:
        check.require_sound(root)
    assert f"{root} has 1 problem: {problem}" == str(caught.value)


def test_a_new_study_opens_no_test_image(root: Path) -> None:
    """It is sound without them, and a test image that is listed in both partitions is not read either."""
    test = read_annotations(root, "test").paths
    for path in test:
        path.unlink()
    assert check.require_sound(root) == []
    test[0].write_text("not an image")
    row = next(line for line in (root / "annotations.csv").read_text().splitlines() if line.startswith(test[0].name))
    edit_table(root, row, f"{row}\n{row.replace(',test', ',train')}")
    report = check.check(root, opened=("train",))
    assert [problem.kind for problem in report.problems] == ["duplicate-name"]


def test_a_group_in_both_partitions_is_found(root: Path) -> None:
    """A patient with a train and a test image is named with both."""
    path = root / "annotations.csv"
    header, *rows = path.read_text().splitlines()
    grouped = [f"{row},p{index}" for index, row in enumerate(rows)]
    first_test = next(index for index, row in enumerate(rows) if row.endswith("test"))
    first_train = next(index for index, row in enumerate(rows) if row.endswith("train"))
    grouped[first_test] = f"{rows[first_test]},p{first_train}"
    path.write_text("\n".join([f"{header},Group", *grouped]) + "\n")
    names = sorted(rows[index].split(",")[0] for index in (first_test, first_train))
    assert found(root) == {"group": names}


def test_mhist_is_known_by_its_names_and_counts(tmp_path: Path) -> None:
    """The whole table is recognised; with one row fewer there is a warning. Absent images do not hide that."""
    rows = [
        f"{'SSA' if votes >= 4 else 'HP'},{votes},{partition}"
        for partition, counts in MHIST_VOTES.items()
        for votes, n in enumerate(counts)
        for _ in range(n)
    ]
    lines = [",".join(REQUIRED_COLUMNS), *(f"MHIST_{index:04d}.png,{row}" for index, row in enumerate(rows))]
    (tmp_path / "annotations.csv").write_text("\n".join(lines))
    whole = check.check(tmp_path)
    assert whole.is_mhist
    assert [problem.kind for problem in whole.problems] == ["missing"]
    assert "this is MHIST, and its counts are complete" in whole.notes
    (tmp_path / "annotations.csv").write_text("\n".join(lines[:-1]))
    incomplete = check.check(tmp_path)
    assert [problem.kind for problem in incomplete.problems] == ["missing"]
    assert [warning.kind for warning in incomplete.warnings] == ["counts"]
    assert "this is MHIST, and its counts are complete" not in incomplete.notes


def test_figures_are_written_without_test_images(root: Path, tmp_path: Path) -> None:
    """Contact sheet and histogram need no file of the test partition; a broken train image is named."""
    for path in read_annotations(root, "test").paths:
        path.unlink()
    figures.contact_sheet(root, tmp_path / "sheet.png", seed=0)
    figures.vote_histogram(root, tmp_path / "votes.png")
    for name in ("sheet.png", "votes.png"):
        with Image.open(tmp_path / name) as image:
            assert len(image.convert("RGB").getcolors(1 << 20) or []) > 10
    for path in read_annotations(root, "train").paths:
        path.write_bytes(b"")
    with pytest.raises(DataError, match="SYN_"):
        figures.contact_sheet(root, tmp_path / "sheet.png", seed=0)
