import csv
import io
import json
import re
import statistics as by_hand
import subprocess
import sys
from dataclasses import replace
from html import unescape
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score, log_loss, roc_auc_score

from mhist_tune.definition import schema
from mhist_tune.errors import StudyNotFoundError, UsageError
from mhist_tune.report import build, files, report_tables, report_text, sentences
from mhist_tune.report.document import Cost, ReportedTrial, to_json
from mhist_tune.statistics import calibration
from mhist_tune.statistics.summaries import summary
from mhist_tune.storage import ledger, studies, thumbnails
from mhist_tune.storage.database import open_storage
from mhist_tune.storage.epochs import record_epoch
from mhist_tune.storage.leases import LeaseObserver
from mhist_tune.storage.openings import record_failure
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.payloads import SearchPayload
from tests.support.made_up import EPOCHS, LABELS, VOTES, create, open_test, retrain

PINNED = {
    "study",
    "trial",
    "n_seeds",
    "seeds",
    "metrics",
    "by_votes",
    "test_openings",
    "training_speed",
    "dataset_fingerprint",
    "versions",
    "predictions",
}
METRICS = {"auroc", "auprc", "f1", "precision", "recall", "specificity", "accuracy", "balanced_accuracy"} | {
    "log_loss",
    "brier",
    "ece",
}


@pytest.fixture
def storage(tmp_path):
    with open_storage(f"sqlite:///{tmp_path / 'tiny.db'}") as opened:
        yield opened


@pytest.fixture
def study(storage):
    return create(storage)


def test_every_sampler_and_pruner_has_its_words() -> None:
    """Whatever a definition may name, the methods paragraph can say."""
    assert sentences._SAMPLERS.keys() == schema._SAMPLERS.keys()
    assert sentences._PRUNERS.keys() == schema._PRUNERS.keys()


def test_document_has_every_pinned_key_and_is_json(storage, study):
    """The pinned keys are there in strict JSON, and each metric but the calibration error has an interval."""
    open_test(storage, study)
    retrain(storage, study, n_slots=3)
    document = build.build(storage, "tiny")
    assert json.loads(to_json(document)).keys() >= PINNED
    assert set(document.metrics) == METRICS
    assert [name for name, one in document.metrics.items() if one.ci95 is None] == ["ece"]
    assert document.study == "tiny"
    assert document.seeds == [0, 1, 2]
    assert document.n_seeds == 3
    assert document.complete is True
    assert document.dataset_fingerprint == "f" * 64
    assert document.versions["mhist-tune"]
    assert document.trial == ReportedTrial(
        number=3, params={"learning_rate": 1e-3}, best_epoch=2, stopped_epoch=4, configured_epochs=9
    )


def test_numbers_are_recomputed_from_the_stored_predictions(storage, study):
    """Each seed's AUROC, F1 and loss are scikit-learn's on what was stored; the loss is the mean per image."""
    open_test(storage, study)
    stored = retrain(storage, study, n_slots=3)
    metrics = build.build(storage, "tiny").metrics
    for index, p in enumerate(stored.values()):
        assert metrics["auroc"].per_seed[index] == pytest.approx(roc_auc_score(LABELS, p))
        assert metrics["f1"].per_seed[index] == pytest.approx(f1_score(LABELS, p > 0.5))
        assert metrics["log_loss"].per_seed[index] == pytest.approx(log_loss(LABELS, p))
    aurocs = metrics["auroc"].per_seed
    assert metrics["auroc"].mean == pytest.approx(by_hand.mean(aurocs))
    assert metrics["auroc"].std == pytest.approx(by_hand.stdev(aurocs))
    assert metrics["auroc"].ci95[0] <= metrics["auroc"].mean <= metrics["auroc"].ci95[1]


