"""Tests of mhist_tune.definition.files."""

import os
from pathlib import Path

import pytest

from mhist_tune.definition import files
from mhist_tune.definition import study_file as definitions
from mhist_tune.errors import UsageError


def test_packaged_studies_are_whole() -> None:
    """Every packaged study reads, carries its file's name, and its control spells out all that is searched."""
    assert {"demo", "efficientnet", "fcnn", "resnet18", "vit"} <= set(files.packaged())
    searched = {"learning_rate", "effective_batch_size", "dropout_placement", "drop_rate", "weight_decay", "sampling"}
    for name, path in files.packaged().items():
        study = definitions.load(name)
        if study.rows:
            continue

        assert study.name == name
        assert study.text == path.read_text(encoding="utf-8")
        assert searched <= set(study.space)
        assert all(set(entry) == set(study.space) for entry in study.start)
        assert path.read_text(encoding="utf-8").count("[[start]]") == len(study.start) >= 1


def test_a_file_of_ones_own_is_named_by_its_path(tmp_path: Path) -> None:
    """A path is read as a file; one that is missing or is no text is a usage error."""
    path = tmp_path / "mine.toml"
    path.write_bytes(files.packaged()["vit"].read_bytes())

    assert definitions.load(path).name == "vit"
    with pytest.raises(UsageError, match=r"no study definition file .*other\.toml"):
        definitions.load(tmp_path / "other.toml")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"cannot read .*mine\.toml"):
        definitions.load(os.fspath(path))


def test_an_unknown_name_lists_what_is_packaged() -> None:
    """A mistyped name is met with the nearest one and the list."""
    with pytest.raises(UsageError, match=r'no study definition "vitt" \(did you mean vit\?\)') as error:
        definitions.load("vitt")
    assert all(name in str(error.value.hint) for name in files.packaged())
