"""The figures of a report and of a comparison. Each is drawn once, for the page and as a file."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from mhist_tune.definition.scores import SCORE_NAMES
from mhist_tune.plots import canvas, decisions, model_comparison, predictions, search
from mhist_tune.report import ceiling
from mhist_tune.report.comparison import Comparison
from mhist_tune.report.document import Report
from mhist_tune.report.evidence import Evidence
from mhist_tune.report.parts import attempt
from mhist_tune.search.trials import Trial
from mhist_tune.statistics.roc import RocBand, roc_band
from mhist_tune.storage.database import Storage
from mhist_tune.storage.epochs import EpochRow, epochs_of
from mhist_tune.storage.stages import Stage

_CURVES = ("train_loss", "val_loss", "val_f1", "val_auroc")


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its name (of its file, and of its place on the page), title and caption."""

    name: str
    title: str
    caption: str
    figure: Figure

    def write(self, folder: Path) -> None:
        """Write `NAME.png`."""
        path = folder / f"{self.name}.png"
        attempt(
            lambda: canvas.write_png(self.figure, path),
            lambda reason: canvas.write_png(canvas.message(f"{self.title}\n{reason}"), path),
        )

    def svg(self) -> str:
        """Return the figure as an SVG element."""
        return attempt(
            lambda: canvas.inline_svg(self.figure, f"{self.title}. {self.caption}"),
            lambda reason: canvas.inline_svg(canvas.message(f"{self.title}\n{reason}"), f"{self.title} {reason}"),
        )


@dataclass(frozen=True)
class Sources:
    """The records that the figures of a report are drawn from.

    Attributes:
        roc: None where the test images are of one class.
        chosen: the retrained trial's search epochs; empty where they are not known.
        retrained: the epochs of each seed.
    """

    report: Report
    evidence: Evidence
    roc: RocBand | None
    chosen: Sequence[EpochRow]
    retrained: Sequence[Sequence[EpochRow]]


