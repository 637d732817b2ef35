"""The sentences of a report: its result, its caveats, and a methods paragraph for a paper."""

from collections.abc import Mapping
from typing import Any

from mhist_tune.definition.hyperparameters import Hyperparameters
from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.mhist import N_SLIDES, N_TEST_IMAGES, N_TEST_SSA
from mhist_tune.report import (
    ceiling,
    confirmation,
    data_set,
    gain,
    inherited,
    provenance,
    sampling,
    threshold,
    transferred,
)
from mhist_tune.report.confirmation import Confirmed
from mhist_tune.report.document import Report
from mhist_tune.statistics.summaries import MetricSummary
from mhist_tune.storage.studies import Study
from mhist_tune.words import counted, interval, number, ordinal

_SAMPLERS = {
    "tpe": "the tree-structured Parzen estimator",
    "random": "random search",
    "qmc": "quasi-Monte Carlo search",
    "gp": "a Gaussian process",
}
_SCORES: Mapping[str, str] = {
    "mean_f1": "F1 averaged over the thresholds 0.1, 0.2 to 0.9",
    "f1": "F1",
    "auroc": "AUROC",
}
_PRUNERS = {
    "none": "no pruning",
    "median": "median pruning",
    "percentile": "percentile pruning",
    "successive_halving": "successive halving",
    "hyperband": "Hyperband",
    "promotion": "asynchronous successive halving with promotion from checkpoints",
}


def result(report: Report) -> str:
    """Return the result in one sentence."""
    auroc = report.metrics["auroc"]
    what = f"{report.model} tuned by study {report.study} (trial {report.trial.number})"
    if auroc.mean is None:
        return f"{what} has no AUROC, because the test partition has one class only."
    std = "" if auroc.std is None else f" ± {auroc.std:.4f} (standard deviation)"
    gained = gain.sentence(report.gain) if report.gain else None
    text = (
        f"{what} reaches a test AUROC of {auroc.mean:.4f}{std} over {counted(report.n_seeds, 'seed')}, "
        f"{_interval(auroc)}, on {counted(report.n_images, 'image')}."
    )
    reached = ceiling.sentence(report.ceiling, report.data) if report.ceiling else None
    return " ".join(part for part in (text, gained, reached) if part)


def caveats(report: Report) -> list[str]:
    """Return the caveats that are needed to read the numbers."""
    sentences = ["The positive class is SSA. Loss, Brier score and calibration error are means per image."]
    sentences += data_set.sentences(report.data)
    sentences += [*sampling.sentences(report.sampling), _intervals(report)]
    sentences += [_never_called(report, *calls) for calls in _NEVER if _n_never(report, calls[1])]
    if report.n_seeds == 1:
        sentences.append("There is one seed, so the intervals do not include the variation between trainings.")
    if not report.complete:
        sentences.append(f"Only {report.n_seeds} of {report.n_seeds_planned} planned seeds have results.")
    sentences.append(_calibration_error(report))
    if report.held_out:
        sentences += threshold.sentences(report.held_out)
    sentences.append(
        f"The share of SSA is {report.share_ssa:.1%} here and "
        + (f"{report.held_out.share_ssa:.1%} in training" if report.held_out else "another in training")
        + ", so validation F1 and test F1 are not comparable and their difference is not given."
    )
    if report.extended_after_opening:
        sentences.append(
            f"The search went on with {counted(report.extended_after_opening, 'trial')} after the test partition "
            "had been opened, so later choices may have been made with knowledge of test results."
        )
    if len(report.looks) > 1:
        sentences.append(
            f"This is the {ordinal(report.look)} of {len(report.looks)} looks at these test images in this storage; "
            "each look weakens the result."
        )
    sentences += provenance.caveats(report.provenance)
    if report.inherited_choices:
        sentences.append(inherited.sentence(report.inherited_choices))
    if report.is_mhist and report.transfer and report.transfer.inherited:
        sentences.append(transferred.inherited_sentence(report.transfer))
    if not report.is_mhist:
        sentences.append(
            f"This test partition is not MHIST's ({N_TEST_IMAGES} images, {N_TEST_SSA} SSA), so published results are "
            "not comparable."
        )
    return sentences


_NEVER = (("SSA", ("recall", "specificity")), ("HP", ("specificity", "recall")))
"""For each class, the metrics that are 0 and 1 of a model that never calls it."""


def _interval(metric: MetricSummary) -> str:
    return "no interval" if metric.ci95 is None else f"95% interval {interval(metric.ci95, 4)}"


