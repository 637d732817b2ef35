"""Openings of the test partition on record, and the chain of their hashes."""

import hashlib
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy

from mhist_tune.errors import UsageError
from mhist_tune.storage import ledger, opening_chain, studies, tables
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.openings import (
    OpeningRow,
    has_predictions,
    load_all_openings,
    load_openings,
    openings_of_images,
    record_failure,
    record_opening,
    record_reading,
)
from mhist_tune.storage.payloads import RetrainPayload
from mhist_tune.storage.studies import Study

MakeStudy = Callable[..., Study]


@pytest.fixture
def study(make_study: MakeStudy) -> Study:
    return make_study(n_trials=2)


def seed_of(seed: int, opening: int | None = None) -> RetrainPayload:
    """Return the payload of the slot of one seed."""
    return RetrainPayload(trial=3, params={}, seed=seed, stop_epoch=1, configured_epochs=1, opening=opening)


def open_for(
    storage: Storage, study: Study, payload: dict[str, Any], *, rows: str = "r", fingerprint: str = "f"
) -> OpeningRow:
    """Record an opening, the reading of its images and two slots."""
    opening = record_opening(
        storage,
        study,
        by="me",
        code_version="1.0",
        reason=lambda earlier: f"after {len(earlier)}",
        payload=payload,
        test_rows=rows,
    )
    record_reading(storage, study, opening.id, fingerprint=fingerprint, slots=[seed_of(0), seed_of(1)])
    return opening


def test_an_opening_is_recorded_with_its_slots(storage: Storage, study: Study) -> None:
    """Each slot knows its opening; the same opening again adds nothing, another one does."""
    first = open_for(storage, study, {"trial": 3}).id
    assert open_for(storage, study, {"trial": 3}).id == first
    second = open_for(storage, study, {"trial": 4}).id

    opened = load_openings(storage, study)
    assert [(opening.id, opening.payload) for opening in opened] == [(first, {"trial": 3}), (second, {"trial": 4})]
    assert (opened[0].by, opened[0].code_version, opened[0].reason, opened[0].fingerprint) == (
        "me",
        "1.0",
        "after 0",
        "f",
    )
    assert (opened[0].study, opened[0].study_name) == (study.uuid, study.name)
    assert opened[0].definition_sha256 == study.definition.sha256
    assert abs(opened[0].opened_at - storage.now()) < 60
    assert [(slot.slot, slot.payload) for slot in ledger.slots(storage, study, "retrain")] == [
        (0, seed_of(0, first)),
        (1, seed_of(1, first)),
        (2, seed_of(0, second)),
        (3, seed_of(1, second)),
    ]


def test_simultaneous_openings_are_one_opening(storage: Storage, storage_url: str, study: Study) -> None:
    """Several processes that open the test partition with one payload record one opening."""
    barrier, ids = threading.Barrier(3), []

    def ask() -> None:
        with open_storage(storage_url) as own:
            barrier.wait()
            ids.append(open_for(own, study, {"trial": 3}).id)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ids) == 3
    assert len(set(ids)) == 1
    assert len(ledger.slots(storage, study, "retrain")) == 2