@dataclass(frozen=True)
class _Entry:
    """A figure of a report.

    Attributes:
        caption: may name fields of the report, as `str.format` reads them.
        draw: makes the figure.
        needs: returns whether there is something to draw.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Sources], Figure]
    needs: Callable[[Sources], bool] = lambda _: True


def sources(storage: Storage, report: Report, evidence: Evidence, searched: Sequence[Trial]) -> Sources:
    """Return what the figures of a report are drawn from, computed once for all that draw it."""
    labels = evidence.images.labels
    return Sources(
        report=report,
        evidence=evidence,
        roc=roc_band(labels, evidence.probabilities) if 0 < labels.sum() < labels.size else None,
        chosen=next((trial.epochs for trial in searched if trial.number == report.trial.number), ()),
        retrained=[epochs_of(storage, evidence.study, Stage.RETRAIN, slot.slot) for slot in evidence.slots],
    )


def draw(inputs: Sources) -> list[ReportFigure]:
    """Return the figures that the records allow, in the order of the report."""
    return [
        _drawn(
            entry.name, entry.title, entry.caption.format(report=inputs.report), functools.partial(entry.draw, inputs)
        )
        for entry in _FIGURES
        if entry.needs(inputs)
    ]


def _drawn(name: str, title: str, caption: str, draw: Callable[[], Figure]) -> ReportFigure:
    """Return a figure or, if it cannot be drawn, a figure that says so."""
    return attempt(
        lambda: ReportFigure(name, title, caption, draw()),
        lambda reason: ReportFigure(name, title, f"{title} {reason}.", canvas.message(f"{title}\n{reason}")),
    )


def _roc(inputs: Sources) -> Figure:
    assert inputs.roc is not None
    of_votes = inputs.report.ceiling
    return predictions.roc(inputs.roc, of_votes.curve if of_votes else None, ceiling.points(inputs.report))


def _decision_curve(inputs: Sources) -> Figure:
    assert inputs.report.operating is not None
    return decisions.decision_curve(inputs.report.operating.net_benefit)


def _risk_coverage(inputs: Sources) -> Figure:
    assert inputs.report.operating is not None
    return decisions.risk_coverage(inputs.report.operating.risk_coverage)


def _calibration(inputs: Sources) -> Figure:
    assert inputs.report.held_out is not None
    curves = inputs.report.held_out.reliability
    return predictions.reliability({name.replace("_", "-"): bins for name, bins in curves.items()})


def _learning(inputs: Sources) -> Figure:
    curves = {name: [row.metrics.get(name) for row in inputs.chosen] for name in _CURVES} if inputs.chosen else {}
    losses = [[row.metrics.get("train_loss") for row in epochs] for epochs in inputs.retrained]
    return search.learning_curves(curves, losses)


def _history(inputs: Sources) -> Figure:
    scored = [(trial, trial.value) for trial in inputs.report.search.history if trial.value is not None]
    return search.history(
        [trial.number for trial, _ in scored],
        [value for _, value in scored],
        [trial.state for trial, _ in scored],
        inputs.report.trial.number,
        ylabel=_value_name(inputs),
    )


def _value_name(inputs: Sources) -> str:
    best = "best " if inputs.report.at == "best" else ""
    return f"{best}validation {SCORE_NAMES[inputs.report.score]}"


_FIGURES = (
    _Entry(
        "roc",
        "ROC on the test partition",
        "Mean over seeds, with a band from the lowest to the highest seed. Where votes disagree: the curve of a model "
        "that knew each image's true share of annotators (beta-binomial), and one annotator as a point.",
        _roc,
        needs=lambda inputs: inputs.roc is not None,
    ),
    _Entry(
        "precision-recall",
        "Precision and recall on the test partition",
        "Precision depends on the share of SSA, here the dotted line.",
        lambda inputs: predictions.precision_recall(inputs.evidence.images.labels, inputs.evidence.probabilities),
        needs=lambda inputs: inputs.roc is not None,
    ),
    _Entry(
        "calibration",
        "Calibration on the test partition",
        "Ten bins of equally many images, of the seeds' mean probability. Recalibrated on held-out images; "
        "prior-corrected uses the test partition's own share of SSA, which is not known in practice.",
        _calibration,
        needs=lambda inputs: inputs.report.held_out is not None,
    ),
    _Entry(
        "net-benefit",
        "Decision curve on the test partition",
        "Net benefit of a true SSA image found; false ones cost t / (1 - t) at the threshold probability t. Of use "
        "where it is above calling all SSA and none. 95% intervals.",
        _decision_curve,
        needs=lambda inputs: inputs.report.operating is not None,
    ),
    _Entry(
        "risk-coverage",
        "Risk against coverage on the test partition",
        "Images with a probability near 0.5 are deferred first; the error rate is that of the others. 95% intervals.",
        _risk_coverage,
        needs=lambda inputs: inputs.report.operating is not None,
    ),
    _Entry(
        "votes",
        "Error rate by agreement of the annotators",
        "Bars with 95% intervals: share of misclassified images at 0.5. "
        "Diamonds: share of {report.data.annotator}s who voted against the majority of the other six; a tie of these "
        "counts half.",
        lambda inputs: predictions.error_rates(inputs.report.by_votes),
    ),
    _Entry(
        "learning",
        "Learning curves",
        "The retrained seeds see the whole train partition and no validation images.",
        _learning,
    ),
    _Entry(
        "history",
        "Search history",
        "The value of each trial. The highest of many noisy scores is optimistic.",
        _history,
        needs=lambda inputs: any(trial.value is not None for trial in inputs.report.search.history),
    ),
    _Entry(
        "importance",
        "Hyperparameter importance",
        "All {report.search.importance.n_trials} trials compared after {report.search.importance.epoch} epochs; "
        "90% intervals.",
        lambda inputs: search.importance(inputs.report.search.importance.shares, SCORE_NAMES[inputs.report.score]),
        needs=lambda inputs: bool(inputs.report.search.importance.shares),
    ),
)


def compared(members: Sequence[Evidence], comparison: Comparison) -> list[ReportFigure]:
    """Return the figures of a comparison; both classes are among the test images."""
    labels = members[0].images.labels
    pairs = {f"{pair.first} − {pair.second}": (pair.difference, pair.ci_holm) for pair in comparison.primary}
    return [
        _drawn(
            "roc",
            "ROC on the test partition",
            "For each model the mean over its seeds, with a band from the lowest to the highest seed.",
            lambda: model_comparison.roc(
                {member.study.name: roc_band(labels, member.probabilities) for member in members}
            ),
        ),
        _drawn(
            "auroc",
            "AUROC of every seed",
            "Each dot is a seed; the diamond is their mean, with its 95% interval over images and seeds.",
            lambda: model_comparison.seeds({member.study: member.auroc for member in comparison.members}),
        ),
        _drawn(
            "differences",
            "Differences of AUROC",
            "First minus second with the interval by Holm, which is the 95% interval where there is one pair, images "
            "paired. One that holds 0 shows no difference.",
            lambda: model_comparison.differences(pairs),
        ),
        _drawn(
            "votes",
            "Error rate by agreement of the annotators",
            "Share of misclassified images at 0.5, with 95% intervals, and of "
            f"{comparison.data.annotator}s against the majority of the other six; a tie of these counts half.",
            lambda: model_comparison.error_rates({member.study: member.by_votes for member in comparison.members}),
        ),
    ]