def test_error_rates_by_votes_come_from_the_test_images(storage, study):
    """Eight rows, five images each, and the mean of the rates is one minus the mean accuracy."""
    open_test(storage, study)
    retrain(storage, study, n_slots=3)
    document = build.build(storage, "tiny")
    assert [(rate.votes, rate.n_images) for rate in document.by_votes] == [(votes, 5) for votes in range(8)]
    mean_rate = by_hand.mean(rate.error_rate for rate in document.by_votes)
    assert mean_rate == pytest.approx(1 - document.metrics["accuracy"].mean)


def test_training_speed_sums_the_epochs_of_the_reported_seeds(storage, study):
    """Two seeds of 100 + 80 images in 2 + 1 seconds trained at 60 images/s; memory is the highest."""
    open_test(storage, study, seeds=(0, 1))
    retrain(storage, study, n_slots=2)
    assert build.build(storage, "tiny").training_speed == Cost(
        images_per_s=pytest.approx(60.0), n_epochs=4, elapsed_s=pytest.approx(6.0), peak_memory_bytes=3000
    )


def test_training_speed_without_a_memory_counter_is_null(storage, study):
    """On a device that measures no memory the peak is null, and the report is still written."""
    open_test(storage, study, seeds=(0,))
    retrain(storage, study, n_slots=1, epochs=[{**EPOCHS[0], "peak_memory_bytes": None}])
    document = files.write(storage, "tiny", storage.root / "report")
    assert document.training_speed.peak_memory_bytes is None
    assert document.training_speed.images_per_s == pytest.approx(50.0)


def test_nothing_retrained_is_a_usage_error_that_names_the_command(storage, study):
    """Before the opening, and before its first seed is done, there is no report but a hint."""
    for _ in range(2):
        with pytest.raises(UsageError, match="no retraining of tiny has finished") as caught:
            build.build(storage, "tiny")
        assert caught.value.hint == "mhist-tune retrain tiny"
        open_test(storage, study)


def test_unknown_study_is_refused(storage):
    """A study that is not there is the storage's own error."""
    with pytest.raises(StudyNotFoundError):
        build.build(storage, "tiny")


def test_a_partly_finished_set_is_reported_as_such(storage, study):
    """Two of three seeds: the report is about the two, and says in the JSON and the table that it is not complete."""
    open_test(storage, study)
    stored = retrain(storage, study, n_slots=2)
    document = build.build(storage, "tiny")
    assert document.complete is False
    assert (document.n_seeds, document.n_seeds_planned) == (2, 3)
    assert document.seeds == list(stored)
    assert "only 2 of 3 seeds have finished" in report_text.to_table(document)


def test_a_seed_that_diverged_leaves_the_report_incomplete(storage, study):
    """A slot that is done without predictions is not silently left out of the count."""
    open_test(storage, study, seeds=(0, 1))
    retrain(storage, study, n_slots=1)
    claim = ledger.claim(storage, study, ["retrain"], worker="w", observer=LeaseObserver())
    ledger.decide(storage, claim, Outcome(state=EndState.FAIL))
    assert ledger.finish(storage, claim)
    document = build.build(storage, "tiny")
    assert (document.n_seeds, document.n_seeds_planned, document.complete) == (1, 2, False)


def test_every_opening_is_listed_and_the_newest_finished_one_reported(storage, study):
    """Two openings appear with when, by whom and why; their seeds are never mixed, an unfinished one not reported."""
    first = open_test(storage, study, trial=3, seeds=(0, 1))
    retrain(storage, study, n_slots=2)
    second = open_test(storage, study, trial=5, seeds=(0,), reason="trial 3 was misread")
    assert build.build(storage, "tiny").opening == first
    retrain(storage, study, n_slots=1)
    document = build.build(storage, "tiny")
    assert document.opening == second
    assert document.trial.number == 5
    assert document.n_seeds == 1
    assert document.metrics["auroc"].std is None
    openings = document.test_openings
    assert [one.trial for one in openings] == [3, 5]
    assert [one.seeds for one in openings] == [[0, 1], [0]]
    assert openings[1].reason == "trial 3 was misread"
    assert openings[0].by == "test"
    assert openings[0].opened_at.endswith("+00:00")
    table = report_text.to_table(document)
    assert "opened 2 times" in table
    assert "trial 3 was misread" in table


