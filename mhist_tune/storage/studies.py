"""Creates, loads, changes and deletes studies.

A study has a definition, image sets and slots in our tables, and a study of Optuna's for each stage.
"""

import functools
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Row

from mhist_tune.definition.hyperparameters import PROBED, Hyperparameters
from mhist_tune.definition.schema import NAME
from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.errors import DataError, StudyExistsError, StudyNotFoundError, did_you_mean
from mhist_tune.storage import announcements, damage, optuna_mirror, tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.payloads import Payload, SearchPayload, to_json
from mhist_tune.storage.stages import SlotState, Stage, StudyState

CODE_VERSION = "code_version"
"""The setting with the version of the code that trains the study: that of its first worker."""


@dataclass(frozen=True)
class Study:
    """A study as it was when it was read.

    Attributes:
        uuid: 32 hexadecimal digits; if a name is used again after a deletion, the new study has another UUID.
        name: unique in the database.
        definition: what the study file says.
        dataset: what identifies the data at its creation: `fingerprint` (of the train partition), `test_rows_sha256`
            and `test_sizes_sha256` (of the table's test rows and of the sizes of the test images; missing in studies of
            older versions), `weight_files` (the hash of each), and the `warnings` of the check of the data set.
        settings: settings that the first worker measured, for all workers, the version of its code, and where the first
            configurations come from.
        state: see `StudyState`.
        created_at: epoch seconds.
    """

    uuid: str
    name: str
    definition: StudyDefinition
    dataset: dict[str, Any]
    settings: dict[str, Any]
    state: StudyState
    created_at: float

    @property
    def folder_name(self) -> str:
        """The name of the study's folders of checkpoints, weights and thumbnails."""
        return f"{self.name}-{self.uuid[:8]}"


def create_study(
    storage: Storage,
    definition: StudyDefinition,
    *,
    dataset: dict[str, Any],
    image_sets: Mapping[str, Sequence[Sequence[Any]]],
    settings: Mapping[str, Any] | None = None,
) -> Study:
    """Store a study with its images and its search slots, and return it. Repeating the call changes nothing.

    Our rows are written in one transaction, then Optuna's study. After a kill in between, the next call creates it.

    Args:
        storage: the database.
        definition: the resolved definition; see its `slot_payloads`.
        dataset: JSON, see `Study`; a repeated call must have the same `fingerprint`, `test_rows_sha256` and
            `weight_files`.
        image_sets: by name, the rows [name, label, votes, group or None] in the order of later probabilities.
        settings: that a new study has, JSON; those of an existing one stay.

    Raises:
        StudyExistsError: the name is taken by another definition, or by an Optuna study that is not ours.
        DataError: the study exists, for other images or weight files.
    """
    new_uuid = uuid.uuid4().hex

    def insert(connection: Connection) -> None:
        row = {
            "uuid": new_uuid,
            "name": definition.name,
            "definition": definition.to_json(),
            "sha256": definition.sha256,
            "dataset": dataset,
            "settings": dict(settings or {}),
            "state": StudyState.ACTIVE,
            "created_at": storage.clock,
        }
        if not connection.execute(
            storage.insert_new(tables.studies).values(row), execution_options={"preserve_rowcount": True}
        ).rowcount:
            return
        for name, rows in image_sets.items():
            insert_image_set(connection, new_uuid, name, rows)
        insert_slots(
            connection, new_uuid, Stage.SEARCH, [SearchPayload(**payload) for payload in definition.slot_payloads()]
        )

    names = [optuna_name(definition.name, stage) for stage in Stage]
    if _find(storage, definition.name) is None:
        foreign = [name for name in names if optuna_mirror.is_foreign(storage, name, None)]
        # if ours exists now, another process has just created it
        if foreign and _find(storage, definition.name) is None:
            raise optuna_mirror.foreign_error(storage, foreign[0])
        storage.transaction(insert)
    study = load_study(storage, definition.name)
    if study.definition.sha256 != definition.sha256:
        raise StudyExistsError(
            f'study "{study.name}" exists with another definition',
            hint=f"give the new one another name, or delete the old one: mhist-tune delete-study {study.name}",
        )
    if study.dataset.get("fingerprint") != dataset.get("fingerprint"):
        raise DataError(
            f'study "{study.name}" was created with other images',
            hint="point --data to the same copy of the data set, or give the new study another name",
        )
    pinned = study.dataset.get("test_rows_sha256")
    if pinned and pinned != dataset.get("test_rows_sha256", pinned):
        raise DataError(
            f'study "{study.name}" was created with another test partition',
            hint="point --data to the same copy of the data set, or give the new study another name",
        )
    if study.dataset.get("weight_files", {}) != dataset.get("weight_files", {}):
        raise DataError(
            f'study "{study.name}" was created with another content of its weight file',
            hint="put back that file, or give the new study another name",
        )
    optuna_study_id(storage, study, Stage.SEARCH)
    return study


