"""The tables of a report as rows of text: metrics, calibration, finalists, votes and seeds."""

from mhist_tune.definition.scores import SCORE_NAMES
from mhist_tune.mhist import N_ANNOTATORS, THRESHOLD
from mhist_tune.report import about, ceiling, confirmation, one_model, operating_tables, sampling
from mhist_tune.report.confirmation import Confirmed
from mhist_tune.report.document import Report
from mhist_tune.report.threshold import FixedThreshold
from mhist_tune.statistics import by_votes
from mhist_tune.statistics.calibration_on_test import CalibrationOnTest
from mhist_tune.statistics.summaries import MetricSummary
from mhist_tune.words import Rows, change, interval, number

TABLE_COLUMNS = (
    ("Loss", "log_loss"),
    ("Precision", "precision"),
    ("Recall", "recall"),
    ("Specificity", "specificity"),
    ("F1", "f1"),
    ("Accuracy", "accuracy"),
    ("AUROC", "auroc"),
)
REFERENCES_TITLE = "Beside published results"
_METRIC_NAMES = {"auroc": "AUROC", "auprc": "AUPRC", "f1": "F1", "brier": "Brier score", "ece": "calibration error"}


def tables(report: Report) -> list[tuple[str, Rows]]:
    """Return the report's tables with their titles; the first row of each is its head."""
    titled = [
        ("Metrics on the test partition", metric_rows(report)),
    ]
    if table := sampling.rows(report.sampling, report.metrics):
        titled.append(table)
    if report.ceiling:
        titled.append((ceiling.TITLE, ceiling.rows(report.ceiling)))
        titled.append((ceiling.READER_TITLE, ceiling.reader_rows(report.ceiling)))
    if report.one_model:
        titles = {name: _title(name) for name in report.metrics}
        titled.append((one_model.TITLE, one_model.rows(report.one_model, report.metrics, titles)))
    if report.operating:
        titled += operating_tables.tables(report.operating)
    if report.gain and report.gain.difference:
        titled.append(("Against the study's default", gain_rows(report)))
    if report.calibration:
        titled.append(
            (
                "Calibration slope and intercept on the test partition",
                slope_rows(report.calibration, report.metrics["ece"]),
            )
        )
    if report.held_out:
        titled.append(("Calibration", calibration_rows(report.held_out)))
    if report.confirm:
        titled.append(("Finalists of the search, out of fold", confirm_rows(report.confirm)))
    return [
        *titled,
        ("Error rates by votes", vote_rows(report)),
        (f"Each seed, at {THRESHOLD}", seed_rows(report)),
        *([(REFERENCES_TITLE, reference_rows(report))] if report.references else []),
        (about.TITLE, about.rows(report.about)),
    ]


def notes(report: Report) -> dict[str, list[str]]:
    """Return how to read the tables that need it, in sentences by the table's title."""
    found = dict(operating_tables.notes(report.operating)) if report.operating else {}
    if report.ceiling:
        found[ceiling.TITLE] = ceiling.notes(report.ceiling)
        found[ceiling.READER_TITLE] = ceiling.reader_notes(report.ceiling)
    if report.one_model:
        found[one_model.TITLE] = one_model.notes(report.one_model)
    return found


def seed_rows(report: Report) -> Rows:
    """Return the method report's columns for each seed, mean and standard deviation."""
    chosen = [report.metrics[name] for _, name in TABLE_COLUMNS]
    return [
        ["", *(title for title, _ in TABLE_COLUMNS)],
        *(
            [f"seed {seed}", *(number(metric.per_seed[index]) for metric in chosen)]
            for index, seed in enumerate(report.seeds)
        ),
        ["mean", *(number(metric.mean) for metric in chosen)],
        ["std", *(number(metric.std) for metric in chosen)],
    ]


def reference_rows(report: Report) -> Rows:
    """Return this study beside published results on the same test images."""
    metrics = report.metrics
    auroc, balanced = metrics["auroc"], metrics["balanced_accuracy"]
    found = number(balanced.mean) + ("" if balanced.ci95 is None else f" ({interval(balanced.ci95)})")
    rows = [
        ["", "model", "trained", "runs", "AUROC", "balanced accuracy", "F1", "accuracy", "remark"],
        [
            "this study",
            report.model,
            "",
            str(report.n_seeds),
            _with_std(auroc.mean, auroc.std),
            found,
            number(metrics["f1"].mean),
            number(metrics["accuracy"].mean),
            "balanced accuracy with its 95% interval; at 0.5",
        ],
    ]
    for other in report.references:
        source = other.source if other.year is None else f"{other.source}, {other.year}"
        scores = [
            _with_std(other.auroc, other.auroc_std),
            number(other.balanced_accuracy)
            + ("" if other.balanced_accuracy_std is None else f" ± {number(other.balanced_accuracy_std)}"),
            number(other.f1),
            number(other.accuracy),
        ]
        runs = "-" if other.n_seeds is None else str(other.n_seeds)
        rows.append([source, other.model, other.training, runs, *scores, other.remark])
    return rows


