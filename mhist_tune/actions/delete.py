"""Deleting a study: every place is opened first, then the files go, and the rows go last.

While its rows stand, a study can be found by its name. A deletion that was killed, or that failed, is therefore
repeated by the same command.
"""

import contextlib
from collections.abc import Iterator, Sequence, Set

from mhist_tune.errors import StorageError
from mhist_tune.storage import event_log, kept_weights, optuna_attrs, studies, thumbnails
from mhist_tune.storage.database import Storage
from mhist_tune.storage.studies import Study
from mhist_tune.training.checkpoints.files import Files
from mhist_tune.worker.checkpoint_places import open_files, open_recorded


def delete(storage: Storage, study: Study, *, checkpoints: str | None = None) -> list[str]:
    """Delete a study with all its records, checkpoints, kept weights and small test images; reports stay.

    Args:
        storage: where the study is.
        study: the study.
        checkpoints: the place of its checkpoints, see `open_files`; None for the storage folder and every place
            that a worker has recorded.

    Returns:
        The recorded places on other machines, whose files stay.

    Raises:
        UsageError: a place cannot be read; nothing is deleted.
        StorageError: a place does not answer, and nothing is deleted; or a file cannot be removed, and the rows stay.
    """
    places, unreachable = _places(storage, study, checkpoints)
    artifacts = optuna_attrs.artifacts(storage, study)
    with _explained(study):
        for files in places:
            files.sizes(f"{study.folder_name}/")  # a place that does not answer ends the deletion here
        _remove_files(storage, study, places, artifacts)
    studies.delete_study(storage, study)
    with _explained(study):
        _remove_files(storage, study, places, artifacts)  # those that a worker wrote in the meantime
    return unreachable


def _places(storage: Storage, study: Study, checkpoints: str | None) -> tuple[list[Files], list[str]]:
    """Return the places of checkpoints that are reached from here, and the names of the others."""
    default = open_files(checkpoints, storage.root)
    if checkpoints is not None:
        return [default], []
    events = event_log.events(storage, study, kind=event_log.CHECKPOINT)
    recorded = sorted({str(event.detail["place"]) for event in events} - {default.place})
    opened = {place: open_recorded(place) for place in recorded}
    reached = [files for files in opened.values() if files is not None]
    return [default, *reached], [place for place, files in opened.items() if files is None]


def _remove_files(storage: Storage, study: Study, places: Sequence[Files], artifacts: Set[str]) -> None:
    thumbnails.remove(storage, study)
    kept_weights.remove(storage, study)
    optuna_attrs.remove(storage, artifacts)
    for files in places:
        for name in files.sizes(f"{study.folder_name}/"):
            files.remove(name)


@contextlib.contextmanager
def _explained(study: Study) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot remove the files of {study.name}: {error}",
            hint="make them readable and writable, then run the same command again",
        ) from error
