"""Choices that the method report took from MHIST's test images, and that a study of ours begins with.

The report says so itself. It excluded images with 3 or 4 of 7 votes (its sections 1.3 and 2.1.3.1), combined flips with
rotation (2.1.1) and over-sampled the rarer class (2.1.3.1) because its results on *test* were best then. A result on
the same images that builds on such a choice is too good by an unknown amount.
"""

from collections.abc import Collection, Mapping
from typing import Any

from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.report import transferred
from mhist_tune.storage.studies import Study

CHOICES: Mapping[str, tuple[Any, str]] = {
    "exclude_votes": ((3, 4), "the exclusion of 3/7 and 4/7"),
    "augmentation": ("flip_rotate", "flips with rotation"),
    "sampling": ("random_over", "random over-sampling"),
}
"""By hyperparameter: the value that the method report chose by test results, and its name."""


def choices(definition: StudyDefinition, taken: Collection[Mapping[str, Any]] = ()) -> dict[str, str]:
    """Return how a study has each of these choices, by the choice's name: fixed for all trials, or tried first.

    Args:
        definition: of the study.
        taken: the start entries that come from searches of other studies. Those chose on train images.
    """
    found = {}
    for field, (value, name) in CHOICES.items():
        if field in definition.fixed:
            if _is(definition.fixed[field], value):
                found[name] = "fixed"
        elif any(_is(entry.get(field), value) for entry in definition.start if entry not in taken):
            found[name] = "tried first"
    return found


def of_study(study: Study, *, is_mhist: bool) -> dict[str, str]:
    """Return how a study has each of these choices; none on other images than MHIST's."""
    transfer = transferred.of_study(study)
    return choices(study.definition, transfer.params if transfer else ()) if is_mhist else {}


def sentence(how: Mapping[str, str]) -> str:
    """Return the choices of a study in one sentence.

    Args:
        how: as from `choices`, not empty.
    """
    return (
        "The method report chose these by its results on the same test images, and this study begins with them: "
        f"{_listed(how)}. So its test results are too good by an unknown amount; the study vit-clean makes these "
        "choices on train images alone."
    )


def of_members(how: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the choices of several studies in a sentence each; none for a study without any.

    Args:
        how: by the name of the study, as from `choices`.
    """
    return [
        f"{study} begins with choices that the method report made by its results on these test images: "
        f"{_listed(choices)}. So its test results are too good by an unknown amount."
        for study, choices in how.items()
        if choices
    ]


def _listed(how: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({way})" for name, way in how.items())


def _is(found: Any, value: Any) -> bool:
    return bool((tuple(found) if isinstance(found, list) else found) == value)
