"""Why the test partition is opened, and whether a person must say so.

The first opening of images needs no reason. Another opening by the same study does, and so does an opening by another
study, unless both studies belong to one comparison and existed before its first opening.
"""

from collections.abc import Sequence

from mhist_tune.errors import UsageError
from mhist_tune.storage import openings
from mhist_tune.storage.database import Storage
from mhist_tune.storage.openings import OpeningRow
from mhist_tune.storage.studies import Study
from mhist_tune.words import ordinal

_RESUMES = "; resumes opening "


def require_allowed(storage: Storage, study: Study, again: str | None) -> None:
    """Raise now what the first opening of a study would raise later.

    Raises:
        UsageError: another study has opened the same test images, and no reason is given.
    """
    earlier = openings.openings_of_images(storage, study)
    if not any(row.study == study.uuid for row in earlier):
        reason(study, earlier, again)


def reason(study: Study, earlier: Sequence[OpeningRow], again: str | None, *, resumed: OpeningRow | None = None) -> str:
    """Return the reason of an opening.

    Args:
        study: the study.
        earlier: the openings of the same images by any study.
        again: the reason that was given.
        resumed: the last opening of the same set by the study, which has failed.

    Raises:
        UsageError: a reason is needed.
    """
    looks = [row for row in earlier if row.is_look]
    if resumed:
        given = again or (resumed.reason or "first opening").partition(_RESUMES)[0]
        return f"{given}{_RESUMES}{resumed.id}, which failed before any prediction"
    if again:
        return again
    if not looks:
        return "first opening"
    if any(row.study == study.uuid for row in looks):
        raise UsageError(
            f"the test partition was opened for another trial or other seeds of {study.name}",
            hint="to open it again, give a reason: --again REASON",
        )
    comparison = study.definition.comparison
    if comparison and all(row.comparison == comparison for row in looks) and study.created_at <= looks[0].opened_at:
        return f'comparison "{comparison}", declared before its first opening'
    names = ", ".join(dict.fromkeys(row.study_name or "a deleted study" for row in looks))
    raise UsageError(
        f"these test images were opened before, by {names}: this would be the {ordinal(len(looks) + 1)} look at them",
        hint="to open them again, give a reason: --again REASON",
    )
