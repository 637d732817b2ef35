"""The sentences of a report: each pattern is a whole line, each group a number that its rule computes."""

import re
from collections.abc import Iterable

import numpy as np

from tests.recompute.ceiling import K, agreement, fit, reached
from tests.recompute.checks import Check, Expected, Rule
from tests.recompute.models import Model, difference
from tests.recompute.tables import floor

N = r"([+-]?\d+(?:,\d{3})*(?:\.\d+)?%?)"
"""A printed number."""
ENDS = rf"{N} to {N}"
"""A printed interval."""


def literally(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    """A text whose digits are names or fixed settings."""
    return []


def recorded(*keys: str) -> Rule:
    """Return a rule whose values stand in report.json, one for each group."""

    def rule(check: Check, found: re.Match[str]) -> Iterable[Expected]:
        for key in keys:
            value = check.report
            for name in key.split("."):
                value = value[int(name) if isinstance(value, list) else name]
            yield value if isinstance(value, int | float) else str(value)

    return rule


def headline(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    return [check.chosen, check.test.y.size, len(check.seeds)]


def result(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    aurocs, (low, high, tolerance) = check.test.per_seed("auroc"), check.test.interval("auroc")
    of_seeds = [float(aurocs.mean()), float(aurocs.std(ddof=1)), len(check.seeds)]
    return [check.chosen, *of_seeds, (low, tolerance), (high, tolerance), check.test.y.size]


def result_and_gain(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    yield from result(check, found)
    assert check.default is not None
    estimate, se = difference(check.test, check.default, "auroc")
    yield from (check.default_trial, estimate, (estimate - 1.96 * se, 0.15 * se), (estimate + 1.96 * se, 0.15 * se))
    yield (2.8016 * se, 0.2 * se)


def states(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    return [check.of_search(state) for state in ("COMPLETE", "PRUNED", "FAIL")]


def trivial(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    called: dict[str, set[bool]] = {}
    for row in check.predictions:
        if (row["stage"], row["image_set"]) == ("search", "val"):
            called.setdefault(row["slot"], set()).add(float(row["probability"]) > 0.5)
    return [sum(len(both) == 1 for both in called.values())]


def importance(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    return [check.of_search("COMPLETE") + check.of_search("PRUNED"), max(20, 5 * len(check.study["space"]))]


def chosen(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    scores, share = check.scores(check.chosen), float(check.choice()[check.chosen].mean())
    n_images = len(check.out_of_fold[check.chosen])
    return [check.chosen, scores["mean F1"], scores["F1"], scores["AUROC"], n_images, (share, 0.04)]


def corrected(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    estimate, low, high, tolerance = check.corrected()
    yield from (len(check.out_of_fold), (estimate, tolerance / 2), (low, tolerance), (high, tolerance))
    estimate, low, high, tolerance = check.corrected(against=check.report["test_openings"][0]["default"])
    yield from ((estimate, tolerance / 2), (low, tolerance), (high, tolerance))


def fell(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    complete = [row for row in check.trials if row["stage"] == "search" and row["state"] == "COMPLETE"]
    best = int(max(complete, key=lambda row: float(row["value"]))["number"])
    scores, resampled = check.scores(best), check.resampled_finalists()[best]
    value, auroc = float(check.search_row(best)["value"]), float(check.last_epoch(best)["val_auroc"])
    errors = [float(np.nanstd(resampled[name])) for name in ("inside", "auroc")]
    yield from (best, value, scores["mean F1"], value - scores["mean F1"], (errors[0], 0.1 * errors[0]))
    yield from (auroc, scores["AUROC"], auroc - scores["AUROC"], (errors[1], 0.1 * errors[1]))


def never_called(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    called, never = check.test.p > 0.5, found[0].split("call ")[1].startswith("HP")
    return [int((called.all(axis=1) if never else ~called.any(axis=1)).sum()), len(check.seeds)]


def perfect(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    return [(floor(check.test), 0.004)]


def made_worse(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    metric = "log_loss" if "log loss" in found[0] else "brier"
    pair = [Model(check.test.y, check.mapped[name]) for name in ("raw", "recalibrated")]
    return [float(model.per_seed(metric).mean()) for model in pair]


def shares(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    return [float(check.test.y.mean()), float(check.held_out_labels.mean())]


def opened(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    opening = check.report["test_openings"][0]
    default = None if check.default is None else check.default_trial
    return [opening["opened_at"], opening["trial"], default, len(check.seeds)]


def numbers_of_data(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    sets = {row["image_set"]: set() for row in check.predictions if row["image_set"] in ("val", "fold0", "fold1")}
    for row in check.predictions:
        if row["image_set"] in sets:
            sets[row["image_set"]].add(row["image_name"])
    n_all = len(set().union(*(sets[name] for name in sets if name.startswith("fold"))))
    n_val = len(sets["val"])
    return [n_all - n_val, n_val, check.test.y.size, float(check.test.y.mean())]


def searched(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    n_ended = [check.of_search(state) for state in ("COMPLETE", "PRUNED", "FAIL")]
    space = []
    for name, dimension in check.study["space"].items():
        if "choices" in dimension:
            space.append(f"{name}: one of {', '.join(map(str, dimension['choices']))}")
        else:
            log = " (log)" if dimension["log"] else ""
            space.append(f"{name}: {dimension['low']:g} to {dimension['high']:g}{log}")
    version = check.report["versions"]["optuna"]
    return [version, sum(n_ended), *n_ended, check.study["fixed"]["epochs"], "; ".join(space)]


def bias(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    estimate, low, high, tolerance = check.corrected()
    return [check.scores(check.chosen)["mean F1"], (estimate, tolerance / 2), (low, tolerance), (high, tolerance)]


def params(check: Check, *, is_short: bool = False) -> str:
    """The hyperparameters of the chosen trial, as in trials.csv or with four significant digits."""
    row = check.search_row(check.chosen)
    values = {name: row[f"params_{name}"] for name in check.study["space"]}
    if is_short:
        values = {name: f"{float(text):.4g}" if "." in text else text for name, text in values.items()}
    return ", ".join(f"{name} = {text}" for name, text in values.items())


def retrained(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    return [check.chosen, params(check, is_short=True), len(check.seeds), check.study["fixed"]["epochs"]]


def auroc(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    values, (low, high, tolerance) = check.test.per_seed("auroc"), check.test.interval("auroc")
    return [float(values.mean()), float(values.std(ddof=1)), (low, tolerance), (high, tolerance)]


def epochs(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    row, n = check.search_row(check.chosen), check.study["fixed"]["epochs"]
    return [int(row["best_epoch"]), int(row["stopped_epoch"]), n, n]


def settings(check: Check, found: re.Match[str]) -> Iterable[Expected]:
    timings = [one["images_per_s"] for one in check.report["settings"]["timings"]]
    printed = re.findall(r"(?:contiguous|channels_last)(?: compiled)? ([\d.]+)", found[0].partition(";")[2])
    for text, timing in zip(printed, timings, strict=True):
        check.number("settings", text, timing)
    return [check.report["settings"]["n_images"]]


def retrained_rows(check: Check) -> list[dict[str, str]]:
    """Return the rows of the chosen trial's seeds."""
    return [row for row in check.trials if row["stage"] == "retrain" and row["for_trial"] == str(check.chosen)]


def spent(stage: str) -> Rule:
    def rule(check: Check, found: re.Match[str]) -> Iterable[Expected]:
        slots = {row["slot"] for row in check.trials if row["stage"] == stage}
        if stage == "retrain":  # the reported seeds alone, not those of the default
            slots = {row["slot"] for row in retrained_rows(check)}
        rows = [row for row in check.epochs if row["stage"] == stage and row["slot"] in slots]
        seconds = [float(row["elapsed_s"]) for row in rows]
        images = sum(float(row["images_per_s"]) * one for row, one in zip(rows, seconds, strict=True))
        peak = max(float(row["peak_memory_bytes"]) for row in rows)
        unit = {"s": 1.0, "min": 60.0, "h": 3600.0}[found[3]]
        return [len(rows), sum(seconds) / unit, found[3], images / sum(seconds), peak / 2**20]

    return rule


SPENT = rf"{N} epochs in {N} (s|min|h), {N} images/s in training, at most {N} MiB"
FALL = (
    rf"[Tt]he search's best, trial {N}, had mean F1 {N} in the search and {N} out of fold, {N} "
    rf"\(standard error {N}\), and AUROC {N} and {N}, {N} \({N}\): .*"
)

_RESULT = (
    rf".* \(trial {N}\) reaches a test AUROC of {N} ± {N} \(standard deviation\) over {N} seeds, 95% interval {ENDS}, "
    rf"on {N} images\."
)
_GAINED = (
    rf"Against the study's default \(trial {N}\), tuning changed test AUROC by {N}, 95% interval {ENDS}"
    rf"(?:, so no gain is shown \(smallest difference found with 80% power here: {N}\))?\."
)
_REACHED = (
    rf"Of what the labels of {N} .* allow above chance \(AUROC {N} by a beta-binomial model of the votes, {ENDS} by "
    rf"any that fits\), {N} has been reached \(95% interval {ENDS}\); {ENDS} over that range\."
)
_NO_GAIN = r"The study's default was the best [^\d]*\."


def with_ceiling(first: Rule) -> Rule:
    """Return a rule of a result that goes on with the part of the ceiling that was reached."""

    def rule(check: Check, found: re.Match[str]) -> Iterable[Expected]:
        yield from first(check, found)
        yield from reached(check)

    return rule


HEAD: dict[str, Rule] = {
    rf"# .*, trial {N}: {N} test images, {N} seeds": headline,
    rf"{_RESULT}(?: {_NO_GAIN})?": result,
    rf"{_RESULT}(?: {_NO_GAIN})? {_REACHED}": with_ceiling(result),
    rf"{_RESULT} {_GAINED}": result_and_gain,
    rf"{_RESULT} {_GAINED} {_REACHED}": with_ceiling(result_and_gain),
}
SENTENCES: dict[str, Rule] = {
    # Search
    rf"Trials: {N} complete, {N} pruned, {N} fail\.": states,
    rf"{N} trials? calls? all validation images one class\.": trivial,
    rf"Hyperparameter importance: not enough data: {N} trials of at least {N}\.": importance,
    r"Audit of the pruner: not audited; pruner = \{ \.\.\., audit = 0\.1 \} finishes "
    r"one of ten trials for it\.": literally,
    rf"Trial {N}(?: \(the study's default\))? is chosen with a confirmed mean F1 of "
    rf"{N} \(F1 {N}, AUROC {N}\), out of fold on "
    rf"{N} images; the same choice in {N} of resamples of these images\.": chosen,
    rf"The highest of {N} scores is too high in the mean; on images that did not "
    rf"choose, the choice has mean F1 {N} "
    rf"\(95% interval {ENDS}\), {N} \(95% interval {ENDS}\) against the study's default\.": corrected,
    FALL: fell,
    # What limits these numbers
    r"95% intervals resample images, which count as independent since .*": literally,
    rf"{N} of {N} seeds? never calls? (?:HP|SSA) at the threshold 0\.5\.": never_called,
    rf"The calibration error has no interval: .* would have about {N} with so many images, not 0\.": perfect,
    rf"The recalibration made the (?:log loss|Brier score) on the test images worse: "
    rf"{N} before, {N} after\.": made_worse,
    rf"The share of SSA is {N} here and {N} in training, so validation F1 and test F1 are .*": shares,
    r"This test partition is not MHIST's \(977 images, 360 SSA\), so published "
    r"results are not comparable\.": literally,
    # Openings, data and code
    r"The test partition was opened 1 time:": lambda check, found: (
        [] if len(check.report["test_openings"]) == 1 else [0]
    ),
    rf"(\S+) by [^,]*, [^,]*, trial {N}(?: and the default, trial {N})?, {N} seeds: .*": opened,
    r"Trained by mhist-tune (.+)\.": recorded("provenance.code_versions.0"),
    # Figures
    r"!\[.*\]\(.*\.png\)": literally,
    r"Net benefit of a true SSA image found; .* 95% intervals\.": literally,
    r"Images with a probability near 0\.5 are deferred first; .* 95% intervals\.": literally,
    r"Bars with 95% intervals: share of misclassified images at 0\.5\..*": literally,
    # Methods
    rf"The train partition was split into {N} images for training and {N} images for "
    rf"validation, stratified on the votes "
    rf"\(no patient or slide identifiers exist\); {N} images \({N} SSA\) were held "
    rf"back as the test partition\.": numbers_of_data,
    rf"Images were {N} px wide; augmentation was \w+ \(flips with p = {N}, warps with "
    rf"p = {N}\)\.": lambda check, found: [
        check.study["fixed"][name] for name in ("image_size", "flip_prob", "augmentation_prob")
    ],
    r"Models were trained in the number format (\w+)\.": recorded("number_format"),
    rf"Hyperparameters were searched with .* \(Optuna (\S+)\) in {N} trials \({N} "
    rf"complete, {N} pruned, {N} failed\) of at most "
    rf"{N} epochs without early stopping, compared by their validation F1 averaged "
    rf"over the thresholds 0\.1, 0\.2 to 0\.9 in the "
    r"last epoch, over (.*)\.": searched,
    rf"The study's default and .* were trained again and predicted all {N} train "
    rf"images out of fold\.": lambda check, found: [len(check.out_of_fold[check.chosen])],
    rf"The {N} folds, stratified on the votes, were the same for all, and each "
    rf"configuration was trained for all its epochs\.": (lambda check, found: [check.study["confirm"]["n_folds"]]),
    rf"The best F1 averaged over the thresholds 0\.1, 0\.2 to 0\.9 of them was {N}, "
    rf"and {N} \(95% interval {ENDS}\) after bootstrap "
    r"bias correction for the choice\.": bias,
    rf"Trial {N} was chosen for its F1 averaged over the thresholds 0\.1, 0\.2 to 0\.9 "
    rf"out of fold \((.*)\) and retrained on the "
    rf"whole train partition with {N} random seeds for {N} epochs, without looking at any score\.": retrained,
    r"The test partition was opened 1 time, after that choice was recorded\.": literally,
    r"We report means over seeds with standard deviations and 95% intervals from a "
    r"crossed bootstrap \(2,000 resamples of "
    r"images, shared by all seeds, and of seeds\)\.": literally,
    rf"Test AUROC was {N} \(SD {N}; 95% interval {ENDS}\)\.": auroc,
    r"The software was mhist-tune (\S+) with PyTorch (\S+) and timm (\S+); the train "
    r"images have the SHA-256 (\w+)\.": recorded(
        "versions.mhist-tune", "versions.torch", "versions.timm", "dataset_fingerprint"
    ),
    # A model in use, and the ceiling
    rf"{K} votes do not show .*": literally,
    rf"The ceiling is what a model .* would reach on average against a panel of {K}: .*": literally,
    rf"Fit of the beta-binomial: G² = {N} with {N} degrees of freedom, p = {N}\.": fit,
    rf"Accuracy against the majority of the others is {N} \(95% interval {ENDS}\)\.": agreement("acc_out"),
    rf"Fleiss' kappa is {N} \(95% interval {ENDS}\)\.": agreement("kappa"),
    r"Numbers of test images, mean over seeds, with 95% intervals for the given numbers of SSA and HP\.": literally,
    rf"One model averages the probabilities of {N} seeds, image by image\.": lambda check, found: [len(check.seeds)],
    r"Columns there have one that was fixed on .* trial (\d+) predicted out of fold: .*": (
        lambda check, found: [check.chosen]
    ),
    rf"At the threshold {N}, from the test images' sensitivity and .*": lambda check, found: [check.threshold],
    r"A true SSA image counts 1, and a false one t / \(1 - t\) .*\(Vickers and Elkin, 2006\)\.": literally,
    r"The images with a probability nearest to 0\.5 are deferred, .*": literally,
    # To repeat it
    rf"mhist-tune retrain \S+ --trial {N} --n-seeds {N} --data DIR": lambda check, found: [
        check.chosen,
        len(check.seeds),
    ],
    r"Params: (.*)": lambda check, found: [params(check)],
    rf"Epochs: best {N}, stopped {N}, configured {N}; retrained for {N}": epochs,
    rf"Settings: .*; images/s of {N} at once on .*": settings,
    rf"Training of the seeds: {SPENT}": spent("retrain"),
    rf"Search: {SPENT}": spent("search"),
    rf"Confirming: {SPENT}": spent("confirm"),
    r"Study definition: SHA-256 (\w+)": recorded("definition_sha256"),
    r"Train partition: SHA-256 (\w+)": recorded("dataset_fingerprint"),
    r"Test partition: SHA-256 (\w+)": recorded("test_openings.0.test_fingerprint"),
    rf"Opening: {N}, SHA-256 (\w+) in the chain of openings": recorded("opening", "test_openings.0.hash"),
    r"Versions: (.*)": lambda check, found: [
        ", ".join(f"{name} {release}" for name, release in check.report["versions"].items())
    ],
}
