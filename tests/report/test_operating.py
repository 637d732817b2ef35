"""Numbers of a model in use, the ceiling and the seeds as one model in a report, against scikit-learn and by hand."""

import json

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, log_loss, roc_auc_score, roc_curve

from mhist_tune.mhist import MHIST_VOTES
from mhist_tune.report import build, ceiling, files, model_card, operating_tables, report_tables, report_text
from mhist_tune.storage.database import open_storage
from tests.conftest import Run
from tests.report.test_document import search
from tests.support.made_up import LABELS, create, open_test, retrain


@pytest.fixture
def storage(tmp_path):
    with open_storage(f"sqlite:///{tmp_path / 'tiny.db'}") as opened:
        yield opened


@pytest.fixture
def study(storage):
    return create(storage)


@pytest.fixture
def reported(storage, study):
    """A report with held-out predictions and three seeds, the test probabilities, and those held out."""
    held_out = search(storage, study)
    open_test(storage, study)
    table = np.stack(list(retrain(storage, study, n_slots=3).values()))
    return build.build(storage, "tiny", prevalences=[0.1, 0.3]), table, held_out


def test_the_confusion_matrix_is_scikit_learns(reported):
    """The counts of each seed, and their means, are those of confusion_matrix at 0.5 and at the held-out threshold."""
    report, table, _ = reported
    assert [one.threshold for one in report.operating.confusion] == [0.5, report.held_out.threshold]
    for one in report.operating.confusion:
        counts = np.array([confusion_matrix(LABELS, row > one.threshold).ravel() for row in table])
        for index, metric in enumerate((one.tn, one.fp, one.fn, one.tp)):
            assert metric.per_seed == counts[:, index].tolist()
            assert metric.mean == pytest.approx(counts[:, index].mean())
            assert metric.ci95[0] <= metric.mean <= metric.ci95[1]


def test_operating_points_are_those_of_the_roc_curve(reported):
    """On the test images each seed's point lies on scikit-learn's curve; there the threshold is the held-out one's."""
    report, table, held_out = reported
    val_labels = np.arange(8) >= 4
    curves = [roc_curve(LABELS, row, drop_intermediate=False)[:2] for row in table]
    for point in report.operating.points:
        if point.fixed == "specificity":
            best = [tpr[fpr <= 1 - point.target + 1e-9].max() for fpr, tpr in curves]
        else:
            best = [1 - fpr[tpr >= point.target - 1e-9].min() for fpr, tpr in curves]
        assert point.reached.per_seed == pytest.approx(best)
        called = held_out > point.threshold
        held = 1 - called[~val_labels].mean() if point.fixed == "specificity" else called[val_labels].mean()
        assert held >= point.target
        recalls = [(row > point.threshold)[LABELS == 1].mean() for row in table]
        assert point.sensitivity.per_seed == pytest.approx(recalls)
        assert point.specificity.per_seed == pytest.approx(
            [(row <= point.threshold)[LABELS == 0].mean() for row in table]
        )


def test_predictive_values_are_those_of_a_population(reported):
    """At each prevalence a population of a million with these rates is counted out."""
    report, table, _ = reported
    threshold = report.held_out.threshold
    assert [one.prevalence for one in report.operating.predictive_values] == [0.1, 0.3]
    for one in report.operating.predictive_values:
        for row, ppv, npv in zip(table, one.ppv.per_seed, one.npv.per_seed, strict=True):
            tn, fp, fn, tp = confusion_matrix(LABELS, row > threshold).ravel()
            ill, well = 1e6 * one.prevalence, 1e6 * (1 - one.prevalence)
            found, false = ill * tp / (tp + fn), well * fp / (tn + fp)
            assert ppv == pytest.approx(found / (found + false))
            assert npv == pytest.approx((well - false) / (well - false + ill - found))


