"""Deletes a study with its files. Every place is opened first; then the files are removed, and the rows last.

A study with rows can be found by its name. The same command therefore completes a deletion that was killed or failed.
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
        storage: the storage of the study.
        study: the study.
        checkpoints: the place of its checkpoints, see `open_files`; None for the storage folder and every place
            that a worker has recorded.

    Returns:
        The recorded places on other machines. Their files stay.

    Raises:
        UsageError: a place cannot be read; nothing is deleted.
        StorageError: a place does not answer, and nothing is deleted; or a file cannot be removed, and the rows stay.
    """
    places, unreachable = _places(storage, study, checkpoints)
    artifacts = optuna_attrs.artifacts(storage, study)
    with _errors_explained(study):
        for files in places:
            files.sizes(f"{study.folder_name}/")  # raises here if the place does not answer
        _remove_files(storage, study, places, artifacts)
    studies.delete_study(storage, study)
    with _errors_explained(study):
        _remove_files(storage, study, places, artifacts)  # files that a worker wrote in the meantime
    return unreachable


def _places(storage: Storage, study: Study, checkpoints: str | None) -> tuple[list[Files], list[str]]:
    """Return the files at the places that this machine can read, and the names of the other places."""
    default = open_files(checkpoints, storage.root)
    if checkpoints is not None:
        return [default], []
    events = event_log.events(storage, study, kind=event_log.CHECKPOINT)
    recorded = sorted({str(event.detail["place"]) for event in events} - {default.place})
    opened = {place: open_recorded(place) for place in recorded}
    readable = [files for files in opened.values() if files is not None]
    return [default, *readable], [place for place, files in opened.items() if files is None]


def _remove_files(storage: Storage, study: Study, places: Sequence[Files], artifacts: Set[str]) -> None:
    thumbnails.remove(storage, study)
    kept_weights.remove(storage, study)
    optuna_attrs.remove(storage, artifacts)
    for files in places:
        for name in files.sizes(f"{study.folder_name}/"):
            files.remove(name)


@contextlib.contextmanager
def _errors_explained(study: Study) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot remove the files of {study.name}: {error}",
            hint="make them readable and writable, then run the same command again",
        ) from error
