"""Openings of the test partition: what an opening fixes, and when another one is allowed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mhist_tune.actions import open_test, receipt
from mhist_tune.actions.opening_reason import require_allowed
from mhist_tune.data import cache, holdout
from mhist_tune.data.annotations import read_annotations
from mhist_tune.data.pin import test_pin as pin_of
from mhist_tune.definition import study_file
from mhist_tune.errors import DataError, UsageError
from mhist_tune.storage import ledger, opening_chain, studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.leases import LeaseObserver
from mhist_tune.storage.openings import OpeningRow, load_openings, record_opening, record_reading
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.studies import Study
from tests.conftest import IMAGE_SETS, Run

DEFINITION = """
[study]
name = "tiny"
n_trials = 2

[space]
learning_rate = { low = 1e-5, high = 1e-1, log = true }
"""


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with open_storage(f"sqlite:///{tmp_path}/tiny.db") as opened:
        yield opened


def pinned(root: Path) -> dict[str, Any]:
    """Return what a study knows of its data, as `create-study` stores it."""
    test = pin_of(root)
    assert test is not None
    return {
        "fingerprint": cache.fingerprint(root),
        "test_rows_sha256": test.rows,
        "test_sizes_sha256": test.sizes,
    }


def searched(storage: Storage, root: Path, name: str = "tiny", *, dataset: dict[str, Any] | None = None) -> Study:
    """Store a study of these images, with both trials complete."""
    study = make(storage, root, name, dataset=dataset)
    for value in (0.6, 0.7):
        complete_next(storage, study, value)
    return study


def make(
    storage: Storage, root: Path, name: str = "tiny", *, comparison: str = "", dataset: dict[str, Any] | None = None
) -> Study:
    """Store a study of these images."""
    named = f'name = "{name}"' + (f'\ncomparison = "{comparison}"' if comparison else "")
    definition = study_file.parse(DEFINITION.replace('name = "tiny"', named), "test")
    return studies.create_study(
        storage, definition, dataset=pinned(root) if dataset is None else dataset, image_sets=IMAGE_SETS
    )


@pytest.fixture
def study(storage: Storage, generated: Path) -> Study:
    return make(storage, generated)


@pytest.fixture
def copy(generated: Path, tmp_path: Path) -> Path:
    """A copy of the generated images that a test may change."""
    shutil.copytree(generated, tmp_path / "copy")
    return tmp_path / "copy"


def complete_next(storage: Storage, study: Study, value: float) -> None:
    """Complete the next search slot, trial 0 first, with this objective at epoch 3."""
    claim = ledger.claim(storage, study, ["search"], worker="w", observer=LeaseObserver())
    assert claim is not None
    ledger.attach_trial(storage, claim, 100 + claim.slot, claim.slot)
    params = {"learning_rate": 10.0 ** -(2 + claim.slot)}
    outcome = Outcome(state=EndState.COMPLETE, value=value, best_epoch=3, stopped_epoch=5, params=params)
    ledger.decide(storage, claim, outcome)
    assert ledger.finish(storage, claim)


def test_a_user_without_a_name_opens_it(
    storage: Storage, study: Study, generated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container that runs as a number without an entry in /etc/passwd, the opening is by that number."""
    for value in (0.6, 0.7):
        complete_next(storage, study, value)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987_654_321)
    open_test.open_test(storage, study, data_root=generated, n_seeds=2)

    assert [opening.by for opening in load_openings(storage, study)] == ["user 987654321: mhist-tune retrain"]


def test_the_best_trial_is_retrained_to_its_best_epoch(storage: Storage, study: Study, generated: Path) -> None:
    """An opening adds one slot a seed; the same call again returns it and adds nothing."""
    for value in (0.6, 0.7):
        complete_next(storage, study, value)
    first = open_test.open_test(storage, study, data_root=generated, n_seeds=2)
    assert open_test.open_test(storage, study, data_root=generated, trial=1, n_seeds=2) == first
    slots = ledger.slots(storage, study, "retrain")
    assert [(slot.payload.trial, slot.payload.seed, slot.payload.stop_epoch) for slot in slots] == [
        (1, 0, 3),
        (1, 1, 3),
    ]
    [opening] = load_openings(storage, study)
    assert (opening.id, opening.reason, opening.payload) == (first, "first opening", {"trial": 1, "seeds": [0, 1]})


def test_another_trial_needs_a_reason(storage: Storage, study: Study, generated: Path) -> None:
    """Another set is refused without a reason; with one it is a second opening."""
    for value in (0.6, 0.7):
        complete_next(storage, study, value)
    open_test.open_test(storage, study, data_root=generated, n_seeds=2)
    with pytest.raises(UsageError, match="opened for another trial"):
        open_test.open_test(storage, study, data_root=generated, trial=0, n_seeds=2)
    open_test.open_test(storage, study, data_root=generated, trial=0, n_seeds=2, again="trial 1 was a mistake")
    assert [opening.reason for opening in load_openings(storage, study)] == [
        "first opening",
        "trial 1 was a mistake",
    ]