def test_simultaneous_openings_by_studies_are_one_chain(
    storage: Storage, storage_url: str, make_study: MakeStudy
) -> None:
    """Processes that open the same images for several studies at once each see the openings before their own."""
    made = [make_study(f"study{number}") for number in range(4)]
    barrier = threading.Barrier(len(made))

    def ask(study: Study) -> None:
        with open_storage(storage_url) as own:
            barrier.wait()
            open_for(own, study, {"trial": 3})

    threads = [threading.Thread(target=ask, args=(study,)) for study in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [row.reason for row in load_all_openings(storage)] == ["after 0", "after 1", "after 2", "after 3"]
    assert len(opening_chain.load_chain(storage)) == 8
    assert opening_chain.problems(storage) == []


def test_openings_outlive_their_study(storage: Storage, make_study: MakeStudy) -> None:
    """After a deletion, and a new study of the name, the opening still says by which study it was, and is counted."""
    first = make_study("small")
    open_for(storage, first, {"trial": 3})
    studies.delete_study(storage, first)
    second = make_study("small")
    again = open_for(storage, second, {"trial": 3})

    assert again.reason == "after 1"
    assert [(row.study, row.study_name) for row in openings_of_images(storage, second)] == [
        (first.uuid, "small"),
        (second.uuid, "small"),
    ]
    assert opening_chain.problems(storage) == []


def test_images_are_the_same_by_their_fingerprint(storage: Storage, make_study: MakeStudy) -> None:
    """The fingerprint decides where it is known, the rows of the table where an opening has not read the images."""
    made = [make_study(name) for name in ("one", "two", "three", "four")]
    open_for(storage, made[0], {"trial": 1}, rows="r", fingerprint="f")
    open_for(storage, made[1], {"trial": 1}, rows="other rows", fingerprint="f")
    open_for(storage, made[2], {"trial": 1}, rows="r", fingerprint="other images")
    record_opening(storage, made[3], by="me", code_version="1", reason=lambda _: "why", payload={}, test_rows="r")

    assert [row.study_name for row in openings_of_images(storage, made[0])] == ["one", "two", "four"]


def test_a_refused_reason_records_nothing(storage: Storage, study: Study) -> None:
    """An error of the reason leaves neither an opening nor an entry."""

    def refuse(earlier: object) -> str:
        raise UsageError("a reason is needed")

    with pytest.raises(UsageError, match="a reason is needed"):
        record_opening(storage, study, by="me", code_version="1", reason=refuse, payload={}, test_rows="r")

    assert load_all_openings(storage) == []
    assert opening_chain.load_chain(storage) == []


def test_a_failed_opening_is_on_record_and_its_slots_are_cancelled(storage: Storage, study: Study) -> None:
    """The same set is another opening then. Slots of the other opening stay free."""
    first = open_for(storage, study, {"trial": 3}).id
    assert not has_predictions(storage, study, first)
    record_failure(storage, study, first, "images of another folder")
    second = open_for(storage, study, {"trial": 3}).id

    assert [(row.id, row.failed) for row in load_openings(storage, study)] == [
        (first, "images of another folder"),
        (second, None),
    ]
    assert [slot.state for slot in ledger.slots(storage, study, "retrain")] == ["cancelled"] * 2 + ["free"] * 2
    assert opening_chain.problems(storage) == []


def test_the_hash_of_an_entry_is_that_of_two_lines(storage: Storage, study: Study) -> None:
    """Anybody can compute it: SHA-256 of the previous hash, a line feed and the content."""
    opening = open_for(storage, study, {"trial": 3})
    first, second = opening_chain.load_chain(storage)

    assert first.previous == "0" * 64
    assert first.hash == hashlib.sha256(f"{first.previous}\n{first.content}".encode()).hexdigest() == opening.hash
    assert second.previous == first.hash
    content = json.loads(first.content)
    assert (content["definition_sha256"], content["payload"]) == (study.definition.sha256, {"trial": 3})


OPENINGS, CHAIN = tables.openings, tables.opening_chain


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        (sqlalchemy.update(OPENINGS).where(OPENINGS.c.id == 1).values(reason="none"), "opening 1: reason not as in"),
        (sqlalchemy.update(OPENINGS).where(OPENINGS.c.id == 2).values(fingerprint="x"), "opening 2: fingerprint not"),
        (sqlalchemy.delete(OPENINGS).where(OPENINGS.c.id == 2), "opening 2: its row was removed"),
        (sqlalchemy.update(CHAIN).where(CHAIN.c.id == 1).values(content="{}"), "entry 1 (opening 1): its content"),
        (sqlalchemy.delete(CHAIN).where(CHAIN.c.id == 2), "entry 3 (opening 2): the entry before it was"),
        (sqlalchemy.delete(CHAIN).where(CHAIN.c.id > 2), "opening 2: study"),
    ],
)
def test_a_change_of_the_records_is_found(
    storage: Storage, study: Study, statement: sqlalchemy.Executable, found: str
) -> None:
    """Whatever row is changed or removed is named."""
    for trial in (1, 2):
        open_for(storage, study, {"trial": trial})
    assert opening_chain.problems(storage) == []

    storage.transaction(lambda connection: connection.execute(statement))

    assert any(problem.startswith(found) for problem in opening_chain.problems(storage))
