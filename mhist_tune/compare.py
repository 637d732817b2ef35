"""Two or more studies compared on the same test images, from stored probabilities alone."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from mhist_tune import difficulty, evidence, paired, statistics
from mhist_tune.errors import UsageError
from mhist_tune.evidence import Evidence
from mhist_tune.storage import Storage

THRESHOLD = 0.5


def build(storage: Storage, names: Sequence[str]) -> dict[str, Any]:
    """Return the comparison of studies as a JSON document.

    Its keys: `members` (for each: `study`, `trial`, `opening`, `n_seeds`, `seeds`, `n_test_openings`, `auroc` and
    `by_votes` as in a report), `test_fingerprint`, `n_images`, `resampled_by` (image or group), `primary` (for each
    pair `first`, `second`, `difference` of seed-mean AUROC, `se`, `ci95`, `p_value`, `p_holm`, `detectable`) and
    `descriptive` (for each pair `delong` by seed, `wilcoxon_p`, `mcnemar`). A pair's single-seed tests cover the
    seeds that both have; fewer than six leave `wilcoxon_p` null, as it cannot fall below 0.05 then.

    Raises:
        StudyNotFoundError: no such study.
        UsageError: no retraining has finished, the test partitions differ, or one has a single class.
    """
    members = evidence.load_all(storage, names)
    images = members[0].images
    if images.labels.sum() < 2 or (1 - images.labels).sum() < 2:
        raise UsageError("a comparison of AUROC needs at least two test images of each class")
    differences = paired.auroc_differences(
        images.labels, [member.probabilities for member in members], groups=images.groups
    )
    adjusted = paired.holm([one.p_value for one in differences])
    return {
        "members": [_member(member) for member in members],
        "test_fingerprint": members[0].opening.fingerprint,
        "n_images": int(images.labels.size),
        "resampled_by": "image" if images.groups is None else "group",
        "primary": [
            {
                "first": names[one.first],
                "second": names[one.second],
                "difference": one.estimate,
                "se": one.se,
                "ci95": list(one.ci95),
                "p_value": one.p_value,
                "p_holm": p_holm,
                "detectable": one.detectable,
            }
            for one, p_holm in zip(differences, adjusted, strict=True)
        ],
        "descriptive": [_descriptive(first, second) for first, second in combinations(members, 2)],
    }


def to_text(document: Mapping[str, Any]) -> str:
    """Return a comparison as text: the models, the primary test of each pair, and what is descriptive."""
    members = document["members"]
    width = max(len(member["study"]) for member in members)
    lines = [f"{len(members)} models on the same {document['n_images']} test images", ""]
    for member in members:
        auroc = member["auroc"]
        std = "" if auroc["std"] is None else f" +- {auroc['std']:.4f} over {member['n_seeds']} seeds"
        low, high = auroc["ci95"]
        lines.append(
            f"  {member['study'].ljust(width)}  trial {member['trial']}  AUROC {auroc['mean']:.4f}{std}, "
            f"95% interval {low:.4f} to {high:.4f}"
        )
    lines += ["", "Primary test: difference of seed-mean AUROC, images paired, seeds resampled for each model"]
    for pair in document["primary"]:
        low, high = pair["ci95"]
        lines += [
            f"  {pair['first']} - {pair['second']}: {pair['difference']:+.4f}, 95% interval {low:+.4f} to {high:+.4f}, "
            f"p = {_p(pair['p_value'])}, p (Holm) = {_p(pair['p_holm'])}",
            f"    {verdict(pair)}",
        ]
    lines += ["", "Descriptive only: these take the test images, or the trained models, as given"]
    for pair in document["descriptive"]:
        lines.append(f"  {pair['first']} - {pair['second']}: {_described(pair)}")
    lines += [
        "",
        f"Share of misclassified images at {THRESHOLD} by votes for SSA, and of pathologists against the majority",
    ]
    lines += _vote_lines(members, width)
    lines += ["", *caveats(document)]
    return "\n".join(lines)


def verdict(pair: Mapping[str, Any]) -> str:
    """Return what the primary test of one pair says, in one sentence."""
    smallest = f"smallest difference found with 80% power here: {pair['detectable']:.4f}"
    if pair["p_holm"] < 0.05:
        better = pair["first"] if pair["difference"] > 0 else pair["second"]
        return f"{better} has the higher AUROC ({smallest})"
    return f"no difference shown, which is no proof of equality ({smallest})"


def caveats(document: Mapping[str, Any]) -> list[str]:
    """Return the sentences without which the comparison would be misread."""
    units = "whole groups of images" if document["resampled_by"] == "group" else "images, which count as independent,"
    found = [f"Intervals resample {units} and seeds; they hold for these configurations, not for whole searches."]
    single = [member["study"] for member in document["members"] if member["n_seeds"] == 1]
    if single:
        found.append(f"One seed only: {', '.join(single)}; how much its seeds vary is left out of the test.")
    again = [member for member in document["members"] if member["n_test_openings"] > 1]
    found += [f"{one['study']} opened the test partition {one['n_test_openings']} times." for one in again]
    return found


def _member(member: Evidence) -> dict[str, Any]:
    images = member.images
    return {
        "study": member.study.name,
        "trial": member.payload["trial"],
        "opening": member.opening.id,
        "n_seeds": len(member.seeds),
        "seeds": member.seeds,
        "n_test_openings": len(member.openings),
        "auroc": statistics.summary(images.labels, member.probabilities, groups=images.groups)["auroc"],
        "by_votes": difficulty.rates_by_votes(
            images.votes, images.labels, member.probabilities, threshold=THRESHOLD, groups=images.groups
        ),
    }


def _descriptive(first: Evidence, second: Evidence) -> dict[str, Any]:
    labels = first.images.labels
    rows = [dict(zip(one.seeds, one.probabilities, strict=True)) for one in (first, second)]
    shared = [seed for seed in first.seeds if seed in rows[1]]
    by_seed = {seed: paired.delong(labels, rows[0][seed], rows[1][seed]) for seed in shared}
    aurocs = [[statistics.metrics_of(labels, row[seed])["auroc"] for seed in shared] for row in rows]
    only_first, only_second, p_value = paired.mcnemar(
        labels, *(one.probabilities.mean(axis=0) > THRESHOLD for one in (first, second))
    )
    return {
        "first": first.study.name,
        "second": second.study.name,
        "delong": [
            {"seed": seed, "difference": one.difference, "se": one.se, "p_value": one.p_value}
            for seed, one in by_seed.items()
        ],
        "wilcoxon_p": paired.wilcoxon(*aurocs) if len(shared) >= 6 else None,
        "mcnemar": {"only_first_right": only_first, "only_second_right": only_second, "p_value": p_value},
    }


def _vote_lines(members: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    rows = [("", [f"{one['votes']}/7" for one in members[0]["by_votes"]])]
    rows += [(member["study"], [_rate(one["error_rate"]) for one in member["by_votes"]]) for member in members]
    rows.append(("pathologists", [_rate(one["human_error_rate"]) for one in members[0]["by_votes"]]))
    width = max(width, len("pathologists"))
    return [f"  {name.ljust(width)}  {'  '.join(cell.rjust(5) for cell in cells)}" for name, cells in rows]


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _described(pair: Mapping[str, Any]) -> str:
    delong, mcnemar = pair["delong"], pair["mcnemar"]
    parts = []
    if delong:
        n_small = int(np.sum([one["p_value"] < 0.05 for one in delong]))
        parts.append(f"DeLong p < 0.05 for {n_small} of {len(delong)} seeds")
    if pair["wilcoxon_p"] is not None:
        parts.append(f"Wilcoxon over seeds p = {_p(pair['wilcoxon_p'])}")
    parts.append(
        f"McNemar on mean probabilities at {THRESHOLD}: {mcnemar['only_first_right']} against "
        f"{mcnemar['only_second_right']} images, p = {_p(mcnemar['p_value'])}"
    )
    return "; ".join(parts)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"