def test_openings_by_other_studies_are_listed_and_counted(storage, study):
    """The third look says so, with the looks of another study and of a deleted one, and an opening that failed."""
    other, deleted = create(storage, "other"), create(storage, "deleted")
    open_test(storage, other, reason="another network")
    failed = open_test(storage, deleted, reason="a wrong folder")
    record_failure(storage, deleted, failed, "image a.png cannot be decoded")
    open_test(storage, deleted, reason="the right folder")
    studies.delete_study(storage, deleted)
    open_test(storage, study, reason="a third network")
    retrain(storage, study, n_slots=3)
    document = build.build(storage, "tiny")

    assert [one.study for one in document.test_openings] == ["tiny"]
    assert [one.study for one in document.other_openings] == ["other", "deleted", "deleted"]
    table = report_text.to_table(document)
    assert "opened 3 times, by other, deleted, tiny; this report is of the third look" in table
    assert "It failed before any prediction: image a.png cannot be decoded" in table
    assert "another network" in table
    assert any(text.startswith("This is the third of 3 looks at these test images") for text in document.caveats)
    assert "opened 3 times, 2 of them before that choice was recorded" in document.methods
    assert "another network" in report_text.to_markdown(document, [])


def test_table_has_the_method_reports_columns_one_row_per_seed_mean_and_std(storage, study):
    """The columns stand in the method report's order, and the cells are the document's numbers."""
    open_test(storage, study)
    retrain(storage, study, n_slots=3)
    document = build.build(storage, "tiny")
    lines = [line.split() for line in report_text.to_table(document).splitlines()]
    start = lines.index(["Loss", "Precision", "Recall", "Specificity", "F1", "Accuracy", "AUROC"])
    rows = {" ".join(line[:-7]): line[-7:] for line in lines[start + 1 : start + 6]}
    assert list(rows) == ["seed 0", "seed 1", "seed 2", "mean", "std"]
    metrics = document.metrics
    assert rows["seed 1"][0] == f"{metrics['log_loss'].per_seed[1]:.3f}"
    assert rows["mean"][4] == f"{metrics['f1'].mean:.3f}"
    assert rows["std"][6] == f"{metrics['auroc'].std:.3f}"


def test_groups_have_intervals_of_their_own_and_are_counted(storage, study):
    """With groups the intervals are those of a jackknife over them; the report counts them and has design effects."""
    open_test(storage, study)
    groups = [f"slide{index // 2}" for index in range(40)]
    stored = np.stack(list(retrain(storage, study, n_slots=3, groups=groups).values()))
    document = build.build(storage, "tiny")
    assert document.resampled_by == "group"
    assert document.metrics["auroc"].ci95 == summary(LABELS, stored, groups=groups)["auroc"].ci95
    assert document.metrics["auroc"].ci95 != summary(LABELS, stored)["auroc"].ci95
    assert document.sampling.sensitivity is None
    effect = document.sampling.design_effects["auroc"]
    assert effect.n_effective == pytest.approx(40 / effect.design_effect)
    text = report_text.to_table(document)
    assert "20 groups (patients or slides), 10 with SSA and 10 with HP" in text
    assert f"design effect of AUROC is {effect.design_effect:.2f}" in text
    assert "count as independent" not in text
    assert "jackknife over 20 groups" in document.methods


@pytest.mark.parametrize("n_groups", [5, 1])
def test_few_groups_have_no_intervals_and_the_report_says_why(storage, study, n_groups):
    """Five groups, or a single one, give no interval of any metric instead of one that is far too narrow."""
    open_test(storage, study)
    retrain(storage, study, n_slots=3, groups=[f"slide{index % n_groups}" for index in range(40)])
    document = build.build(storage, "tiny")
    assert all(metric.ci95 is None for metric in document.metrics.values())
    assert "no interval" in document.result
    text = report_text.to_table(document)
    assert f"come from {n_groups} group" in text
    assert "fewer than 10 groups hold a class" in text


