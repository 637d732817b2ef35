"""The seeds of a study as one model: the mean of their probabilities, beside single seeds."""

from dataclasses import dataclass

from mhist_tune.report.evidence import Evidence
from mhist_tune.statistics import summaries
from mhist_tune.statistics.summaries import MetricSummary
from mhist_tune.words import Rows, counted, interval, number

TITLE = "The seeds as one model"


@dataclass(frozen=True)
class OneModel:
    """The mean probability over the seeds, as one model.

    Attributes:
        n_seeds: that are averaged.
        metrics: at 0.5, by name. The intervals are over images or groups only: there is one such model.
    """

    n_seeds: int
    metrics: dict[str, MetricSummary]


def document(evidence: Evidence) -> OneModel | None:
    """Return the seeds as one model; None for a single seed."""
    n_seeds = len(evidence.seeds)
    if n_seeds < 2:
        return None
    mean = evidence.probabilities.mean(axis=0, keepdims=True)
    images = evidence.images
    return OneModel(n_seeds, summaries.summary(images.labels, mean, groups=images.groups))


def rows(one: OneModel, single: dict[str, MetricSummary], title_of: dict[str, str]) -> Rows:
    """Return every metric of single seeds and of the one model.

    Args:
        one: the seeds as one model.
        single: the metrics over the seeds, by name.
        title_of: the title of each metric.
    """
    head = ["metric", "single seeds: mean", "std", "95% interval", f"mean of {one.n_seeds} seeds", "95% interval"]
    return [
        head,
        *(
            [
                title_of[name],
                number(of_seeds.mean),
                number(of_seeds.std),
                interval(of_seeds.ci95),
                number(one.metrics[name].mean),
                interval(one.metrics[name].ci95),
            ]
            for name, of_seeds in single.items()
        ),
    ]


def notes(one: OneModel) -> list[str]:
    """Return how to read the table, in a sentence each."""
    return [
        f"One model averages the probabilities of {counted(one.n_seeds, 'seed')}, image by image. It costs as many "
        "times the computation of a single seed and is another model than the one that is exported.",
        "Its interval is over the images only. That of single seeds includes the variation between seeds.",
    ]


def sentence(one: OneModel | None) -> str | None:
    """Return the AUROC of the one model, for the model card; None where there is none."""
    if one is None or one.metrics["auroc"].mean is None:
        return None
    return (
        f"The mean of the probabilities of all {one.n_seeds} seeds, which is not exported, has a test AUROC of "
        f"{number(one.metrics['auroc'].mean, 4)} (95% interval {interval(one.metrics['auroc'].ci95, 4)}, over images)."
    )
