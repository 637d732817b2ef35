"""A comparison of studies as text, as tables, and as Markdown."""

from collections.abc import Sequence

from mhist_tune.mhist import N_ANNOTATORS, THRESHOLD
from mhist_tune.report import data_set, inherited, sampling
from mhist_tune.report.comparison import Comparison, DescriptiveTests, Member, PrimaryTest, SeedTest
from mhist_tune.statistics import by_votes
from mhist_tune.statistics.paired import MIN_GROUPS
from mhist_tune.words import Rows, change, counted, interval, markdown_table, number, p_value, text_table


def headline(comparison: Comparison) -> str:
    """Return the names of the compared studies and the number of images."""
    *others, last = [member.study for member in comparison.members]
    return f"{', '.join(others)} and {last} on the same {comparison.n_images} test images"


def to_text(comparison: Comparison) -> str:
    """Return a comparison as text: the models, the primary test of each pair, and the descriptive tests."""
    members = comparison.members
    width = max(len(member.study) for member in members)
    lines = [f"{len(members)} models on the same {comparison.n_images} test images", ""]
    for member in members:
        auroc = member.auroc
        std = "" if auroc.std is None else f" +- {auroc.std:.4f} over {member.n_seeds} seeds"
        lines.append(
            f"  {member.study.ljust(width)}  trial {member.trial}  AUROC {number(auroc.mean, 4)}{std}, "
            f"95% interval {interval(auroc.ci95, 4)}"
        )
    lines += ["", "Primary test: difference of seed-mean AUROC, images paired, seeds resampled for each model"]
    for pair in comparison.primary:
        lines += [
            f"  {pair.first} - {pair.second}: {change(pair.difference, pair.ci95)}, p = {p_value(pair.p_value)}; "
            f"by Holm {change(pair.difference, pair.ci_holm)}, p = {p_value(pair.p_holm)}",
            f"    {verdict(pair)}",
        ]
    lines += ["", "Descriptive only: these take the test images, or the trained models, as given"]
    lines += [f"  {pair.first} - {pair.second}: {_described(pair)}" for pair in comparison.descriptive]
    lines += [
        "",
        f"Share of misclassified images at {THRESHOLD} by votes for SSA, and each {comparison.data.annotator}'s "
        "against the other six",
    ]
    lines += [f"  {line}" for line in text_table(_vote_cells(members))]
    lines += ["", *caveats(comparison)]
    return "\n".join(lines)


def verdict(pair: PrimaryTest) -> str:
    """Return the result of the primary test of one pair in one sentence."""
    if pair.p_holm is None:
        return f"not tested, because fewer than {MIN_GROUPS} groups hold a class"
    smallest = f"smallest difference found with 80% power here: {number(pair.detectable, 4)}"
    if pair.p_holm < 0.05:
        better = pair.first if pair.difference > 0 else pair.second
        return f"{better} has the higher AUROC ({smallest})"
    return f"no difference shown, which is no proof of equality ({smallest})"


def caveats(comparison: Comparison) -> list[str]:
    """Return the caveats that are needed to read the comparison."""
    if comparison.groups is None:
        sentences = [
            "Intervals resample images, which count as independent, and seeds; they hold for these configurations, not "
            "for whole searches."
        ]
    else:
        sentences = [
            f"Intervals come from a jackknife over {sampling.counts(comparison.groups)}, and from the variation of the "
            "seeds; they hold for these configurations, not for whole searches.",
            "DeLong's and McNemar's tests are the versions for grouped images. Wilcoxon's is not given: it takes the "
            "test images as given.",
        ]
    if len(comparison.primary) > 1:
        sentences.append(
            "The intervals by Holm have the level at which Holm's procedure tests the pair: they exclude 0 exactly if "
            "p (Holm) is below 0.05. The 95% intervals and p are not adjusted for the number of pairs."
        )
    single = [member.study for member in comparison.members if member.n_seeds == 1]
    if single:
        sentences.append(
            f"One seed only: {', '.join(single)}; the test does not include the variation between its seeds."
        )
    sentences.append(
        f"These test images were opened {counted(comparison.n_looks, 'time')} in this storage; each look after the "
        "first weakens the result."
    )
    formats = {member.study: member.number_format for member in comparison.members}
    if len(set(formats.values())) > 1:
        listed = ", ".join(f"{study} in {name or 'one that is not recorded'}" for study, name in formats.items())
        sentences.append(f"The number formats of the trainings differ, which can change results: {listed}.")
    sentences += data_set.sentences(comparison.data)
    sentences += inherited.of_members({member.study: member.inherited_choices for member in comparison.members})
    again = [member for member in comparison.members if member.n_test_openings > 1]
    sentences += [f"{member.study} opened the test partition {member.n_test_openings} times." for member in again]
    return sentences


def tables(comparison: Comparison) -> list[tuple[str, Rows]]:
    """Return the comparison's tables with their titles; the first row of each is its head."""
    return [
        ("Models", _model_rows(comparison)),
        ("Primary test: difference of seed-mean AUROC", _primary_rows(comparison)),
        ("Error rates by votes", _vote_rows(comparison)),
        (
            "Descriptive tests: they take the test images, or the trained models, as given",
            _descriptive_rows(comparison),
        ),
    ]