def test_unknown_slides_have_a_table_of_supposed_design_effects(storage, study):
    """Without groups the report shows each interval at design effects 1.5, 2 and 3, each wider than the one before."""
    open_test(storage, study)
    retrain(storage, study, n_slots=3)
    document = build.build(storage, "tiny")
    assert document.sampling.groups is None
    widths = [document.metrics["auroc"].ci95, *document.sampling.sensitivity["auroc"].values()]
    assert list(document.sampling.sensitivity["auroc"]) == ["1.5", "2", "3"]
    assert all(inner[0] > outer[0] and inner[1] < outer[1] for inner, outer in pairwise(widths))
    titles = dict(report_tables.tables(document))
    row = next(row for row in titles["If images of a slide are alike"] if row[0] == "auroc")
    assert row[2] == "{:.3f} to {:.3f}".format(*document.sampling.sensitivity["auroc"]["1.5"])


def test_seeds_that_never_call_a_class_are_counted(storage, study):
    """A report says how many of the seeds never call SSA, and says nothing where all call both classes."""
    open_test(storage, study)
    retrain(storage, study, n_slots=3)
    document = build.build(storage, "tiny")
    assert "never call" not in report_text.to_table(document)
    silent = {name: replace(one, per_seed=[0.0, 0.0, 0.5]) for name, one in document.metrics.items()}
    silent["specificity"] = replace(silent["specificity"], per_seed=[1.0, 1.0, 0.9])
    assert "2 of 3 seeds never call SSA at the threshold 0.5." in sentences.caveats(replace(document, metrics=silent))


def test_write_leaves_the_files_that_the_document_names(storage, study, tmp_path):
    """JSON twin, Markdown with figures that exist, and a CSV that holds the stored probabilities exactly."""
    open_test(storage, study)
    stored = retrain(storage, study, n_slots=3)
    folder = tmp_path / "reports" / "tiny"
    document = files.write(storage, "tiny", folder)
    assert json.loads((folder / "report.json").read_text()) == json.loads(to_json(document))
    assert document.predictions == str(folder / "predictions.csv")
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["seed", "image_name", "label", "votes", "probability"]
    assert len(rows) == 3 * 40
    for seed, probabilities in stored.items():
        mine = [row for row in rows if row["seed"] == str(seed)]
        assert [float(row["probability"]) for row in mine] == probabilities.tolist()
        assert [int(row["label"]) for row in mine] == LABELS.tolist()
        assert [int(row["votes"]) for row in mine] == VOTES.tolist()
        assert mine[0]["image_name"] == "00.png"
    text = (folder / "report.md").read_text()
    assert "| mean |" in text
    assert "learning_rate = 0.001" in text
    for figure in ("roc.png", "votes.png"):
        assert f"]({figure})" in text
        with Image.open(folder / figure) as image:
            assert image.format == "PNG"


def search(storage, study, *, number=3, val=(0.1, 0.2, 0.3, 0.6, 0.4, 0.7, 0.8, 0.9)):
    """Finish the study's search slot as a trial of that number, with predictions for its validation images."""
    claim = ledger.claim(storage, study, ["search"], worker="w", observer=LeaseObserver())
    metrics = {"train_loss": 0.6, "val_loss": 0.5, "val_f1": 0.8}
    record_epoch(storage, claim, epoch=1, score=0.8, value=0.8, metrics=metrics, predictions=val)
    ledger.attach_trial(storage, claim, 1, number)
    params = {"learning_rate": 1e-3}
    outcome = Outcome(state=EndState.COMPLETE, value=0.8, params=params, best_epoch=1, stopped_epoch=1)
    ledger.decide(storage, claim, outcome)
    assert ledger.finish(storage, claim)
    return np.array(val)