def test_predictive_values_have_the_test_partitions_prevalence_unless_one_is_named(storage, study):
    """At that prevalence they are precision, and the share of HP among images called HP."""
    open_test(storage, study)
    table = np.stack(list(retrain(storage, study, n_slots=3).values()))
    report = build.build(storage, "tiny")
    [only] = report.operating.predictive_values
    assert (only.prevalence, only.threshold) == (0.5, 0.5)
    assert only.ppv.per_seed == pytest.approx(report.metrics["precision"].per_seed)
    assert only.npv.per_seed == pytest.approx([1 - LABELS[row <= 0.5].mean() for row in table])
    assert report.operating.source is None
    assert all(point.threshold is None for point in report.operating.points)
    assert "no held-out predictions" in report_text.to_markdown(report, [])


def test_net_benefit_is_counted_image_by_image(reported):
    """At each threshold probability it is TP / n - FP / n * t / (1 - t), mean over seeds; the alternatives likewise."""
    report, table, _ = reported
    curve = report.operating.net_benefit
    for index, t in enumerate(curve.thresholds):
        of_seeds = [np.mean((row > t) * np.where(LABELS == 1, 1, -t / (1 - t))) for row in table]
        everyone = np.mean(np.where(LABELS == 1, 1, -t / (1 - t)))
        assert curve.model.mean[index] == pytest.approx(np.mean(of_seeds))
        assert curve.treat_all[index] == pytest.approx(everyone)
        assert curve.above_all.mean[index] == pytest.approx(np.mean(of_seeds) - max(everyone, 0))
    assert curve.recalibrated is not None


def test_risk_and_deferral_are_counted_image_by_image(reported):
    """Images are taken from the most certain on; the largest part that errs rarely enough is what is not deferred."""
    report, table, _ = reported
    curve = report.operating.risk_coverage
    rates, ends = [], []
    for row in table:
        order = np.argsort(-np.abs(row - 0.5), kind="stable")
        wrong = np.cumsum(((row > 0.5) != LABELS)[order])
        rates.append(wrong / np.arange(1, 41))
        distances = np.abs(row - 0.5)[order]
        ends.append(np.append(np.diff(distances) != 0, True))  # equally certain images are deferred together
    for coverage in (0.5, 0.75, 1.0):
        at = curve.coverage.index(coverage)
        assert curve.risk.mean[at] == pytest.approx(np.mean([one[int(coverage * 40) - 1] for one in rates]))
    for one in report.operating.deferral:
        kept = [
            max([0, *(np.flatnonzero(end & (rate <= one.risk)) + 1)]) for rate, end in zip(rates, ends, strict=True)
        ]
        assert one.deferred.per_seed == pytest.approx([1 - n / 40 for n in kept])
        if one.certainty is not None:
            certain = np.abs(table - 0.5) > one.certainty
            assert one.deferred_there.mean == pytest.approx(1 - certain.mean())
            wrong = ((table > 0.5) != LABELS) & certain
            assert one.risk_there.per_seed == pytest.approx((wrong.sum(axis=1) / certain.sum(axis=1)).tolist())


def test_the_seeds_as_one_model_have_the_metrics_of_their_mean(reported):
    """AUROC, F1 and log loss are scikit-learn's of the mean probability; one seed alone has no such model."""
    report, table, _ = reported
    mean, found = table.mean(axis=0), report.one_model.metrics
    assert found["auroc"].mean == pytest.approx(roc_auc_score(LABELS, mean))
    assert found["f1"].mean == pytest.approx(f1_score(LABELS, mean > 0.5))
    assert found["log_loss"].mean == pytest.approx(log_loss(LABELS, mean))
    assert found["auroc"].std is None
    assert found["auroc"].ci95[0] < found["auroc"].mean
    rows = dict(report_tables.tables(report))["The seeds as one model"]
    assert rows[0][4] == "mean of 3 seeds"


def test_a_single_seed_is_no_model_of_seeds(storage, study):
    """With one seed there is no mean of seeds, in the document and in the tables."""
    open_test(storage, study, seeds=(0,))
    retrain(storage, study, n_slots=1)
    report = build.build(storage, "tiny")
    assert report.one_model is None
    assert "The seeds as one model" not in dict(report_tables.tables(report))


