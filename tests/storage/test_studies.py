import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy

from mhist_tune.definition.study_file import StudyDefinition
from mhist_tune.errors import DataError, StudyExistsError, StudyNotFoundError
from mhist_tune.storage import event_log, ledger, studies, tables
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.openings import record_opening
from mhist_tune.storage.predictions import image_rows
from mhist_tune.storage.studies import Study
from tests.conftest import IMAGE_SETS, load_optuna_study
from tests.support.processes import Fleet

DATASET = {"fingerprint": "f"}

MakeDefinition = Callable[..., StudyDefinition]
MakeStudy = Callable[..., Study]


def n_rows(storage: Storage) -> dict[str, int]:
    """Count the rows of our tables but the schema's, and Optuna's studies."""

    def work(connection: sqlalchemy.Connection) -> dict[str, int]:
        count = sqlalchemy.select(sqlalchemy.func.count())
        return {
            table.name: connection.execute(count.select_from(table)).scalar_one()
            for table in tables.metadata.sorted_tables
            if table is not tables.schema
        }

    return {**storage.read(work), "optuna": len(storage.optuna.get_all_studies())}


def test_a_study_is_stored_with_its_images_its_slots_and_optunas_study(storage: Storage, make_study: MakeStudy) -> None:
    """A new study can be read back completely. Its first slots have the start entries in their order."""
    created = make_study(n_trials=4, start=(1e-3, 1e-2))

    study = studies.load_study(storage, "small")
    assert study == created
    assert (study.state, study.dataset, study.settings) == ("active", DATASET, {})
    assert study.definition.n_trials == 4
    slots = ledger.slots(storage, study, "search")
    assert [slot.slot for slot in slots] == [0, 1, 2, 3]
    assert [(slot.payload.params or {}).get("learning_rate") for slot in slots] == [1e-3, 1e-2, None, None]
    assert {(slot.state, slot.token, slot.n_claims) for slot in slots} == {("free", 0, 0)}
    assert image_rows(storage, study, "val").names == ("c.png", "d.png", "e.png")
    kept = load_optuna_study(storage, study, "search")
    assert kept.study_name == "small"
    assert kept.user_attrs == {"mhist_study": study.uuid}
    assert kept.direction == optuna.study.StudyDirection.MAXIMIZE


def test_creating_the_same_study_again_changes_nothing(storage: Storage, make_study: MakeStudy) -> None:
    """The same definition and images give the study that is there."""
    first = make_study()
    before = n_rows(storage)

    assert make_study() == first
    assert n_rows(storage) == before


def test_more_start_entries_than_trials_do_not_enlarge_the_budget(storage: Storage, make_study: MakeStudy) -> None:
    """The number of slots is n_trials, whatever else the definition says."""
    study = make_study(n_trials=1, start=(1e-3, 1e-2))

    assert ledger.counts(storage, study, "search") == {"free": 1}


def test_a_taken_name_is_refused(storage: Storage, make_study: MakeStudy, make_definition: MakeDefinition) -> None:
    """Another definition, or other images, under the name of a study: an error, and nothing changes."""
    make_study()
    before = n_rows(storage)

    with pytest.raises(StudyExistsError, match="another definition"):
        make_study(n_trials=4)
    with pytest.raises(DataError, match="other images"):
        studies.create_study(storage, make_definition(), dataset={"fingerprint": "g"}, image_sets=IMAGE_SETS)

    assert n_rows(storage) == before


@pytest.mark.parametrize("name", ["small", "small.retrain"])
def test_an_optuna_study_that_is_not_ours_is_left_alone(storage: Storage, make_study: MakeStudy, name: str) -> None:
    """If Optuna has a study with a name that we need, nothing is written."""
    storage.optuna.create_new_study([optuna.study.StudyDirection.MINIMIZE], study_name=name)
    before = n_rows(storage)

    with pytest.raises(StudyExistsError, match="not ours"):
        make_study()

    assert n_rows(storage) == before


def test_a_study_that_cannot_be_stored_leaves_nothing(storage: Storage, make_definition: MakeDefinition) -> None:
    """An error after the first statement undoes it: no study without its images and slots."""
    before = n_rows(storage)

    with pytest.raises(sqlalchemy.exc.StatementError):
        studies.create_study(
            storage, make_definition(), dataset=DATASET, image_sets={"val": [["a", float("nan"), 0, None]]}
        )

    assert n_rows(storage) == before