def to_markdown(comparison: Comparison) -> str:
    """Return a comparison as Markdown."""
    parts = [f"# {headline(comparison)}", *(f"{sentence}." for sentence in verdicts(comparison))]
    for title, rows in tables(comparison):
        parts += [f"## {title}", "\n".join(markdown_table(rows))]
    parts += ["## What limits these numbers", "\n".join(f"- {sentence}" for sentence in caveats(comparison))]
    return "\n\n".join(parts) + "\n"


def verdicts(comparison: Comparison) -> list[str]:
    """Return the result of the primary test of each pair, with the names of both studies, in one sentence each."""
    return [
        f"{_pair(pair)}: AUROC {change(pair.difference, pair.ci_holm)}; {verdict(pair)}" for pair in comparison.primary
    ]


def _model_rows(comparison: Comparison) -> Rows:
    rows = [["study", "model", "trial", "seeds", "AUROC", "std", "95% interval"]]
    for member in comparison.members:
        auroc = member.auroc
        cells = [number(auroc.mean, 4), number(auroc.std, 4), interval(auroc.ci95, 4)]
        rows.append([member.study, member.model, str(member.trial), str(member.n_seeds), *cells])
    return rows


def _primary_rows(comparison: Comparison) -> Rows:
    head = ["first − second", "difference (95% interval)", "p", "interval by Holm", "p (Holm)"]
    rows = [[*head, "smallest found with 80% power"]]
    for pair in comparison.primary:
        alone = [change(pair.difference, pair.ci95), p_value(pair.p_value)]
        adjusted = ["-" if pair.ci_holm is None else "{:+.4f} to {:+.4f}".format(*pair.ci_holm), p_value(pair.p_holm)]
        rows.append([_pair(pair), *alone, *adjusted, number(pair.detectable, 4)])
    return rows


def _vote_rows(comparison: Comparison) -> Rows:
    members = comparison.members
    rows = [
        [
            "votes for SSA",
            "images",
            *(member.study for member in members),
            f"each {comparison.data.annotator} against the other six",
        ]
    ]
    for place, images in enumerate(members[0].by_votes):
        rates = [
            f"{number(rate.error_rate)} ({interval(rate.ci95)})" if rate.n_images else "-"
            for rate in (member.by_votes[place] for member in members)
        ]
        rows.append(
            [f"{images.votes} of {N_ANNOTATORS}", str(images.n_images), *rates, number(images.human_error_rate)]
        )
    whole = [by_votes.overall(member.by_votes) for member in members]
    rates = [number(rate.error_rate) for rate in whole]
    return [*rows, ["all", str(whole[0].n_images), *rates, number(whole[0].human_error_rate)]]


def _descriptive_rows(comparison: Comparison) -> Rows:
    rows = [["first − second", "DeLong p < 0.05", "Wilcoxon p", "only first right", "only second right", "McNemar p"]]
    for pair in comparison.descriptive:
        mcnemar, delong = pair.mcnemar, pair.delong
        rows.append(
            [
                _pair(pair),
                _n_small(delong) or "-",
                p_value(pair.wilcoxon_p),
                str(mcnemar.only_first_right),
                str(mcnemar.only_second_right),
                p_value(mcnemar.p_value),
            ]
        )
    return rows


def _pair(pair: PrimaryTest | DescriptiveTests) -> str:
    return f"{pair.first} − {pair.second}"  # a minus sign, since names have hyphens


def _vote_cells(members: Sequence[Member]) -> Rows:
    first = members[0].by_votes
    whole = [by_votes.overall(member.by_votes) for member in members]
    rates = [[rate.error_rate for rate in member.by_votes] for member in members]
    return [
        ["", *(f"{rate.votes}/{N_ANNOTATORS}" for rate in first), "all"],
        *(
            [member.study, *map(number, [*of_votes, overall.error_rate])]
            for member, of_votes, overall in zip(members, rates, whole, strict=True)
        ),
        ["each annotator", *map(number, [*(rate.human_error_rate for rate in first), whole[0].human_error_rate])],
    ]


def _n_small(delong: Sequence[SeedTest]) -> str | None:
    """Return for how many seeds DeLong's p-value is below 0.05; None where it is not known."""
    p_values = [test.p_value for test in delong if test.p_value is not None]
    return f"{sum(p < 0.05 for p in p_values)} of {len(p_values)} seeds" if p_values else None


def _described(pair: DescriptiveTests) -> str:
    delong, mcnemar = pair.delong, pair.mcnemar
    parts = []
    if n_small := _n_small(delong):
        parts.append(f"DeLong p < 0.05 for {n_small}")
    if pair.wilcoxon_p is not None:
        parts.append(f"Wilcoxon over seeds p = {p_value(pair.wilcoxon_p)}")
    parts.append(
        f"McNemar on mean probabilities at {THRESHOLD}: {mcnemar.only_first_right} against "
        f"{mcnemar.only_second_right} images, p = {p_value(mcnemar.p_value)}"
    )
    return "; ".join(parts)
