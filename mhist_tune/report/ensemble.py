"""An ensemble of studies: the mean of their retrained models' stored test probabilities.

Members are joined on the name of an image, never on its position. Each member predicted with its own preprocessing when
it was retrained. So neither misaligned images nor a wrong normalization can occur.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mhist_tune.arrays import FloatArray
from mhist_tune.errors import UsageError
from mhist_tune.mhist import THRESHOLD
from mhist_tune.report import data_set, evidence, inherited
from mhist_tune.report.evidence import Evidence
from mhist_tune.statistics import summaries
from mhist_tune.statistics.summaries import MetricSummary
from mhist_tune.storage.database import Storage
from mhist_tune.words import counted, text_table

_METRICS = ("log_loss", "precision", "recall", "specificity", "f1", "accuracy", "auroc")


@dataclass(frozen=True)
class EnsembleMember:
    """A study in an ensemble; its metrics are over the common seeds, by name.

    Attributes:
        inherited_choices: on MHIST, how the study has each choice that the method report took from test results.
    """

    study: str
    trial: int
    opening: int
    n_test_openings: int
    inherited_choices: dict[str, str]
    metrics: dict[str, MetricSummary]


@dataclass(frozen=True)
class Ensemble:
    """An ensemble of two or more studies.

    Attributes:
        seeds: the seeds that all members have.
        per_seed: metrics of the mean over the members, one ensemble for each seed.
        over_seeds: metrics of the mean over members and seeds, one model.
        n_looks: how often the test images were opened, by all studies of the storage.
    """

    members: list[EnsembleMember]
    seeds: list[int]
    per_seed: dict[str, MetricSummary]
    over_seeds: dict[str, MetricSummary]
    n_images: int
    test_fingerprint: str
    n_looks: int


def build(storage: Storage, names: Sequence[str]) -> Ensemble:
    """Return the ensemble of two or more studies.

    Raises:
        StudyNotFoundError: no such study.
        UsageError: a study is named twice or has no finished retraining, the test partitions differ, or the members
            have no seed in common.
    """
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError("an ensemble takes two or more different studies", hint="mhist-tune studies lists them")
    members = [evidence.load(storage, name) for name in names]
    images = members[0].images
    _require_same_images(members)
    seeds = [seed for seed in members[0].seeds if all(seed in member.seeds for member in members)]
    if not seeds:
        raise UsageError(
            f"{', '.join(names)} have no seed in common", hint="retrain them with the same number of seeds: --n-seeds"
        )
    stacked = np.stack([_probabilities(member, seeds, images.names) for member in members])  # [members, S, n]
    per_seed = stacked.mean(axis=0)

    def summary(probabilities: FloatArray) -> dict[str, MetricSummary]:
        return summaries.summary(images.labels, probabilities, groups=images.groups)

    return Ensemble(
        members=[
            EnsembleMember(
                study=member.study.name,
                trial=member.payload.trial,
                opening=member.opening.id,
                n_test_openings=sum(row.is_look for row in member.openings),
                inherited_choices=inherited.of_study(member.study, is_mhist=data_set.is_mhist(images)),
                metrics=summary(probabilities),
            )
            for member, probabilities in zip(members, stacked, strict=True)
        ],
        seeds=seeds,
        per_seed=summary(per_seed),
        over_seeds=summary(per_seed.mean(axis=0, keepdims=True)),
        n_images=len(images.names),
        test_fingerprint=members[0].opening.fingerprint,
        n_looks=len(members[0].looks),
    )


def to_text(ensemble: Ensemble) -> str:
    """Return an ensemble as text: each member, the ensemble of each seed, and the ensemble of all."""
    models = [(member.study, member.metrics) for member in ensemble.members]
    models += [("ensemble of each seed", ensemble.per_seed), ("ensemble of all seeds", ensemble.over_seeds)]
    rows = [["", *_METRICS], *([title, *(_cell(metrics[name]) for name in _METRICS)] for title, metrics in models)]
    seeds = counted(len(ensemble.seeds), "seed")
    lines = [f"{len(ensemble.members)} members, {seeds}, {ensemble.n_images} test images", "", *text_table(rows)]
    low_high = ensemble.over_seeds["auroc"].ci95
    lines += [
        "",
        "Probabilities are averaged, image by image. Mean +- standard deviation over the seeds, "
        f"threshold {THRESHOLD}.",
    ]
    if low_high is not None:
        lines.append(
            f"AUROC of the ensemble of all seeds: 95% interval {low_high[0]:.4f} to {low_high[1]:.4f} (images)."
        )
    lines.append(f"These test images were opened {counted(ensemble.n_looks, 'time')} in this storage.")
    lines += inherited.of_members({member.study: member.inherited_choices for member in ensemble.members})
    lines.append("Members chosen after a look at their test results make this number optimistic.")
    return "\n".join(lines)


def _require_same_images(members: Sequence[Evidence]) -> None:
    first, *others = members
    truth = dict(zip(first.images.names, first.images.labels.tolist(), strict=True))
    for other in others:
        same = dict(zip(other.images.names, other.images.labels.tolist(), strict=True)) == truth
        if not same or other.opening.fingerprint != first.opening.fingerprint:
            raise UsageError(
                f"{first.study.name} and {other.study.name} were tested on different test partitions",
                hint="only models that predicted the very same images can be averaged",
            )


def _probabilities(member: Evidence, seeds: Sequence[int], names: Sequence[str]) -> FloatArray:
    """Return [S, n] of a member, in the order of `seeds` and of the image `names`."""
    position = {name: index for index, name in enumerate(member.images.names)}
    rows = [member.seeds.index(seed) for seed in seeds]
    chosen: FloatArray = member.probabilities[np.ix_(rows, [position[name] for name in names])]
    return chosen


def _cell(metric: MetricSummary) -> str:
    if metric.mean is None:
        return "-"
    return f"{metric.mean:.3f}" + ("" if metric.std is None else f" +- {metric.std:.3f}")