def metric_rows(report: Report) -> Rows:
    """Return every metric at 0.5 and, where it depends on one, at the threshold fixed on held-out images."""
    held_out = report.held_out
    head = ["metric", "mean", "std", "95% interval"]
    if held_out:
        head += [f"at {held_out.threshold:.3f}", "95% interval"]
    rows = [head]
    for name, metric in report.metrics.items():
        row = [_title(name), number(metric.mean), number(metric.std), interval(metric.ci95)]
        if held_out:
            there = held_out.metrics.get(name)
            row += [number(there.mean), interval(there.ci95)] if there else ["", ""]
        rows.append(row)
    return rows


def slope_rows(calibration: CalibrationOnTest, ece: MetricSummary) -> Rows:
    """Return slope, intercept and error of the raw probabilities on the test images, beside a perfect model's."""
    rows = [["", "perfect", "mean", "std", "95% interval"]]
    for title, perfect, found in (
        ("slope", "1", calibration.slope),
        ("intercept with slope 1 (in the large)", "0", calibration.intercept),
    ):
        rows.append([title, perfect, number(found.mean), number(found.std), interval(found.ci95)])
    return [*rows, ["calibration error", number(calibration.ece_floor), number(ece.mean), number(ece.std), "-"]]


def calibration_rows(held_out: FixedThreshold) -> Rows:
    """Return log loss, Brier score and calibration error of raw and of corrected probabilities."""
    rows = [["probabilities", "log loss", "95% interval", "Brier score", "95% interval", "calibration error"]]
    names = {
        "raw": "raw",
        "recalibrated": "recalibrated on held-out images",
        "prior_corrected": "prior-corrected (uses the test share of SSA)",
    }
    for name, metrics in held_out.calibration.items():
        proper = [metrics["log_loss"], metrics["brier"]]
        cells = [cell for metric in proper for cell in (number(metric.mean), interval(metric.ci95))]
        rows.append([names[name], *cells, number(metrics["ece"].mean)])
    return rows


def gain_rows(report: Report) -> Rows:
    """Return the chosen trial beside the study's default on the test images, and the differences of AUROC and F1."""
    gain, names = report.gain, ("auroc", "auprc", "f1", "balanced_accuracy")
    assert gain is not None
    assert gain.metrics is not None
    assert gain.difference is not None
    assert gain.difference_f1 is not None
    rows = [["", "seeds", *map(_title, names)]]
    for title, n_seeds, metrics in (
        (f"chosen, trial {report.trial.number}", report.n_seeds, report.metrics),
        (f"default, trial {gain.default}", gain.n_seeds, gain.metrics),
    ):
        cells = [_with_std(metrics[name].mean, metrics[name].std) for name in names]
        rows.append([title, str(n_seeds), *cells])
    auroc, f1 = (change(difference.estimate, difference.ci95) for difference in (gain.difference, gain.difference_f1))
    return [*rows, ["difference, 95% interval", "", auroc, "", f1, ""]]


def confirm_rows(confirmed: Confirmed) -> Rows:
    """Return the finalists with their results in the search and out of fold."""
    score, others = SCORE_NAMES[confirmed.score], confirmation.beside(confirmed.score)
    head = ["trial", f"{score} in the search", f"{score} out of fold", "95% interval"]
    rows = [[*head, *(SCORE_NAMES[other] for other in others), "epochs", "chosen in resamples"]]
    for trial in confirmed.finalists:
        name = f"{trial.trial}" + (", the default" if trial.is_default else "")
        scores = [number(trial.search_value), number(trial.of(confirmed.score)), interval(trial.ci95)]
        scores += [number(trial.of(other)) for other in others]
        rows.append([name, *scores, str(trial.stop_epoch), f"{trial.selected:.0%}"])
    return rows


def vote_rows(report: Report) -> Rows:
    """Return the error rate for each number of votes and for all images, beside each annotator's."""
    whole, accuracy = by_votes.overall(report.by_votes), report.metrics["accuracy"].ci95
    of_errors = None if accuracy is None else (1 - accuracy[1], 1 - accuracy[0])
    return [
        [
            "votes for SSA",
            "images",
            "error rate",
            "95% interval",
            f"each {report.data.annotator} against the other six",
        ],
        *(
            [
                f"{rate.votes} of {N_ANNOTATORS}",
                str(rate.n_images),
                number(rate.error_rate),
                interval(rate.ci95),
                number(rate.human_error_rate),
            ]
            for rate in report.by_votes
        ),
        [
            "all",
            str(whole.n_images),
            number(whole.error_rate),
            interval(of_errors),
            number(whole.human_error_rate),
        ],
    ]


def _title(metric: str) -> str:
    return _METRIC_NAMES.get(metric, metric.replace("_", " "))


def _with_std(mean: float | None, std: float | None) -> str:
    return number(mean, 4) if std is None else f"{number(mean, 4)} ± {number(std, 4)}"