def test_threshold_and_recalibration_are_fixed_on_validation_images(storage, study):
    """Both come from the chosen trial's validation predictions; the test metrics are those of the mapped numbers."""
    val = search(storage, study)
    open_test(storage, study)
    table = np.stack(list(retrain(storage, study, n_slots=3).values()))
    held_out = build.build(storage, "tiny").held_out
    val_labels = (np.arange(8) >= 4).astype(int)
    assert held_out.threshold == calibration.f1_threshold(val_labels, val)
    there = [f1_score(LABELS, p > held_out.threshold) for p in table]
    assert held_out.metrics["f1"].per_seed == pytest.approx(there)
    mapped = calibration.platt(val_labels, val).apply(table)
    losses = [log_loss(LABELS, p) for p in mapped]
    assert held_out.calibration["recalibrated"]["log_loss"].per_seed == pytest.approx(losses)
    assert held_out.calibration["raw"]["log_loss"].per_seed != pytest.approx(losses)


def test_a_recalibration_that_turns_the_order_round_is_refused(storage, study):
    """Validation images ranked the wrong way give a negative slope: it is printed, and nothing is recalibrated."""
    search(storage, study, val=(0.9, 0.8, 0.7, 0.4, 0.6, 0.3, 0.2, 0.1))
    open_test(storage, study)
    retrain(storage, study, n_slots=3)
    document = build.build(storage, "tiny")
    assert document.held_out.slope < 0
    assert list(document.held_out.calibration) == list(document.held_out.reliability) == ["raw"]
    assert "The recalibration is not applied: its slope on held-out images is -" in report_text.to_table(document)
    assert [row[0] for row in report_tables.calibration_rows(document.held_out)[1:]] == ["raw"]


def test_a_recalibration_that_makes_things_worse_is_said(storage, study):
    """Where log loss or Brier score rise on the test images, the caveats give both numbers; else they are silent."""
    search(storage, study)
    open_test(storage, study)
    retrain(storage, study, n_slots=3)
    document = build.build(storage, "tiny")
    raw, mapped = (document.held_out.calibration[name]["brier"].mean for name in ("raw", "recalibrated"))
    told = f"made the Brier score on the test images worse: {raw:.3f} before, {mapped:.3f} after"
    assert (told in report_text.to_table(document)) == (mapped > raw)
    both = document.held_out.calibration
    other_way = {**both, "raw": both["recalibrated"], "recalibrated": both["raw"]}
    turned = replace(document, held_out=replace(document.held_out, calibration=other_way))
    told = f"made the Brier score on the test images worse: {mapped:.3f} before, {raw:.3f} after"
    assert any(told in caveat for caveat in sentences.caveats(turned)) == (raw > mapped)


def test_calibration_on_test_has_intervals_and_the_floor_of_its_error(storage, study):
    """Slope and intercept stand in a table with intervals, the calibration error beside that of a perfect model."""
    open_test(storage, study)
    retrain(storage, study, n_slots=3)
    document = build.build(storage, "tiny")
    found = document.calibration
    assert found.slope.ci95[0] < found.slope.mean < found.slope.ci95[1]
    rows = dict(report_tables.tables(document))["Calibration slope and intercept on the test partition"]
    assert [row[1] for row in rows[1:]] == ["1", "0", f"{found.ece_floor:.3f}"]
    assert f"would have about {found.ece_floor:.3f} with so many images" in report_text.to_table(document)


