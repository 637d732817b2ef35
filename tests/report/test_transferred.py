"""A report says which configurations came from other studies, and what that means for its test results."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from mhist_tune.definition.study_file import parse
from mhist_tune.mhist import MHIST_VOTES
from mhist_tune.report import build, inherited, report_text, transferred
from mhist_tune.report.document import Report
from mhist_tune.report.transferred import SourceStudy, Transfer
from mhist_tune.search.transfer import Origin, Pick
from mhist_tune.storage import studies
from mhist_tune.storage.database import open_storage
from tests.support import made_up

SOURCE = SourceStudy(
    study="first",
    uuid="a" * 32,
    definition_sha256="b" * 64,
    dataset_fingerprint="f" * 64,
    test_rows_sha256="d" * 64,
    model="fcnn",
    score="mean_f1",
    n_tried=40,
    n_confirmed=4,
    n_outside=1,
    inherited=["the exclusion of 3/7 and 4/7"],
    n_names_in_test=0,
)
PICKS = [
    Pick({"learning_rate": 1e-3}, [Origin("first", [3], 0.9, True)]),
    Pick({"learning_rate": 2e-3}, [Origin("first", [5, 6], 0.8, False)]),
]


def report(tmp_path: Path, *sources: SourceStudy) -> Report:
    """Return the report of a study on MHIST's test images that took two configurations from `sources`."""
    with open_storage(f"sqlite:///{tmp_path}/mhist.db") as storage:
        study = made_up.create(storage)
        record = Transfer("2026-11-27T08:00:00+00:00", list(sources), PICKS)
        studies.set_setting(storage, study, transferred.SETTING, asdict(record))
        made_up.open_test(storage, study, seeds=(0,))
        made_up.retrain(storage, study, n_slots=1, votes=np.repeat(np.arange(8), MHIST_VOTES["test"]))
        return build.build(storage, study.name)


def test_the_methods_name_sources_and_say_what_the_same_test_images_mean(tmp_path: Path) -> None:
    """One source shares the test images, the other does not and has train images named as test images."""
    other = replace(SOURCE, study="other", test_rows_sha256="c" * 64, n_names_in_test=7, inherited=[])
    document = report(tmp_path, SOURCE, other)

    assert (
        "the search tried 2 configurations found by first (bbbbbbbb) and other (bbbbbbbb) on 2026-11-27, 1 of them "
        "confirmed out of fold there" in document.methods
    )
    assert "The test partition of first has the same images." in document.methods
    assert "have the names of test images here: 7 of other" in document.methods
    assert document.transfer is not None
    assert document.transfer.picks[1].origins[0].trials == [5, 6]
    text = report_text.to_table(document)
    assert "and this study carries them on: first (the exclusion of 3/7 and 4/7)." in text


def test_a_report_without_sources_says_nothing_of_them(tmp_path: Path) -> None:
    """Neither does one whose sources have other test images and no choices by test results."""
    clean = report(tmp_path, replace(SOURCE, test_rows_sha256=None, inherited=[]))
    assert "has the same images" not in clean.methods
    assert "carries them on" not in report_text.to_table(clean)


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_choice_that_a_search_made_on_train_images_is_not_one_by_test(is_taken: bool) -> None:
    """Over-sampling that comes from another study's search does not count as the method report's choice."""
    space = 'augmentation = "none"\n[space]\nsampling = { choices = ["none", "random_over"] }'
    plain = made_up.DEFINITION.format(name="tiny").replace("[space]", space)
    definition = replace(
        parse(plain, "test"),
        start=({"learning_rate": 1e-3, "sampling": "none"}, {"learning_rate": 1e-3, "sampling": "random_over"}),
    )
    found = inherited.choices(definition, definition.start[1:] if is_taken else ())
    assert ("random over-sampling" in found) is not is_taken
