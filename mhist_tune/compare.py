"""Two or more studies compared on the same test images, from stored probabilities alone."""

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from mhist_tune import by_votes, compare_text, evidence, figures, html, paired, statistics, thumbnails
from mhist_tune.errors import UsageError
from mhist_tune.evidence import Evidence
from mhist_tune.mhist import THRESHOLD
from mhist_tune.storage import Storage
from mhist_tune.writing import output_folder


def build(storage: Storage, names: Sequence[str]) -> dict[str, Any]:
    """Return the comparison of studies as a JSON document.

    Its keys: `members` (for each: `study`, `model`, `trial`, `opening`, `n_seeds`, `seeds`, `n_test_openings`, `auroc`,
    `by_votes` and `mistakes` as in a report), `test_fingerprint`, `n_images`, `resampled_by` (image or group),
    `primary` (for each pair `first`, `second`, `difference` of seed-mean AUROC, `se`, `ci95`, `p_value`, `p_holm`,
    `detectable`) and `descriptive` (for each pair `delong` by seed, `wilcoxon_p`, `mcnemar`). A pair's single-seed
    tests cover the seeds that both have; fewer than six leave `wilcoxon_p` null, as it cannot fall below 0.05 then.

    Raises:
        StudyNotFoundError: no such study.
        UsageError: no retraining has finished, the test partitions differ, or one has a single class.
    """
    return _build(evidence.load_all(storage, names))


def write(storage: Storage, names: Sequence[str], folder: Path) -> dict[str, Any]:
    """Write compare.html, .md and .json; return the document. Errors are those of `build`.

    Raises:
        UsageError: the folder cannot be written, too.
    """
    members = evidence.load_all(storage, names)
    document = _build(members)
    drawn = figures.compared(members, document)
    pictures = [
        thumbnails.read(thumbnails.path_of(storage, one.study), [wrong["image_name"] for wrong in shown["mistakes"]])
        for one, shown in zip(members, document["members"], strict=True)
    ]
    with output_folder(folder, "the comparison", hint="choose another folder: --output DIR"):
        (folder / "compare.html").write_text(html.render_comparison(document, drawn, pictures), encoding="utf-8")
        (folder / "compare.md").write_text(compare_text.to_markdown(document), encoding="utf-8")
        text = json.dumps(document, indent=2, allow_nan=False)
        (folder / "compare.json").write_text(text + "\n", encoding="utf-8")
    return document


def _build(members: Sequence[Evidence]) -> dict[str, Any]:
    names = [member.study.name for member in members]
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


def _member(member: Evidence) -> dict[str, Any]:
    images = member.images
    return {
        "study": member.study.name,
        "model": member.study.definition.hyperparameters(member.payload["params"]).model,
        "trial": member.payload["trial"],
        "opening": member.opening.id,
        "n_seeds": len(member.seeds),
        "seeds": member.seeds,
        "n_test_openings": len(member.openings),
        "auroc": statistics.summary(images.labels, member.probabilities, groups=images.groups)["auroc"],
        "by_votes": by_votes.error_rates(
            images.votes, images.labels, member.probabilities, threshold=THRESHOLD, groups=images.groups
        ),
        "mistakes": [
            {"image_name": images.names[one["index"]], **one}
            for one in by_votes.mistakes(images.votes, images.labels, member.probabilities, threshold=THRESHOLD)
        ],
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
