"""Repeats a whole search on other splits and with other seeds, as ordinary studies. None opens a test partition."""

from dataclasses import replace
from pathlib import Path

from mhist_tune.actions import create
from mhist_tune.data import cache
from mhist_tune.definition import study_file
from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.errors import DataError, UsageError
from mhist_tune.report import repetitions
from mhist_tune.seeds import derive_seed
from mhist_tune.storage.database import Storage
from mhist_tune.storage.studies import Study


def require_repeatable(study: Study) -> None:
    """Refuse a study without a gain over a default that could be repeated.

    Raises:
        UsageError: it is a table, has no [confirm], or is itself a repetition.
    """
    if study.definition.rows:
        raise UsageError(f"{study.name} is a table of chosen rows and not a search")
    if study.definition.confirm is None:
        raise UsageError(
            f"{study.name} has no [confirm], so no search of it has a gain that is measured on other images",
            hint="add [confirm] to the definition, with another name",
        )
    if repetitions.SETTING in study.settings:
        raise UsageError(
            f"{study.name} is itself a repetition of {study.settings[repetitions.SETTING]['study']}",
            hint=f"mhist-tune repeat {study.settings[repetitions.SETTING]['study']}",
        )


def create_all(storage: Storage, study: Study, n: int, data_root: Path) -> list[Study]:
    """Create the first `n` repetitions of a study, and return them. Existing ones stay as they are.

    Raises:
        UsageError: as `require_repeatable`, or a name is taken by another study.
        DataError: the images are not those of the study.
    """
    require_repeatable(study)
    known = {one.name: one for one in repetitions.of_study(storage, study)}
    missing = [number for number in range(1, n + 1) if repetitions.name_of(study, number) not in known]
    if missing and cache.fingerprint(data_root) != study.dataset.get("fingerprint"):
        raise DataError(
            f'study "{study.name}" was created with other images', hint="point --data to the same copy of the data set"
        )
    for number in missing:
        record = {repetitions.SETTING: {"study": study.name, "uuid": study.uuid, "number": number}}
        made = create.checked(definition(study, number), data_root, record)(storage)
        if made.settings.get(repetitions.SETTING) != record[repetitions.SETTING]:
            raise UsageError(
                f"the name {made.name} is taken by a study that is not a repetition of {study.name}",
                hint=f"mhist-tune delete-study {made.name}, or delete-study and create {study.name} anew",
            )
    return [one for one in repetitions.of_study(storage, study) if one.settings[repetitions.SETTING]["number"] <= n]


def definition(study: Study, number: int) -> StudyDefinition:
    """Return the definition of a repetition: that of the study with another name, split and seeds."""
    original = study.definition
    seed = derive_seed(original.sampler["seed"], "repeat", number)
    repeated = replace(
        original,
        name=repetitions.name_of(study, number),
        split_seed=derive_seed(original.split_seed, "repeat", number),
        sampler={**original.sampler, "seed": seed},
    )
    return study_file.parse(study_file.render(repeated), repeated.name)