def test_an_unfinished_search_has_no_final_choice(storage: Storage, study: Study, generated: Path) -> None:
    """Without a named trial nothing is opened while a slot is open; a trial that is not complete is refused."""
    complete_next(storage, study, 0.6)
    with pytest.raises(UsageError, match="1 unfinished"):
        open_test.open_test(storage, study, data_root=generated)
    with pytest.raises(UsageError, match="trial 1 of tiny is not a complete trial"):
        open_test.open_test(storage, study, data_root=generated, trial=1)
    assert load_openings(storage, study) == []


def test_nothing_is_opened_where_the_images_are_missing(storage: Storage, study: Study, tmp_path: Path) -> None:
    """The opening needs the fingerprint of the test partition, so the fingerprint is read first."""
    for value in (0.6, 0.7):
        complete_next(storage, study, value)
    with pytest.raises(Exception, match=r"annotations\.csv"):
        open_test.open_test(storage, study, data_root=tmp_path)
    assert load_openings(storage, study) == []


def test_another_study_on_the_same_images_needs_a_reason(storage: Storage, generated: Path) -> None:
    """Its first opening is refused without one; so is that of a study that was deleted and made again."""
    first = searched(storage, generated)
    open_test.open_test(storage, first, data_root=generated, n_seeds=2)
    second = searched(storage, generated, "second")
    with pytest.raises(UsageError, match="opened before, by tiny: this would be the second look"):
        open_test.open_test(storage, second, data_root=generated, n_seeds=2)
    with pytest.raises(UsageError, match="second look"):
        require_allowed(storage, second, None)
    open_test.open_test(storage, second, data_root=generated, n_seeds=2, again="another network")
    studies.delete_study(storage, first)
    third = searched(storage, generated)

    with pytest.raises(UsageError, match="opened before, by tiny, second: this would be the third look"):
        open_test.open_test(storage, third, data_root=generated, n_seeds=2)
    assert [opening.reason for opening in load_openings(storage, second)] == ["another network"]


def test_studies_of_a_declared_comparison_need_no_reason(storage: Storage, generated: Path) -> None:
    """One that was created before the first opening of its comparison opens as declared; a later one needs a reason."""
    first, second = (make(storage, generated, name, comparison="networks") for name in ("first", "second"))
    for study in (first, second):
        for value in (0.6, 0.7):
            complete_next(storage, study, value)
        open_test.open_test(storage, study, data_root=generated, n_seeds=2)
    late = make(storage, generated, "late", comparison="networks")
    for value in (0.6, 0.7):
        complete_next(storage, late, value)

    with pytest.raises(UsageError, match="third look"):
        open_test.open_test(storage, late, data_root=generated, n_seeds=2)
    assert [row.reason for study in (first, second) for row in load_openings(storage, study)] == [
        "first opening",
        'comparison "networks", declared before its first opening',
    ]


def flip_a_label(root: Path) -> None:
    table = root / "annotations.csv"
    lines = table.read_text().splitlines(keepends=True)
    index = next(index for index, line in enumerate(lines) if ",test" in line)
    name, label, *rest = lines[index].split(",")
    lines[index] = ",".join([name, {"SSA": "HP", "HP": "SSA"}[label], *rest])
    table.write_text("".join(lines))


def drop_an_image(root: Path) -> None:
    table = root / "annotations.csv"
    lines = table.read_text().splitlines(keepends=True)
    lines.remove(next(line for line in lines if ",test" in line))
    table.write_text("".join(lines))


def add_a_partition_column(root: Path) -> None:
    table = root / "annotations.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{lines[0]},Partition", *(f"{line},train" for line in lines[1:])]))


def replace_by_a_train_image(root: Path) -> None:
    shutil.copy(read_annotations(root, "train").paths[0], read_annotations(root, "test").paths[0])


def change_a_train_image(root: Path) -> None:
    with read_annotations(root, "train").paths[0].open("ab") as file:
        file.write(b"\0")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (flip_a_label, "the test rows of the table"),
        (drop_an_image, "the test rows of the table"),
        (add_a_partition_column, '"Partition" more than once'),
        (replace_by_a_train_image, "other files than when tiny was created"),
        (change_a_train_image, "not those that tiny was created with"),
    ],
)
def test_other_data_are_refused_before_the_opening(
    storage: Storage, generated: Path, copy: Path, change: Callable[[Path], None], problem: str
) -> None:
    """Nothing is recorded, and the right folder is then opened for the first time."""
    study = searched(storage, generated)
    change(copy)
    with pytest.raises(DataError, match=problem):
        open_test.open_test(storage, study, data_root=copy, n_seeds=2)
    assert load_openings(storage, study) == []

    open_test.open_test(storage, study, data_root=generated, n_seeds=2)
    assert [row.reason for row in load_openings(storage, study)] == ["first opening"]