@pytest.mark.parametrize("statement", ["INSERT INTO mhist_slots", "INSERT INTO studies", "INSERT INTO study_user"])
def test_a_killed_creation_is_completed_by_the_next(
    storage_url: str, tmp_path: Path, make_definition: MakeDefinition, statement: str
) -> None:
    """After a kill in our transaction, before Optuna's study, or before its mark, the next call completes the study."""
    path = tmp_path / "study.toml"
    path.write_text(make_definition().text)
    with open_storage(storage_url) as storage, Fleet() as fleet:
        fleet.start("create", storage_url, str(path), json.dumps(IMAGE_SETS), statement)
        fleet.go()
        assert list(fleet.lines()) == []
        assert fleet.processes[0].returncode == -9
        rows = n_rows(storage)
        assert rows["mhist_slots"] == (0 if statement == "INSERT INTO mhist_slots" else 3)
        assert rows["mhist_studies"] == (0 if statement == "INSERT INTO mhist_slots" else 1)

        study = studies.create_study(storage, make_definition(), dataset=DATASET, image_sets=IMAGE_SETS)

        rows = n_rows(storage)
        counts = [rows[name] for name in ("mhist_studies", "mhist_image_sets", "mhist_slots", "optuna")]
        assert counts == [1, 2, 3, 1]
        assert load_optuna_study(storage, study, "search").user_attrs == {"mhist_study": study.uuid}


def run_together(n_threads: int, action: Callable[[int], Any]) -> list[Any]:
    """Run an action in several threads that start at once; return what they returned."""
    barrier, results = threading.Barrier(n_threads), []

    def run(index: int) -> None:
        barrier.wait()
        results.append(action(index))

    threads = [threading.Thread(target=run, args=(index,)) for index in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_several_may_create_the_same_study_at_once(
    storage: Storage, storage_url: str, make_definition: MakeDefinition
) -> None:
    """All get the same study."""

    def create(_: int) -> str:
        with open_storage(storage_url) as own:
            return studies.create_study(own, make_definition(), dataset=DATASET, image_sets=IMAGE_SETS).uuid

    uuids = run_together(4, create)

    assert len(uuids) == 4
    assert len(set(uuids)) == 1
    assert n_rows(storage)["optuna"] == 1


def test_the_first_setting_is_final(storage: Storage, make_study: MakeStudy) -> None:
    """Of several that set the same setting at once one wins, and all get its value; other settings are kept."""
    study = make_study()
    studies.set_setting(storage, study, "other", [1])

    told = run_together(4, lambda index: studies.set_setting(storage, study, "precision", index).settings["precision"])

    assert len(told) == 4
    assert len(set(told)) == 1
    assert studies.load_study(storage, "small").settings == {"other": [1], "precision": told[0]}


def test_an_unknown_study_is_answered_with_the_nearest_name(storage: Storage, make_study: MakeStudy) -> None:
    """The error suggests the most similar name, or how to create a study in an empty storage."""
    with pytest.raises(StudyNotFoundError) as caught:
        studies.load_study(storage, "smal")
    assert "create-study" in str(caught.value.hint)

    make_study()

    with pytest.raises(StudyNotFoundError, match=r"did you mean small\?"):
        studies.load_study(storage, "smal")


def test_states_are_set_and_studies_listed_in_their_order(storage: Storage, make_study: MakeStudy) -> None:
    """The oldest study comes first, each with its state."""
    study = make_study("zebra")
    make_study("ant")

    studies.set_state(storage, study, "paused")

    assert [(loaded.name, loaded.state) for loaded in studies.list_studies(storage)] == [
        ("zebra", "paused"),
        ("ant", "active"),
    ]


def test_each_stage_has_an_optuna_study_of_its_own(storage: Storage, make_study: MakeStudy) -> None:
    """NAME.retrain is created when it is first needed and marked as ours. Later calls find it."""
    study = make_study()

    study_id = studies.optuna_study_id(storage, study, "retrain")

    assert studies.optuna_study_id(storage, study, "retrain") == study_id
    assert studies.optuna_study_id(storage, study, "search") != study_id
    assert load_optuna_study(storage, study, "retrain").user_attrs == {"mhist_study": study.uuid}
    assert storage.optuna.get_study_id_from_name("small.retrain") == study_id


def test_deleting_removes_everything_of_one_study_and_nothing_else(storage: Storage, make_study: MakeStudy) -> None:
    """All its rows and Optuna studies are deleted, another study is unchanged, and the name is free again.

    The openings of the test partition are kept.
    """
    make_study("neighbour")
    before = n_rows(storage)
    study = make_study("small")
    studies.optuna_study_id(storage, study, "retrain")
    event_log.event(storage, study, kind="note")
    record_opening(storage, study, by="me", code_version="1", reason=lambda earlier: "why", payload={}, test_rows="f")

    studies.delete_study(storage, study)

    kept = {"mhist_openings": 1, "mhist_opening_chain": 1}
    assert n_rows(storage) == {name: n + kept.get(name, 0) for name, n in before.items()}
    assert make_study("small").uuid != study.uuid
    with pytest.raises(StudyNotFoundError, match="was deleted"):
        studies.set_setting(storage, study, "key", 1)
