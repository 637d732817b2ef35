"""Which figures a report and a comparison have: each drawn once, for the page and as a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mhist_tune import canvas, comparison_plots, plots, search_plots
from mhist_tune.calibration import ReliabilityBin
from mhist_tune.epochs import epochs_of
from mhist_tune.evidence import Evidence
from mhist_tune.stages import Stage
from mhist_tune.storage import Storage
from mhist_tune.trials import Trial

_CURVES = ("train_loss", "val_loss", "val_f1", "val_auroc")


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its name (of its file, and of its place on the page), title and what is to be seen in it."""

    name: str
    title: str
    caption: str
    figure: Figure

    def write(self, folder: Path) -> None:
        """Write `NAME.png`."""
        canvas.write_png(self.figure, folder / f"{self.name}.png")

    def svg(self) -> str:
        """Return it as an SVG element."""
        return canvas.inline_svg(self.figure, f"{self.title}. {self.caption}")


def draw(
    storage: Storage, document: Mapping[str, Any], found: Evidence, searched: Sequence[Trial]
) -> list[ReportFigure]:
    """Return the figures that the records allow, in the order of the report."""
    labels = found.images.labels
    drawn = []
    if 0 < labels.sum() < labels.size:  # of one class there is neither curve
        drawn += [
            ReportFigure(
                "roc",
                "ROC on the test partition",
                "Mean over seeds, with a band from the lowest to the highest seed.",
                plots.roc(labels, found.probabilities),
            ),
            ReportFigure(
                "precision-recall",
                "Precision and recall on the test partition",
                "Precision depends on the share of SSA, here the dotted line.",
                plots.precision_recall(labels, found.probabilities),
            ),
        ]
    if document["held_out"]:
        bins = {
            name.replace("_", "-"): [ReliabilityBin(**one) for one in curve]
            for name, curve in document["held_out"]["reliability"].items()
        }
        drawn.append(
            ReportFigure(
                "calibration",
                "Calibration on the test partition",
                "Ten bins of equally many images, of the seeds' mean probability. Recalibrated on held-out images; "
                "prior-corrected uses the test partition's own share of SSA, which is not known in practice.",
                plots.reliability(bins),
            )
        )
    drawn.append(
        ReportFigure(
            "votes",
            "Error rate by agreement of the seven pathologists",
            "Bars with 95% intervals: share of misclassified images at 0.5. "
            "Diamonds: share of pathologists who voted against the majority.",
            plots.error_rates(document["by_votes"]),
        )
    )
    epochs = [epochs_of(storage, found.study, Stage.RETRAIN, slot.slot) for slot in found.slots]
    chosen = next((trial for trial in searched if trial.number == document["trial"]["number"]), None)
    curves = {name: [row.metrics.get(name) for row in chosen.epochs] for name in _CURVES} if chosen else {}
    drawn.append(
        ReportFigure(
            "learning",
            "Learning curves",
            "The retrained seeds see the whole train partition and no validation images.",
            search_plots.learning_curves(curves, [[row.metrics.get("train_loss") for row in one] for one in epochs]),
        )
    )
    shown = [one for one in document["search"]["history"] if one["value"] is not None]
    if shown:
        drawn.append(
            ReportFigure(
                "history",
                "Search history",
                "Best validation F1 of each trial. The highest of many noisy scores is optimistic.",
                search_plots.history(
                    [one["number"] for one in shown],
                    [one["value"] for one in shown],
                    [one["state"] for one in shown],
                    document["trial"]["number"],
                ),
            )
        )
    importance = document["search"]["importance"]
    if importance["shares"]:
        drawn.append(
            ReportFigure(
                "importance",
                "Hyperparameter importance",
                f"All {importance['n_trials']} trials compared after {importance['epoch']} epochs; 90% intervals.",
                search_plots.importance(importance["shares"]),
            )
        )
    return drawn


def compared(members: Sequence[Evidence], document: Mapping[str, Any]) -> list[ReportFigure]:
    """Return the figures of a comparison; `document` is that of `compare.build`, both classes are present."""
    names = [one.study.name for one in members]
    labels, tables = members[0].images.labels, [one.probabilities for one in members]
    pairs = {f"{one['first']} − {one['second']}": (one["difference"], *one["ci95"]) for one in document["primary"]}
    return [
        ReportFigure(
            "roc",
            "ROC on the test partition",
            "For each model the mean over its seeds, with a band from the lowest to the highest seed.",
            comparison_plots.roc(labels, dict(zip(names, tables, strict=True))),
        ),
        ReportFigure(
            "auroc",
            "AUROC of every seed",
            "Each dot is a seed; the diamond is their mean, with its 95% interval over images and seeds.",
            comparison_plots.seeds({one["study"]: one["auroc"] for one in document["members"]}),
        ),
        ReportFigure(
            "differences",
            "Differences of AUROC",
            "First minus second with a 95% interval, images paired. One that holds 0 shows no difference.",
            comparison_plots.differences(pairs),
        ),
        ReportFigure(
            "votes",
            "Error rate by agreement of the seven pathologists",
            "Share of misclassified images at 0.5, with 95% intervals, and of pathologists against the majority.",
            comparison_plots.error_rates({one["study"]: one["by_votes"] for one in document["members"]}),
        ),
    ]