def damage_an_image(root: Path) -> None:
    path = read_annotations(root, "test").paths[0]
    path.write_bytes(b"x" * path.stat().st_size)


def test_an_opening_that_failed_is_resumed_with_the_right_images(storage: Storage, generated: Path, copy: Path) -> None:
    """Files that turn out wrong when they are read end the opening before a slot exists. It stays on record."""
    study = searched(storage, generated)
    damage_an_image(copy)
    with pytest.raises(DataError, match="cannot be decoded"):
        open_test.open_test(storage, study, data_root=copy, n_seeds=2)
    assert ledger.slots(storage, study, "retrain") == []

    opening = open_test.open_test(storage, study, data_root=generated, n_seeds=2)
    failed, right = load_openings(storage, study)
    assert right.id == opening
    assert "cannot be decoded" in str(failed.failed)
    assert (failed.fingerprint, right.fingerprint) == ("", holdout.test_fingerprint(generated))
    assert right.reason == f"first opening; resumes opening {failed.id}, which failed before any prediction"
    assert len(ledger.slots(storage, study, "retrain")) == 2
    assert opening_chain.problems(storage) == []


def test_a_train_image_in_the_test_partition_ends_the_opening(storage: Storage, copy: Path) -> None:
    """Where the study was created with it, the copy is found when the images are read."""
    replace_by_a_train_image(copy)
    study = searched(storage, copy)
    with pytest.raises(DataError, match="same files as train images"):
        open_test.open_test(storage, study, data_root=copy, n_seeds=2)
    assert [row.is_look for row in load_openings(storage, study)] == [False]


def test_an_old_study_that_was_opened_with_another_folder_is_resumed(storage: Storage, generated: Path) -> None:
    """An older version recorded a wrong fingerprint and added slots; the right folder was refused for ever."""
    study = searched(storage, generated, dataset={"fingerprint": cache.fingerprint(generated)})
    old = record_opening(
        storage,
        study,
        by="me",
        code_version="0.1",
        reason=lambda earlier: "first opening",
        payload={"trial": 1, "seeds": [0, 1]},
        test_rows=None,
    )
    record_reading(storage, study, old.id, fingerprint="of another folder")

    opening = open_test.open_test(storage, study, data_root=generated, n_seeds=2)

    assert opening != old.id
    assert [row.failed is None for row in load_openings(storage, study)] == [False, True]


def test_the_receipt_comes_before_the_images_are_read(
    storage: Storage, generated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names study, definition, candidates, looks and the hash that is on record. No image was opened until then."""
    opened: list[str] = []
    real = cache.read_file
    monkeypatch.setattr(cache, "read_file", lambda path: (opened.append(path.name), real(path))[1])
    tests = set(read_annotations(generated, "test").names)
    study = searched(storage, generated)
    shown: list[str] = []

    def show(opening: OpeningRow, of_images: list[OpeningRow]) -> None:
        assert not tests & set(opened)
        shown.append(receipt.to_text(opening, of_images))

    open_test.open_test(storage, study, data_root=generated, n_seeds=2, announce=show)

    assert tests <= set(opened)
    (text,) = shown
    (row,) = load_openings(storage, study)
    for part in (study.uuid, study.definition.sha256, "trial 1; 2 seeds: 0, 1", "looks before  none", str(row.hash)):
        assert part in text
    assert "the first look at these images" in text


def test_the_chain_is_verified_on_the_command_line(run: Run, generated: Path, storage_url_sqlite: str) -> None:
    """A whole chain exits with 0. A changed reason exits with 1 and names the opening."""
    with open_storage(storage_url_sqlite) as storage:
        study = searched(storage, generated)
        open_test.open_test(storage, study, data_root=generated, n_seeds=2)
    code, out, _ = run("openings", "--verify")
    assert (code, "first opening" in out, "the chain of 2 entries is whole" in out) == (0, True, True)

    with open_storage(storage_url_sqlite) as storage:
        storage.transaction(
            lambda connection: connection.exec_driver_sql("UPDATE mhist_openings SET reason = 'none at all'")
        )
    code, out, err = run("openings", "--verify", "--json")
    assert code == 1
    assert json.loads(out)["problems"] == ["opening 1: reason not as in the chain"]
    assert "opening 1" in err


def test_it_loads_no_torch() -> None:
    """A fresh process that imports the module has not loaded torch."""
    heavy = "{'torch', 'timm', 'mhist_tune.worker.loop'}"
    code = f"import sys, mhist_tune.actions.open_test\nprint(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
