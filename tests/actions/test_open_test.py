"""Openings of the test partition: what an opening fixes, and when another one is allowed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mhist_tune.actions import open_test
from mhist_tune.definition import study_file
from mhist_tune.errors import UsageError
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.leases import LeaseObserver
from mhist_tune.storage.openings import load_openings
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.studies import Study
from tests.conftest import IMAGE_SETS

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


@pytest.fixture
def study(storage: Storage) -> Study:
    return studies.create_study(
        storage, study_file.parse(DEFINITION, "test"), dataset={"fingerprint": "f"}, image_sets=IMAGE_SETS
    )


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


def test_it_loads_no_torch() -> None:
    """A fresh process that imports the module has not loaded torch."""
    heavy = "{'torch', 'timm', 'mhist_tune.worker.loop'}"
    code = f"import sys, mhist_tune.actions.open_test\nprint(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
