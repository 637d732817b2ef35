"""Two or more studies compared on the same test images, from stored probabilities alone."""

import functools
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from mhist_tune.errors import UsageError
from mhist_tune.mhist import MHIST_VOTES, N_TEST_IMAGES, N_TEST_SSA, THRESHOLD
from mhist_tune.report import compare_text, data_set, evidence, figures, html, inherited, sampling
from mhist_tune.report.comparison import Comparison, DescriptiveTests, Member, PrimaryTest, SeedTest
from mhist_tune.report.document import to_json
from mhist_tune.report.evidence import Evidence, NothingRetrainedError
from mhist_tune.report.parts import Failures
from mhist_tune.statistics import binary_metrics, by_votes, descriptive, paired, power, summaries
from mhist_tune.storage import studies, thumbnails
from mhist_tune.storage.database import Storage
from mhist_tune.storage.predictions import image_rows
from mhist_tune.writing import output_folder


def build(storage: Storage, names: Sequence[str]) -> Comparison:
    """Return the comparison of studies.

    Raises:
        StudyNotFoundError: no such study.
        UsageError: no retraining has finished, the test partitions differ, or one has a single class.
    """
    return _build(storage, _load(storage, names))


def write(storage: Storage, names: Sequence[str], folder: Path) -> Comparison:
    """Write compare.html, .md and .json; return the comparison. Errors are those of `build`.

    Raises:
        UsageError: the folder cannot be written, too.
    """
    members = _load(storage, names)
    comparison = _build(storage, members)
    drawn = figures.compared(members, comparison)
    failures = Failures()
    pictures = [
        failures.attempt(
            f"The sheet of misclassified images of {member.study}",
            functools.partial(
                thumbnails.read,
                thumbnails.path_of(storage, source.study),
                [mistake.image_name for mistake in member.mistakes],
            ),
        )
        or {}
        for source, member in zip(members, comparison.members, strict=True)
    ]
    page = html.render_comparison(comparison, drawn, pictures, failures.sentences)
    with output_folder(folder, "the comparison", hint="choose another folder: --output DIR"):
        (folder / "compare.html").write_text(page, encoding="utf-8")
        (folder / "compare.md").write_text(compare_text.to_markdown(comparison), encoding="utf-8")
        (folder / "compare.json").write_text(to_json(comparison) + "\n", encoding="utf-8")
    return comparison


def _load(storage: Storage, names: Sequence[str]) -> list[Evidence]:
    """Return the evidence of the studies; where nothing is retrained yet, the hint says what a comparison can show."""
    try:
        return evidence.load_all(storage, names)
    except NothingRetrainedError as error:
        study = studies.load_study(storage, names[0])
        n_train = sum(len(image_rows(storage, study, name).names) for name in ("train", "val"))
        if n_train != sum(MHIST_VOTES["train"]):
            raise
        expected = power.sentence(N_TEST_SSA, N_TEST_IMAGES - N_TEST_SSA, n_seeds=10)
        raise NothingRetrainedError(str(error), hint=f"{error.hint}; {expected}") from None


def _build(storage: Storage, members: Sequence[Evidence]) -> Comparison:
    names = [member.study.name for member in members]
    images = members[0].images
    if images.labels.sum() < 2 or (1 - images.labels).sum() < 2:
        raise UsageError("a comparison of AUROC needs at least two test images of each class")
    differences = paired.auroc_differences(
        images.labels, [member.probabilities for member in members], groups=images.groups
    )
    return Comparison(
        members=[_member(member) for member in members],
        test_fingerprint=members[0].opening.fingerprint,
        n_looks=len(members[0].looks),
        n_images=int(images.labels.size),
        data=data_set.document(storage, members[0]),
        resampled_by="image" if images.groups is None else "group",
        groups=sampling.groups_of(images.labels, images.groups),
        primary=[
            PrimaryTest(
                first=names[test.first],
                second=names[test.second],
                difference=test.estimate,
                se=test.se,
                ci95=test.ci95,
                p_value=test.p_value,
                p_holm=adjusted.p_value,
                ci_holm=adjusted.interval,
                detectable=test.detectable,
            )
            for test, adjusted in zip(differences, paired.holm(differences), strict=True)
        ],
        descriptive=[_descriptive(first, second) for first, second in combinations(members, 2)],
    )


def _member(member: Evidence) -> Member:
    images = member.images
    return Member(
        study=member.study.name,
        model=member.study.definition.hyperparameters(member.payload.params).model,
        trial=member.payload.trial,
        opening=member.opening.id,
        n_seeds=len(member.seeds),
        seeds=member.seeds,
        n_test_openings=sum(row.is_look for row in member.openings),
        number_format=data_set.number_format(member),
        inherited_choices=inherited.of_study(member.study, is_mhist=data_set.is_mhist(images)),
        auroc=summaries.summary(images.labels, member.probabilities, groups=images.groups, names=("auroc",))["auroc"],
        by_votes=by_votes.error_rates(
            images.votes, images.labels, member.probabilities, threshold=THRESHOLD, groups=images.groups
        ),
        mistakes=by_votes.mistakes(
            images.names, images.votes, images.labels, member.probabilities, threshold=THRESHOLD
        ),
    )


def _descriptive(first: Evidence, second: Evidence) -> DescriptiveTests:
    labels, groups = first.images.labels, first.images.groups
    rows = [dict(zip(member.seeds, member.probabilities, strict=True)) for member in (first, second)]
    shared = [seed for seed in first.seeds if seed in rows[1]]
    by_seed = {seed: descriptive.delong(labels, rows[0][seed], rows[1][seed], groups=groups) for seed in shared}
    aurocs = [[binary_metrics.metrics_of(labels, row[seed])["auroc"] for seed in shared] for row in rows]
    called = [member.probabilities.mean(axis=0) > THRESHOLD for member in (first, second)]
    return DescriptiveTests(
        first=first.study.name,
        second=second.study.name,
        delong=[SeedTest(seed, test.difference, test.se, test.p_value) for seed, test in by_seed.items()],
        wilcoxon_p=descriptive.wilcoxon(*aurocs) if len(shared) >= 6 and groups is None else None,
        mcnemar=descriptive.mcnemar(labels, *called, groups=groups),
    )