def _intervals(report: Report) -> str:
    """Return how the intervals are made, and what they do not include."""
    conditional = (
        "They are conditional on the chosen configuration: the uncertainty of its choice by noisy validation scores is "
        "not included."
    )
    if report.sampling.groups is not None:
        return (
            "95% intervals are t intervals of a jackknife over whole groups, once for all seeds, and of the variation "
            f"of the seeds. {conditional}"
        )
    slides = f" (MHIST's come from {N_SLIDES})" if report.is_mhist else ""
    return (
        f"95% intervals resample images, which count as independent since no patient or slide is known{slides}, once "
        f"for all seeds, and the seeds independently of them. {conditional} Images of one slide are alike, so the true "
        "intervals are wider; a table shows them for supposed design effects."
    )


def _calibration_error(report: Report) -> str:
    """Return why the calibration error has no interval, and what a perfect model would have."""
    text = "The calibration error has no interval: resampling biases it upwards."
    if report.calibration is None:
        return text
    floor, independent = report.calibration.ece_floor, "" if report.sampling.groups is None else " independent"
    return f"{text} A perfectly calibrated model would have about {floor:.3f} with so many{independent} images, not 0."


def _n_never(report: Report, metrics: tuple[str, str]) -> int:
    """Return the number of seeds with the values 0 and 1 of two metrics."""
    zero, one = (report.metrics[name].per_seed for name in metrics)
    return sum(values == (0, 1) for values in zip(zero, one, strict=True))


def _never_called(report: Report, name: str, metrics: tuple[str, str]) -> str:
    return f"{_n_never(report, metrics)} of {counted(report.n_seeds, 'seed')} never call {name} at the threshold 0.5."


_TASK = {
    True: "sessile serrated adenoma (SSA) from hyperplastic polyp (HP) in MHIST's images of colorectal polyps",
    False: "the class SSA from the class HP in images laid out as MHIST's",
}
"""The task, by whether the images are MHIST's."""