def test_the_page_needs_nothing_beside_it(storage, study, tmp_path):
    """One HTML file: no script, nothing to load, every figure inline, and the sentences that must not be missing."""
    search(storage, study)
    open_test(storage, study, reason="<first> look")
    retrain(storage, study, n_slots=3)
    pictures = np.zeros((40, 3, 12, 12), dtype=np.uint8)
    thumbnails.write(thumbnails.path_of(storage, study), [f"{n:02}.png" for n in range(40)], pictures)
    document = files.write(storage, "tiny", tmp_path / "report")
    html = (tmp_path / "report" / "report.html").read_text()
    loads = re.findall(r"""(?:src|href)=["']([^"'#]*)|url\(([^)#]*)|@import|<script""", html)
    assert {(one or other)[:5] for one, other in loads} <= {"data:", ""}
    assert html.count('<svg role="img"') == 8
    assert html.count("data:image/jpeg") == len(document.mistakes) > 0
    assert document.mistakes[0].image_name in html
    assert "&lt;first&gt; look" in html
    for sentence in ("conditional on the chosen configuration", "not enough data", "not comparable", document.methods):
        assert sentence in unescape(html)
    assert len(html) < 2_000_000


def test_a_search_extended_after_an_opening_is_marked(storage, study):
    """Trials added before the opening are not counted, those added after it are, in every later report."""
    ledger.add_slots(storage, study, "search", [SearchPayload()])
    open_test(storage, study, seeds=(0,))
    retrain(storage, study, n_slots=1)
    assert build.build(storage, "tiny").extended_after_opening == 0
    ledger.add_slots(storage, study, "search", [SearchPayload()] * 2)
    document = build.build(storage, "tiny")
    assert document.extended_after_opening == 2
    assert "went on with 2 trials after" in report_text.to_table(document)


def test_a_search_that_went_on_after_an_opening_is_marked(storage, study):
    """A trial that was begun before the opening and trained after it counts, one that had ended does not."""
    ledger.add_slots(storage, study, "search", [SearchPayload()])
    search(storage, study)
    open_test(storage, study, seeds=(0,))
    retrain(storage, study, n_slots=1)
    assert build.build(storage, "tiny").extended_after_opening == 0
    search(storage, study, number=4)
    assert build.build(storage, "tiny").extended_after_opening == 1


def test_thumbnails_are_written_once_and_read_by_name(tmp_path):
    """JPEG files of at most 112 px come back for the names that are there; the first file stands."""
    path = tmp_path / "folder" / "t.zip"
    thumbnails.write(path, ["a.png"], np.full((1, 3, 300, 150), 200, dtype=np.uint8))
    first = path.read_bytes()
    thumbnails.write(path, ["b.png"], np.zeros((1, 3, 8, 8), dtype=np.uint8))
    assert path.read_bytes() == first
    found = thumbnails.read(path, ["a.png", "b.png"])
    assert set(found) == {"a.png"}
    with Image.open(io.BytesIO(found["a.png"])) as image:
        assert (image.format, image.size) == ("JPEG", (56, 112))
    assert thumbnails.read(tmp_path / "none.zip", ["a.png"]) == {}
    assert list(path.parent.iterdir()) == [path]


def test_report_of_a_test_partition_with_one_class_is_written(storage, study, tmp_path):
    """Without SSA images there is no ROC figure and AUROC is null, but the report stands."""
    open_test(storage, study, seeds=(0, 1))
    retrain(storage, study, n_slots=2, votes=[0, 1, 2, 3])
    document = files.write(storage, "tiny", tmp_path / "report")
    assert document.metrics["auroc"].mean is None
    assert not (tmp_path / "report" / "roc.png").exists()
    assert "roc.png" not in (tmp_path / "report" / "report.md").read_text()
    assert report_text.to_table(document).count(" -") >= 4


def test_folder_that_cannot_be_written_is_a_usage_error(storage, study, tmp_path):
    """A file in the folder's place gives one clear line and the option to change."""
    open_test(storage, study, seeds=(0,))
    retrain(storage, study, n_slots=1)
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match="cannot write the report") as caught:
        files.write(storage, "tiny", tmp_path / "taken")
    assert "--output" in caught.value.hint


def test_report_imports_no_torch():
    """A report can be made where torch cannot be loaded, in a process that never loads it."""
    code = "import sys, mhist_tune.report.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
