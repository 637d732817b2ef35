"""A report of a confirmed study: the finalists, a threshold fixed out of fold, and the gain over the default."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from mhist_tune.definition import study_file
from mhist_tune.report import build, files, gain, report_tables, report_text
from mhist_tune.report.document import to_json
from mhist_tune.report.gain import Change, Gain
from mhist_tune.statistics import calibration, paired
from mhist_tune.storage import studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.openings import record_opening, record_reading
from mhist_tune.storage.payloads import RetrainPayload
from mhist_tune.storage.predictions import predictions_of
from mhist_tune.storage.studies import Study
from mhist_tune.worker.stages import confirm
from tests.search import test_finalists as confirmed
from tests.support.made_up import LABELS, retrain


@pytest.fixture
def storage(tmp_path: Path):
    with open_storage(f"sqlite:///{tmp_path / 'small.db'}") as opened:
        yield opened


@pytest.fixture
def study(storage: Storage) -> Study:
    return confirmed_study(storage)


def confirmed_study(storage: Storage) -> Study:
    """Store a study whose search and confirm stages are done: trial 3 was the search's best, trial 1 is the choice."""
    made = studies.create_study(
        storage,
        study_file.parse(confirmed.DEFINITION, "test"),
        dataset={"fingerprint": "f" * 64},
        image_sets=confirmed.IMAGE_SETS,
    )
    confirmed.finish(storage, made, "search", confirmed.searched(0.5, 0.7, None, 0.95))
    confirm.add_slots(storage, made)
    confirmed.finish(storage, made, "confirm", confirmed.inner)
    confirm.add_slots(storage, made)
    tables = {3: confirmed.FAIR, 1: confirmed.GOOD, 0: confirmed.POOR}
    confirmed.finish(storage, made, "confirm", confirmed.predicted(tables))
    return made


def open_test(storage: Storage, study: Study, trial: int, default: int) -> None:
    """Open the test partition for two seeds of a trial and of the default, as retrain does, and finish all of them."""
    common = {"best_epoch": 2, "stopped_epoch": 4, "configured_epochs": 9, "stop_epoch": 2}
    slots = [
        RetrainPayload(trial=one, params={"learning_rate": confirmed.RATES[one]}, seed=seed, **common)
        for one in dict.fromkeys([trial, default])
        for seed in (0, 1)
    ]
    opening = record_opening(
        storage,
        study,
        by="test",
        code_version="0.1.0",
        reason=lambda earlier: "first opening",
        payload={"trial": trial, "seeds": [0, 1], "default": default},
        test_rows="d" * 64,
    )
    record_reading(storage, study, opening.id, fingerprint="e" * 64, slots=slots)
    retrain(storage, study, n_slots=len(slots))


def test_the_gain_over_the_default_has_an_interval(storage: Storage, study: Study, tmp_path: Path) -> None:
    """Difference of seed-mean AUROC by hand, its interval that of the paired test; the two are never mixed."""
    open_test(storage, study, trial=1, default=0)
    stored = predictions_of(storage, study, "retrain", "test")
    tables = [np.stack([stored[0], stored[1]]), np.stack([stored[2], stored[3]])]
    document = files.write(storage, "small", tmp_path / "report")
    found = document.gain
    means = [np.mean([roc_auc_score(LABELS, row) for row in table]) for table in tables]

    assert (document.trial.number, document.n_seeds, document.complete) == (1, 2, True)
    assert document.metrics["auroc"].mean == pytest.approx(means[0])
    assert (found.default, found.is_chosen, found.n_seeds) == (0, False, 2)
    assert found.metrics["auroc"].mean == pytest.approx(means[1])
    assert found.difference.estimate == pytest.approx(means[0] - means[1])
    assert found.difference.ci95 == paired.auroc_differences(LABELS, tables)[0].ci95
    f1 = [np.mean([f1_score(LABELS, row > 0.5) for row in table]) for table in tables]
    assert found.difference_f1.estimate == pytest.approx(f1[0] - f1[1])
    assert found.difference_f1.ci95 == paired.f1_differences(LABELS, tables)[0].ci95
    low, high = found.difference_f1.ci95
    assert f"{f1[0] - f1[1]:+.4f} ({low:+.4f} to {high:+.4f})" in report_tables.gain_rows(document)[-1]
    assert "Against the study's default (trial 0)" in document.result
    assert "trial 1 and the default, trial 0, 2 seeds" in report_text.to_table(document)
    for name, slots in (("predictions.csv", (0, 1)), ("predictions-default.csv", (2, 3))):
        with (tmp_path / "report" / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [float(row["probability"]) for row in rows] == [p for slot in slots for p in stored[slot]]


def test_the_confirmation_is_shown_with_its_optimism(storage: Storage, study: Study, tmp_path: Path) -> None:
    """Page, Markdown and JSON say what the search's best was worth, how firm the choice is, and what that is not."""
    open_test(storage, study, trial=1, default=0)
    document = files.write(storage, "small", tmp_path / "report")

    assert json.loads((tmp_path / "report" / "report.json").read_text()) == json.loads(to_json(document))
    assert document.confirm.chosen == 1
    assert document.confirm.search_best.optimism == pytest.approx(0.95 - 6 / 7)
    assert "chosen for its F1 out of fold" in document.methods
    assert "The study's default was retrained with the same seeds" in document.methods
    assert "had F1 0.950 in the search and 0.857 out of fold, +0.093 (standard error" in document.methods
    for name in ("report.md", "report.html"):
        text = (tmp_path / "report" / name).read_text()
        assert "Finalists of the search, out of fold" in text
        assert "+0.093 (standard error" in text
        assert "not the probability that the finalist is the best" in text
    rows = report_tables.confirm_rows(document.confirm)
    assert [row[0] for row in rows[1:]] == ["1", "3", "0, the default"]


def test_threshold_and_recalibration_are_fixed_out_of_fold(storage: Storage, study: Study) -> None:
    """They come from the chosen trial's predictions of all six train images, not from validation images."""
    open_test(storage, study, trial=1, default=0)
    fixed = build.build(storage, "small").held_out
    labels, table = np.array(confirmed.LABELS), np.concatenate(confirmed.GOOD)

    assert fixed.source == "train images that search trial 1 predicted out of fold"
    assert (fixed.n_images, fixed.share_ssa) == (6, 0.5)
    assert fixed.threshold == calibration.f1_threshold(labels, table)
    assert fixed.slope == pytest.approx(calibration.platt(labels, table).slope)


def test_a_default_that_is_chosen_is_not_compared_with_itself(storage: Storage, study: Study) -> None:
    """Then there is nothing to measure, and the result says so."""
    open_test(storage, study, trial=0, default=0)
    document = build.build(storage, "small")

    assert document.gain == Gain(default=0, is_chosen=True, n_seeds=0)
    assert "tuning gained nothing" in document.result
    assert "chosen by hand" in document.methods  # the confirmed choice was trial 1


def test_a_gain_that_may_be_none_is_not_claimed() -> None:
    """An interval that holds 0 is no gain, and the sentence names the smallest difference that could be found."""
    change = Change(estimate=0.01, se=0.01, ci95=(-0.01, 0.03), p_value=0.3, detectable=0.028)
    shown = gain.sentence(Gain(default=0, is_chosen=False, n_seeds=2, difference=change))
    assert shown is not None
    assert "no gain is shown" in shown
    assert "0.0280" in shown
    certain = replace(change, ci95=(0.001, 0.02))
    clear = gain.sentence(Gain(default=0, is_chosen=False, n_seeds=2, difference=certain))
    assert clear is not None
    assert "no gain" not in clear