def insert_image_set(connection: Connection, study_uuid: str, name: str, rows: Sequence[Sequence[Any]]) -> None:
    """Insert the image set `name`, which must not exist."""
    values = {"study": study_uuid, "image_set": name, "n_images": len(rows), "rows": [list(row) for row in rows]}
    connection.execute(sqlalchemy.insert(tables.image_sets).values(values))


def insert_slots(
    connection: Connection, study_uuid: str, stage: Stage, payloads: Sequence[Payload], *, priority: int = 0
) -> list[int]:
    """Insert free slots numbered after the last one of the stage, and return their numbers.

    The caller has called `lock_study`, or inserts the study in the same transaction.
    """
    slots = tables.slots
    last = sqlalchemy.select(sqlalchemy.func.max(slots.c.slot)).where(slots.c.study == study_uuid)
    highest = connection.execute(last.where(slots.c.stage == stage)).scalar()
    first = 0 if highest is None else highest + 1
    rows = [
        {
            "study": study_uuid,
            "stage": stage,
            "slot": first + index,
            "payload": to_json(payload),
            "token": 0,
            "state": SlotState.FREE,
            "n_claims": 0,
            "priority": priority,
        }
        for index, payload in enumerate(payloads)
    ]
    if rows:
        connection.execute(sqlalchemy.insert(slots), rows)
        announcements.announce(connection, study_uuid)
    return [first + index for index in range(len(rows))]


def lock_study(connection: Connection, study: Study) -> Row[Any]:
    """Return the study's row, locked until the transaction ends.

    Raises:
        StudyNotFoundError: the study was deleted meanwhile.
    """
    query = sqlalchemy.select(tables.studies).where(tables.studies.c.uuid == study.uuid).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        raise StudyNotFoundError(f'study "{study.name}" was deleted')
    return row


def current(connection: Connection, study: Study) -> Study:
    """Return the study as the database has it now.

    Raises:
        StudyNotFoundError: the study was deleted meanwhile.
    """
    row = connection.execute(sqlalchemy.select(tables.studies).where(tables.studies.c.uuid == study.uuid)).first()
    if row is None:
        raise StudyNotFoundError(f'study "{study.name}" was deleted')
    return _study(row)


def n_images(connection: Connection, study: Study) -> tuple[int, int]:
    """Return the numbers of training and of validation images of a study."""
    table = tables.image_sets.c
    query = sqlalchemy.select(table.image_set, table.n_images).where(table.study == study.uuid)
    numbers = {row.image_set: row.n_images for row in connection.execute(query)}
    return numbers["train"], numbers["val"]


def load_study(storage: Storage, name: str) -> Study:
    """Return the study `name`.

    Raises:
        StudyNotFoundError: there is no study of that name.
    """
    # A name that no study can have is not asked for: no database takes every text.
    row = _find(storage, name) if NAME.fullmatch(name) else None
    if row is None:
        query = sqlalchemy.select(tables.studies.c.name)
        known = storage.read(lambda connection: list(connection.execute(query).scalars()))
        raise StudyNotFoundError(
            f'there is no study "{name}" in {storage.url_safe}{did_you_mean(name, known)}',
            hint="mhist-tune studies lists them" if known else f"create it: mhist-tune create-study {name}",
        )
    return _study(row)


