"""Choices that were taken from MHIST's test images: which studies have them, and which reports say so."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from mhist_tune.definition import study_file
from mhist_tune.mhist import MHIST_VOTES
from mhist_tune.report import build, compare, compare_text, ensemble, inherited, report_text
from mhist_tune.report.references import published
from mhist_tune.storage.database import open_storage
from tests.support import made_up


@pytest.mark.parametrize("name", ["vit", "resnet18", "fcnn", "efficientnet"])
def test_shipped_studies_begin_with_choices_made_on_test(name: str) -> None:
    """Exclusion and augmentation are fixed, and over-sampling is tried first."""
    assert inherited.choices(study_file.load(name)) == {
        "the exclusion of 3/7 and 4/7": "fixed",
        "flips with rotation": "fixed",
        "random over-sampling": "tried first",
    }


def test_one_shipped_study_searches_them_all() -> None:
    """`vit-clean` compares every combination with and without the choices, and its default has none of them."""
    definition = study_file.load("vit-clean")
    chosen = {field: value for field, (value, _) in inherited.CHOICES.items()}
    has = {
        tuple(getattr(definition.hyperparameters(row.params), field) == value for field, value in chosen.items())
        for row in definition.rows
    }

    assert inherited.choices(definition) == {}
    assert has == set(itertools.product((False, True), repeat=3))
    default = definition.hyperparameters(definition.default_params())
    assert [getattr(default, field) for field in chosen] == [(), "none", "none"]


def test_a_report_on_mhist_says_so(tmp_path: Path) -> None:
    """The sentence and the keys are in a report on MHIST's test images and in no other one."""
    votes = np.repeat(np.arange(8), MHIST_VOTES["test"])
    with open_storage(f"sqlite:///{tmp_path}/mhist.db") as storage:
        for name, of_images in (("on-mhist", votes), ("elsewhere", made_up.VOTES)):
            study = made_up.create(storage, name)
            made_up.open_test(storage, study, seeds=(0,))
            made_up.retrain(storage, study, n_slots=1, votes=of_images)
        on_mhist, elsewhere = (build.build(storage, name) for name in ("on-mhist", "elsewhere"))

    assert on_mhist.inherited_choices == {"flips with rotation": "fixed"}
    assert "chose these by its results on the same test images" in report_text.to_markdown(on_mhist, [])
    assert "begins with them: flips with rotation (fixed)." in report_text.to_table(on_mhist)
    assert elsewhere.inherited_choices == {}
    assert "chose these by its results" not in report_text.to_table(elsewhere)


def test_comparisons_and_ensembles_on_mhist_say_so(tmp_path: Path) -> None:
    """Each study that begins with such choices is named on MHIST's test images, and none on others."""
    votes = np.repeat(np.arange(8), MHIST_VOTES["test"])
    for name, of_images in (("on-mhist", votes), ("elsewhere", made_up.VOTES)):
        with open_storage(f"sqlite:///{tmp_path}/{name}.db") as storage:
            for member in ("first", "second"):
                study = made_up.create(storage, member)
                made_up.open_test(storage, study, seeds=(0,))
                made_up.retrain(storage, study, n_slots=1, votes=of_images)
            compared = compare_text.to_text(compare.build(storage, ["first", "second"]))
            averaged = ensemble.to_text(ensemble.build(storage, ["first", "second"]))
        for text in (compared, averaged):
            for member in ("first", "second"):
                said = f"{member} begins with choices that the method report made" in text
                assert said == (name == "on-mhist")


def test_every_row_of_the_method_report_has_a_remark() -> None:
    """No published number that rests on choices made on test stands without saying so."""
    assert all("chosen on test" in row.remark for row in published() if row.source == "method report")