def test_mhists_votes_give_the_ceiling_its_range_and_a_reader(storage, study):
    """The report of MHIST's votes has the published figures, says that the beta-binomial does not fit."""
    open_test(storage, study)
    votes = np.repeat(np.arange(8), MHIST_VOTES["test"])
    table = np.stack(list(retrain(storage, study, n_slots=3, votes=votes).values()))
    report = build.build(storage, "tiny")
    rows = {row[0]: row for row in dict(report_tables.tables(report))[ceiling.TITLE]}
    assert [rows[name][1] for name in ("AUROC", "accuracy", "F1")] == ["0.963", "0.892", "0.870"]
    assert rows["AUROC"][4] == "0.945 to 0.981"
    auroc = np.mean([roc_auc_score(votes >= 4, row) for row in table])
    part = (auroc - 0.5) / (report.ceiling.metrics["auroc"].mean - 0.5)
    assert "Of what the labels of 7 pathologists allow above chance (AUROC 0.963 " in report.result
    assert f"{part:.1%} has been reached" in report.result
    text = report_text.to_markdown(report, [])
    assert "It does not fit these votes, so the range is the number to go by." in text
    assert "Fleiss' kappa is 0.434" in text
    points = ceiling.points(report)
    assert points["one pathologist against the panel of 7"] == pytest.approx((0.174, 0.835), abs=5e-4)


def test_without_disagreement_there_is_no_ceiling(storage, study):
    """Labels whose votes are all unanimous have no ceiling, no reader and no sentence on it; the rest is there."""
    open_test(storage, study)
    retrain(storage, study, n_slots=2, votes=np.repeat([0, 7], 20))
    report = build.build(storage, "tiny")
    assert report.ceiling is None
    assert report.operating is not None
    assert ceiling.points(report) == {}
    assert "Ceiling" not in report_text.to_markdown(report, [])
    assert "allow above chance" not in report.result


def test_one_class_has_no_operating_points(storage, study):
    """A test partition of one class has no numbers of a model in use, and the report is still made."""
    open_test(storage, study)
    retrain(storage, study, n_slots=2, votes=np.repeat([0, 1], 10))
    report = build.build(storage, "tiny")
    assert (report.operating, report.ceiling) == (None, None)


def test_page_text_and_json_show_the_sections(reported, storage, tmp_path):
    """Each table is in Markdown and on the page with its notes, the figures are written, and the JSON is strict."""
    report, _, _ = reported
    written = files.write(storage, "tiny", tmp_path / "out", None, [0.1])
    page, text = ((tmp_path / "out" / name).read_text() for name in ("report.html", "report.md"))
    for title, _rows in operating_tables.tables(report.operating):
        assert f"## {title}" in text
        assert f">{title}</h2>" in page
    assert "they describe these images and are too good for others" in page
    assert "| 10.0% |" in text
    for name in ("net-benefit.png", "risk-coverage.png"):
        assert (tmp_path / "out" / name).stat().st_size > 5000
    document = json.loads((tmp_path / "out" / "report.json").read_text())
    assert document["operating"]["predictive_values"][0]["prevalence"] == 0.1
    assert document["ceiling"]["n_annotators"] == 7
    assert written.one_model.n_seeds == 3


def test_the_model_card_names_the_mean_of_the_seeds(reported):
    """The exported model is one seed; its card gives the AUROC of the mean of all beside its own."""
    report, _, _ = reported
    model = {"trial": 3, "seed": 0, "positive_class": "SSA", "negative_class": "HP", "threshold": 0.5}
    model |= {"threshold_source": "x", "weights_sha256": "0" * 64}
    model |= {"preprocessing": {"image_size": 8, "resize": "r", "mean": [0.5] * 3, "std": [0.5] * 3}}
    auroc = report.one_model.metrics["auroc"].mean
    assert f"all 3 seeds, which is not exported, has a test AUROC of {auroc:.4f}" in model_card.render(report, model)


@pytest.mark.parametrize("share", ["0", "1", "1.5", "many"])
def test_a_prevalence_is_between_0_and_1(run: Run, share: str) -> None:
    """A share of SSA that is none ends with 2 and says which values are possible."""
    code, _, err = run("report", "tiny", "--prevalence", share)
    assert code == 2
    assert "--prevalence" in err
