"""Creates and deletes the Optuna studies that mirror ours.

Each holds the UUID of our study in a user attribute. Optuna studies with another mark are never changed.
"""

from typing import TYPE_CHECKING

from mhist_tune.errors import StudyExistsError
from mhist_tune.storage.database import Storage

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage

OWNER_ATTR = "mhist_study"
"""The user attribute of an Optuna study that holds the UUID of ours."""


def ensure(storage: Storage, name: str, owner_uuid: str) -> int:
    """Return the id of the Optuna study `name`. A missing study is created (direction: maximize) and marked.

    Raises:
        StudyExistsError: an Optuna study of that name belongs to something else.
    """

    def find_or_create() -> int:
        from optuna.exceptions import DuplicatedStudyError
        from optuna.study import StudyDirection

        study_id = _find(storage, name)
        if study_id is None:
            try:
                study_id = storage.optuna.create_new_study([StudyDirection.MAXIMIZE], study_name=name)
            except DuplicatedStudyError:  # another process was faster
                study_id = storage.optuna.get_study_id_from_name(name)
        if is_foreign(storage, name, owner_uuid):
            raise foreign_error(storage, name)
        if OWNER_ATTR not in storage.optuna.get_study_user_attrs(study_id):
            storage.optuna.set_study_user_attr(study_id, OWNER_ATTR, owner_uuid)
        return study_id

    return storage.retrying(find_or_create)


def in_memory() -> "tuple[optuna.Study, BaseStorage]":
    """Return an empty study (direction: maximize) in memory, and its storage. Optuna's log message is suppressed."""
    import optuna

    storage = optuna.storages.InMemoryStorage()
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(direction="maximize", storage=storage), storage
    finally:
        optuna.logging.set_verbosity(verbosity)


def delete(storage: Storage, name: str, owner_uuid: str) -> None:
    """Delete the Optuna study `name` with its trials, if it exists and belongs to `owner_uuid`."""

    def work() -> None:
        study_id = _find(storage, name)
        if study_id is not None and not is_foreign(storage, name, owner_uuid):
            storage.optuna.delete_study(study_id)

    storage.retrying(work)


def is_foreign(storage: Storage, name: str, owner_uuid: str | None) -> bool:
    """Return whether an Optuna study of that name exists and does not belong to `owner_uuid`.

    With `owner_uuid`, an empty study without a mark counts as its own: a kill came between its creation and the mark.
    """

    def look() -> bool:
        study_id = _find(storage, name)
        if study_id is None:
            return False
        mark = storage.optuna.get_study_user_attrs(study_id).get(OWNER_ATTR)
        if mark is None:
            return owner_uuid is None or storage.optuna.get_n_trials(study_id) > 0
        return bool(mark != owner_uuid)

    return storage.retrying(look)


def foreign_error(storage: Storage, name: str) -> StudyExistsError:
    """Return the error for a name that an Optuna study of something else has."""
    return StudyExistsError(
        f'an Optuna study "{name}" that is not ours is in {storage.url_safe}',
        hint="give the new study another name, or delete that one: optuna delete-study",
    )


def _find(storage: Storage, name: str) -> int | None:
    try:
        return storage.optuna.get_study_id_from_name(name)
    except KeyError:
        return None