def paragraph(report: Report, study: Study) -> str:
    """Return a methods paragraph: data, reference standard, search, selection, retraining, statistics, software."""
    definition, trial = study.definition, report.trial
    hp = definition.hyperparameters(trial.params)
    weights = {"pretrained": "pretrained weights", "random": "random weights"}.get(hp.weights, "weights from a file")
    excluded = ", ".join(f"{votes}/7" for votes in hp.exclude_votes)
    chosen = ", ".join(f"{name} = {_plain(value)}" for name, value in trial.params.items())
    auroc = report.metrics["auroc"]
    n_before = report.look - 1
    sentences = [
        f"We trained {hp.model} ({weights}) to distinguish {_TASK[report.is_mhist]}, whose labels are "
        f"{data_set.labels(report.data)}.",
        f"The data set is described as: {report.data.description}." if report.data.description else "",
        f"The train partition was split into {counted(report.n_train, 'image')} for training and "
        f"{counted(report.n_val, 'image')} for validation, stratified on the votes"
        + (", by whole groups" if report.resampled_by == "group" else " (no patient or slide identifiers exist)")
        + f"; {counted(report.n_images, 'image')} ({report.share_ssa:.1%} SSA) were held back as the test "
        "partition.",
        f"Training images with {excluded} votes for SSA were left out." if excluded else "",
        f"Images were {hp.image_size} px wide; augmentation was {_augmentation(hp)}.",
        f"Models were trained in the number format {report.number_format}." if report.number_format else "",
        _compared(study) if definition.rows else _searched(report, study, hp),
        *(transferred.sentences(report.transfer, study.dataset.get("test_rows_sha256")) if report.transfer else ()),
        _confirmed(report),
        f"Trial {trial.number} was chosen {_chosen_by(report)}"
        + (f" ({chosen})" if chosen else "")
        + f" and retrained on the whole train partition with {counted(report.n_seeds, 'random seed')} for "
        f"{counted(report.stop_epoch, 'epoch')}, without looking at any score.",
        "The study's default was retrained with the same seeds beside it."
        if report.gain and not report.gain.is_chosen
        else "",
        f"The test partition was opened {counted(len(report.looks), 'time')}, "
        + (f"{n_before} of them before" if n_before else "after")
        + " that choice was recorded.",
        f"We report means over seeds with standard deviations and 95% intervals from {_method(report)}.",
        ""
        if auroc.mean is None
        else f"Test AUROC was {number(auroc.mean, 4)} "
        f"({'one seed' if auroc.std is None else 'SD ' + number(auroc.std, 4)}; "
        f"{_interval(auroc)}).",
        f"The software was mhist-tune {report.versions['mhist-tune']} with PyTorch {report.versions['torch']} "
        f"and timm {report.versions['timm']}; the train images have the SHA-256 {report.dataset_fingerprint}.",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _method(report: Report) -> str:
    groups = report.sampling.groups
    if groups is None:
        return "a crossed bootstrap (2,000 resamples of images, shared by all seeds, and of seeds)"
    return (
        f"a delete-one-group jackknife over {sampling.counts(groups)}, and the variance between seeds, with quantiles "
        "of Student's t on the logit scale"
    )


def _augmentation(hp: Hyperparameters) -> str:
    probs = []
    if "flip" in hp.augmentation:
        probs.append(f"flips with p = {hp.flip_prob:g}")
    if hp.augmentation not in ("none", "flip"):
        probs.append(f"warps with p = {hp.augmentation_prob:g}")
    text = f"{hp.augmentation} ({', '.join(probs)})" if probs else hp.augmentation
    return f"{text} and stain jitter of {hp.stain_jitter:g} (p = {hp.stain_prob:g})" if hp.stain_jitter else text


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _searched(report: Report, study: Study, hp: Hyperparameters) -> str:
    definition, states = study.definition, report.search.n_trials
    space = "; ".join(f"{name}: {dimension}" for name, dimension in definition.space.items())
    return (
        f"Hyperparameters were searched with {_SAMPLERS[definition.sampler['name']]} and "
        f"{_PRUNERS[definition.pruner['name']]} (Optuna {report.versions['optuna']}) in "
        f"{counted(sum(states.values()), 'trial')} ({states['COMPLETE']} complete, {states['PRUNED']} pruned, "
        f"{states['FAIL']} failed) of at most {counted(hp.epochs, 'epoch')}{_valued(definition, hp)}"
        + (f", over {space}." if space else ".")
    )


def _valued(definition: StudyDefinition, hp: Hyperparameters) -> str:
    """Return by what trials were compared, and when they stopped early."""
    score = f"validation {_SCORES[definition.score]}"
    if definition.at == "last":
        return f" without early stopping, compared by their {score} in the last epoch"
    if hp.monitor in ("score", definition.score):
        return f", stopped early after {hp.patience} epochs without a better {score}"
    monitored = "loss" if hp.monitor == "loss" else _SCORES[hp.monitor]
    return (
        f", stopped early after {hp.patience} epochs without a better validation {monitored}, compared by their {score}"
    )


def _confirmed(report: Report) -> str:
    confirm = report.confirm
    if not confirm:
        return ""
    text = (
        f"{_finalists(confirm)} and predicted all {counted(confirm.n_images, 'train image')} out of fold. The "
        f"{confirm.n_folds} folds, stratified on the votes, were the same for all, and "
        + (
            "each configuration was trained for all its epochs."
            if report.at == "last"
            else "each number of epochs was fixed beforehand as the median of the best ones on inner splits."
        )
    )
    if confirm.corrected:
        corrected = f"{number(confirm.corrected.estimate)} (95% interval {interval(confirm.corrected.ci95)})"
        text += (
            f" The best {_SCORES[report.score]} of them was {number(confirm.finalists[0].of(confirm.score))}, and "
            f"{corrected} after bootstrap bias correction for the choice."
        )
    if confirm.search_best.confirmed_value is not None:
        sentence = confirmation.fall(confirm.search_best, confirm.score)
        text += f" {sentence[0].upper()}{sentence[1:]}."
    return text


def _finalists(confirm: Confirmed) -> str:
    """Return which configurations were trained again, as a clause."""
    n_others = sum(not finalist.is_default for finalist in confirm.finalists)
    if n_others == len(confirm.finalists):
        best = "The best configuration" if n_others == 1 else f"The {n_others} best configurations"
        return f"{best} of the search {'was' if n_others == 1 else 'were'} trained again"
    if not n_others:
        return "The study's default was trained again"
    best = "the best other configuration" if n_others == 1 else f"the {n_others} best other configurations"
    return f"The study's default and {best} of the search were trained again"


def _chosen_by(report: Report) -> str:
    confirm = report.confirm
    if not confirm:
        return f"on validation {_SCORES[report.score]}"
    return f"for its {_SCORES[report.score]} out of fold" if confirm.chosen == report.trial.number else "by hand"


def _compared(study: Study) -> str:
    definition = study.definition
    best = "best " if definition.at == "best" else ""
    return (
        f"{counted(len(definition.rows), 'configuration')}, chosen beforehand, were each trained with "
        f"{counted(definition.n_seeds, 'random seed')} and compared by the mean of their {best}"
        f"validation {_SCORES[definition.score]}."
    )
