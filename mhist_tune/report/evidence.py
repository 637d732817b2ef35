"""The stored test probabilities of one opening of the test partition. Reports and comparisons are made from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mhist_tune.arrays import FloatArray
from mhist_tune.errors import UsageError
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.openings import OpeningRow, openings_of_images
from mhist_tune.storage.payloads import RetrainPayload
from mhist_tune.storage.predictions import ImageRows, image_rows, predictions_of
from mhist_tune.storage.slot_rows import RetrainSlot
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.storage.studies import Study

IMAGE_SET = "test"


@dataclass(frozen=True)
class Evidence:
    """The newest opening of a study that has a finished seed.

    Attributes:
        opening: the newest one with a finished seed.
        openings: all openings of the study, the oldest first.
        of_images: all openings of the same test images, by the study and by others, the oldest first.
        slots: the slots of the finished seeds of the opening, [S].
        n_planned: number of seeds of the opening.
        images: the test images, [n].
        probabilities: of SSA, [S, n].
        default_slots: as `slots`, of the study's default; empty if it was not retrained with the trial.
        default_probabilities: as `probabilities`, of the default; None without it.
    """

    study: Study
    opening: OpeningRow
    openings: tuple[OpeningRow, ...]
    of_images: tuple[OpeningRow, ...]
    slots: tuple[RetrainSlot, ...]
    n_planned: int
    images: ImageRows
    probabilities: FloatArray
    default_slots: tuple[RetrainSlot, ...]
    default_probabilities: FloatArray | None

    @property
    def seeds(self) -> list[int]:
        """The finished seeds, [S]."""
        return [slot.payload.seed for slot in self.slots]

    @property
    def looks(self) -> list[OpeningRow]:
        """The openings of the test images that have not failed before any prediction."""
        return [row for row in self.of_images if row.is_look]

    @property
    def payload(self) -> RetrainPayload:
        """The payload that the seeds share: the trial, its params and its epochs."""
        return self.slots[0].payload


class NothingRetrainedError(UsageError):
    """No retraining of a study has finished."""


def load(storage: Storage, study_name: str) -> Evidence:
    """Return the evidence of the newest opening with a finished seed.

    Raises:
        StudyNotFoundError: no such study.
        UsageError: no retraining has finished.
    """
    study = studies.load_study(storage, study_name)
    stored = predictions_of(storage, study, Stage.RETRAIN, IMAGE_SET)
    slots = ledger.slots(storage, study, Stage.RETRAIN)
    of_images = openings_of_images(storage, study)
    openings = [row for row in of_images if row.study == study.uuid]
    # an opening that describes rows has no trial
    trial_of: dict[int | None, int | None] = {row.id: row.payload.get("trial") for row in openings}
    chosen = [slot for slot in slots if slot.payload.trial == trial_of[slot.payload.opening]]
    finished = [slot for slot in chosen if _is_finished(slot, stored)]
    if not finished:
        raise NothingRetrainedError(
            f"no retraining of {study_name} has finished, so there is nothing to report",
            hint=f"mhist-tune retrain {study_name}",
        )
    with_results = {slot.payload.opening for slot in finished}
    opening = next(row for row in reversed(openings) if row.id in with_results)
    reported = [slot for slot in finished if slot.payload.opening == opening.id]
    default = [
        slot
        for slot in slots
        if slot.payload.opening == opening.id
        and slot.payload.trial != opening.payload["trial"]
        and _is_finished(slot, stored)
    ]
    return Evidence(
        study=study,
        opening=opening,
        openings=tuple(openings),
        of_images=tuple(of_images),
        slots=tuple(reported),
        n_planned=sum(slot.payload.opening == opening.id for slot in chosen),
        images=image_rows(storage, study, IMAGE_SET),
        probabilities=np.stack([stored[slot.slot] for slot in reported]),
        default_slots=tuple(default),
        default_probabilities=np.stack([stored[slot.slot] for slot in default]) if default else None,
    )


def _is_finished(slot: RetrainSlot, stored: Mapping[int, FloatArray]) -> bool:
    return slot.state == SlotState.DONE and slot.slot in stored


def load_all(storage: Storage, names: Sequence[str]) -> list[Evidence]:
    """Return the evidence of several studies that were tested on the same images.

    Raises:
        StudyNotFoundError: no such study.
        UsageError: a study is named twice, has no finished retraining, or was tested on other images than the first.
    """
    if len(set(names)) < len(names) or len(names) < 2:
        raise UsageError("a comparison takes two or more different studies", hint="mhist-tune studies lists them")
    members = [load(storage, name) for name in names]
    first = members[0]
    for other in members[1:]:
        same_images = other.images.names == first.images.names and np.array_equal(
            other.images.labels, first.images.labels
        )
        if other.opening.fingerprint != first.opening.fingerprint or not same_images:
            raise UsageError(
                f"{first.study.name} and {other.study.name} were tested on different test partitions",
                hint="only models that predicted the very same images can be compared",
            )
    return members
