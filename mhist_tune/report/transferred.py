"""Where a study took its first configurations from: the record that `create-study --from` leaves, in sentences."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mhist_tune.search.transfer import Origin, Pick
from mhist_tune.storage.studies import Study
from mhist_tune.words import counted

SETTING = "transfer"
"""The setting that holds the record."""


@dataclass(frozen=True)
class SourceStudy:
    """A study that configurations were taken from, as it was then.

    Attributes:
        test_rows_sha256: of its test partition; None where it is not known.
        n_tried: number of configurations that it compared within the new space, `n_confirmed` of them out of fold.
        n_outside: number of its configurations outside the new space, which were left out.
        inherited: the choices by MHIST's test images that it begins with, see `inherited`, or that its own sources do.
        n_names_in_test: number of its train images that have the name of a test image of the new study.
    """

    study: str
    uuid: str
    definition_sha256: str
    dataset_fingerprint: str
    test_rows_sha256: str | None
    model: str
    score: str
    n_tried: int
    n_confirmed: int
    n_outside: int
    inherited: list[str]
    n_names_in_test: int


@dataclass(frozen=True)
class Transfer:
    """What a study took from others, and when (in UTC). The picks follow the start entries of its own file."""

    at: str
    sources: list[SourceStudy]
    picks: list[Pick]

    @property
    def params(self) -> list[dict[str, Any]]:
        """The configurations that were taken."""
        return [pick.params for pick in self.picks]

    @property
    def inherited(self) -> list[str]:
        """The choices by MHIST's test images that the sources begin with, each once."""
        return sorted({name for source in self.sources for name in source.inherited})


def to_setting(transfer: Transfer) -> dict[str, Any]:
    """Return the setting of a study that holds the record, JSON."""
    return {SETTING: asdict(transfer)}


def of_study(study: Study) -> Transfer | None:
    """Return the record of a study; None if it took nothing from others."""
    return of_settings(study.settings) if SETTING in study.settings else None


def of_settings(settings: Mapping[str, Any]) -> Transfer:
    """Return the record that the settings of a study hold."""
    stored = settings[SETTING]
    picks = [Pick(pick["params"], [Origin(**origin) for origin in pick["origins"]]) for pick in stored["picks"]]
    return Transfer(stored["at"], [SourceStudy(**source) for source in stored["sources"]], picks)


def taken(transfer: Transfer) -> str:
    """Return what was taken, from which studies, in a clause without its subject."""
    names = [f"{source.study} ({source.definition_sha256[:8]})" for source in transfer.sources]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{counted(len(transfer.picks), 'configuration')} found by {listed} on {transfer.at[:10]}"


def announced(transfer: Transfer) -> list[str]:
    """Return what is taken, and what was left out, in a line each."""
    lines = [f"Starting from {taken(transfer)}."]
    lines += [
        f"{source.n_outside} of {source.n_outside + source.n_tried} configurations of {source.study} are outside this "
        "space and were left out."
        for source in transfer.sources
        if source.n_outside
    ]
    return lines + [
        f"Warning: {source.n_names_in_test} train images of {source.study} have the names of test images here; if they "
        "are the same images, the test results will be too good."
        for source in transfer.sources
        if source.n_names_in_test
    ]


def sentences(transfer: Transfer, test_rows_sha256: str | None) -> list[str]:
    """Return what was taken and what it means for test results, in sentences.

    Args:
        transfer: the record.
        test_rows_sha256: of the new study's test partition; None where it is not known.
    """
    n_confirmed = sum(any(origin.is_confirmed for origin in pick.origins) for pick in transfer.picks)
    lines = [
        f"After its own start entries the search tried {taken(transfer)}, {n_confirmed} of them confirmed out of fold "
        "there. They are a greedy portfolio by the order of the configurations within each of these studies, by "
        "confirmed scores where two of them were confirmed and by validation scores otherwise."
    ]
    same = [source.study for source in transfer.sources if source.test_rows_sha256 == test_rows_sha256]
    if same and test_rows_sha256 is not None:
        lines.append(
            f"The test partition of {', '.join(same)} has the same images. Configurations were compared on train "
            "images alone. So no test result had a part in it, unless a person named these studies for their test "
            "results."
        )
    overlapping = [source for source in transfer.sources if source.n_names_in_test]
    if overlapping:
        listed = ", ".join(f"{source.n_names_in_test} of {source.study}" for source in overlapping)
        lines.append(
            f"Train images of these sources have the names of test images here: {listed}. If they are the same images, "
            "the first configurations were chosen by test images, and the test results are too good."
        )
    return lines


def inherited_sentence(transfer: Transfer) -> str:
    """Return which sources begin with choices by MHIST's test images."""
    listed = "; ".join(
        f"{source.study} ({', '.join(source.inherited)})" for source in transfer.sources if source.inherited
    )
    return (
        f"These sources of the first configurations begin with choices that the method report made by its results on "
        f"the same test images, and this study carries them on: {listed}."
    )