def hyperparameters(study: Study, params: Mapping[str, Any]) -> Hyperparameters:
    """Return the hyperparameters for `fit`: the definition's fixed fields, `params`, and the probed settings."""
    fields = study.definition.hyperparameters(params).to_dict()
    probed = {"compile": "off", **study.settings["probed"]}  # studies that were probed before passes could be compiled
    return Hyperparameters.from_dict({**fields, **{name: probed[name] for name in PROBED}})


def list_studies(storage: Storage) -> list[Study]:
    """Return all studies, the oldest first."""
    query = sqlalchemy.select(tables.studies).order_by(tables.studies.c.created_at, tables.studies.c.name)
    return [_study(row) for row in storage.read(lambda connection: connection.execute(query).all())]


def delete_study(storage: Storage, study: Study) -> None:
    """Delete a study's rows in Optuna's tables and in ours. After a kill, call it again.

    `actions.delete` deletes its files.
    """
    # Optuna's rows go first: as long as ours exist, the study can be found and the deletion repeated.
    for stage in Stage:
        optuna_mirror.delete(storage, optuna_name(study, stage), study.uuid)

    def work(connection: Connection) -> None:
        for table in tables.OF_A_STUDY:
            connection.execute(sqlalchemy.delete(table).where(table.c.study == study.uuid))
        connection.execute(sqlalchemy.delete(tables.studies).where(tables.studies.c.uuid == study.uuid))

    storage.transaction(work)


def set_setting(storage: Storage, study: Study, key: str, value: Any) -> Study:
    """Set a setting unless it has a value, and return the study with the setting in the database.

    Args:
        storage: the database of the study.
        study: as it was read.
        key: the name of the setting.
        value: JSON.
    """

    def work(connection: Connection) -> Study:
        row = lock_study(connection, study)
        if key not in row.settings:
            update(connection, study, settings={**row.settings, key: value})
        return _study(lock_study(connection, study))

    return storage.transaction(work)


def redefine(storage: Storage, study: Study, definition: StudyDefinition) -> Study:
    """Replace the definition of a study and return the study. The hash and the text of its file are kept."""

    def work(connection: Connection) -> Study:
        lock_study(connection, study)
        update(connection, study, definition=definition.to_json())
        return _study(lock_study(connection, study))

    return storage.transaction(work)


def set_state(storage: Storage, study: Study, state: StudyState) -> None:
    """Make a study active, paused or stopped. No slot of a paused study is claimed."""

    def work(connection: Connection) -> None:
        update(connection, study, state=state)
        announcements.announce(connection, study.uuid)

    storage.transaction(work)


def optuna_name(study: Study | str, stage: Stage) -> str:
    """Return the name of the Optuna study of a stage: `NAME` for the search, else `NAME.STAGE`."""
    name = study if isinstance(study, str) else study.name
    return name if stage == Stage.SEARCH else f"{name}.{stage}"


def optuna_study_id(storage: Storage, study: Study, stage: Stage) -> int:
    """Return the id of the Optuna study of a stage. A missing one is created (direction: maximize).

    Raises:
        StudyExistsError: an Optuna study of that name is not ours.
    """
    return optuna_mirror.ensure(storage, optuna_name(study, stage), study.uuid)


def _find(storage: Storage, name: str) -> Row[Any] | None:
    query = sqlalchemy.select(tables.studies).where(tables.studies.c.name == name)
    return storage.read(lambda connection: connection.execute(query).first())


def _study(row: Row[Any]) -> Study:
    return Study(
        uuid=row.uuid,
        name=row.name,
        definition=_definition(row.definition),
        dataset=row.dataset,
        settings=row.settings,
        state=row.state,
        created_at=row.created_at,
    )


@functools.lru_cache(maxsize=128)
def _definition(record: str) -> StudyDefinition:
    with damage.explained("the definition of a study"):
        return StudyDefinition.from_json(record)


def update(connection: Connection, study: Study, **values: Any) -> None:
    """Set columns of the study's row."""
    connection.execute(sqlalchemy.update(tables.studies).where(tables.studies.c.uuid == study.uuid).values(values))
