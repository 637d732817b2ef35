"""What a report says of its data set and of the number format."""

from collections.abc import Sequence

from mhist_tune.mhist import N_ANNOTATORS, N_TEST_IMAGES, N_TEST_SSA
from mhist_tune.report import about
from mhist_tune.report.about import About
from mhist_tune.report.document import DataDescription
from mhist_tune.report.evidence import Evidence
from mhist_tune.storage.database import Storage
from mhist_tune.storage.predictions import ImageRows, image_rows
from mhist_tune.words import counted


def is_mhist(images: ImageRows) -> bool:
    """Return whether the test images are as many as MHIST's, in all and of SSA."""
    return (len(images.names), int(images.labels.sum())) == (N_TEST_IMAGES, N_TEST_SSA)


def document(storage: Storage, evidence: Evidence, of_author: About | None = None) -> DataDescription:
    """Return what is known of the data set of a study. MHIST's votes are real unless its user says otherwise.

    Args:
        storage: where the study is.
        evidence: its test images.
        of_author: what the author says; None for what was recorded.
    """
    known = evidence.study.dataset.get("description") or {}
    of_author = of_author or about.document(evidence.study, {})
    of_mhist = is_mhist(evidence.images)
    return DataDescription(
        description=of_author.text("description"),
        source=of_author.text("source"),
        votes=known.get("votes", "real" if of_mhist else None),
        n_annotators=known.get("n_annotators", N_ANNOTATORS if of_mhist else None),
        n_groups_on_both_sides=_on_both_sides(storage, evidence),
    )


def number_format(evidence: Evidence) -> str | None:
    """Return the number format that the models of a study were trained in; None if it is not recorded."""
    fixed: str = evidence.study.definition.hyperparameters(evidence.payload.params).precision
    return fixed if fixed != "auto" else (evidence.study.settings.get("probed") or {}).get("precision")


def sentences(data: DataDescription) -> list[str]:
    """Return what a reader must know of the votes and of the groups of a data set."""
    lines = []
    if data.votes == "simulated":
        lines.append("The votes are simulated, so no rate by votes is about pathologists.")
    elif data.votes is None:
        lines.append("It is not known who voted: the data set has no dataset.toml that says so.")
    if data.n_groups_on_both_sides:
        lines.append(
            f"{counted(data.n_groups_on_both_sides, 'patient or slide has', 'patients or slides have')} both train and "
            "test images, so the results are too good by an unknown amount."
        )
    return lines


def labels(data: DataDescription) -> str:
    """Return where the labels come from, as the end of a sentence."""
    votes = {"real": "seven votes of pathologists", "simulated": "seven simulated votes"}
    return f"the majority of {votes.get(data.votes or '', 'seven votes')}"


def groups(data: DataDescription) -> str:
    """Return whether a patient or slide is on both sides of the test partition, in one sentence."""
    match data.n_groups_on_both_sides:
        case None:
            return "No patient or slide is known, so one may be on both sides."
        case 0:
            return "Patients or slides are known, and none is on both sides."
        case n:
            return f"{counted(n, 'patient or slide is', 'patients or slides are')} on both sides."


def _on_both_sides(storage: Storage, evidence: Evidence) -> int | None:
    sides: list[Sequence[str] | None] = [evidence.images.groups]
    sides += [image_rows(storage, evidence.study, name).groups for name in ("train", "val")]
    test, *train = sides
    if test is None or any(part is None for part in train):
        return None
    return len(set(test) & {group for part in train for group in part or ()})
