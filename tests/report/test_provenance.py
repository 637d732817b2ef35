"""Warnings of the check of the data and versions of the code in a report."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mhist_tune.definition.study_file import parse
from mhist_tune.report import build, report_text
from mhist_tune.storage import event_log, studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.stages import Stage
from tests.support import made_up


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with open_storage(f"sqlite:///{tmp_path / 'tiny.db'}") as opened:
        yield opened


def retrained(storage: Storage, dataset: dict[str, Any], *versions: str) -> str:
    """Return the report, as Markdown, of a study with this record of its data, trained by these versions."""
    study = studies.create_study(
        storage,
        parse(made_up.DEFINITION.format(name="tiny"), "tiny"),
        dataset={"fingerprint": "f", **dataset},
        image_sets={"train": [["train.png", 0, 1, None]], "val": [["val.png", 1, 6, None]]},
    )
    for number, version in enumerate(versions):
        if number == 0:
            study = studies.set_setting(storage, study, studies.CODE_VERSION, version)
        else:
            detail = {"code_version": version}
            event_log.event(storage, study, kind=event_log.VERSION, stage=Stage.SEARCH, slot=0, detail=detail)
    made_up.open_test(storage, study)
    made_up.retrain(storage, study, n_slots=2)
    return report_text.to_markdown(build.build(storage, "tiny"), figures=())


def test_warnings_of_the_data_and_the_version_are_in_the_report(storage: Storage) -> None:
    """Each warning is a line, and so is the version; one version is no caveat."""
    text = retrained(storage, {"warnings": ["column: 'patient' not read"]}, "0.1.0+aaa")
    assert "- Warning of the check of the data set: column: 'patient' not read." in text
    assert "- Trained by mhist-tune 0.1.0+aaa." in text
    assert "Different versions" not in text


def test_two_versions_are_a_caveat(storage: Storage) -> None:
    """Trials of different versions may differ for that reason."""
    text = retrained(storage, {"warnings": []}, "0.1.0+aaa", "0.1.0+bbb")
    assert "gave no warning" in text
    assert "- Different versions of the code trained this study (0.1.0+aaa, 0.1.0+bbb)" in text


def test_what_was_not_recorded_is_said(storage: Storage) -> None:
    """A study of an older version has neither."""
    text = retrained(storage, {})
    assert "Whether the check of the data set gave warnings is not recorded." in text
    assert "The version of the code is not recorded." in text
