"""Workers with stores of their own, or one that they share, and trials that move from one to the other."""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mhist_tune.storage import event_log, ledger, studies
from mhist_tune.storage.database import open_storage
from mhist_tune.storage.epochs import epochs_of
from mhist_tune.storage.leases import Claim
from mhist_tune.training.checkpoints import writer
from mhist_tune.training.checkpoints.store import CheckpointStore
from mhist_tune.worker import trial_checkpoints
from mhist_tune.worker.checkpoint_keys import checkpoint_key
from mhist_tune.worker.checkpoint_places import open_checkpoints
from mhist_tune.worker.stages import search
from tests.support.s3 import S3Server

Run = Callable[..., tuple[int, str, str]]
Work = Callable[..., tuple[int, str]]

N_EPOCHS = 8

DEFINITION = f"""
[study]
name = "small"
n_trials = 2
pruner = {{ name = "none" }}
sampler = {{ name = "random" }}

[fixed]
model = "fcnn"
weights = "random"
image_size = 32
epochs = {N_EPOCHS}
patience = {N_EPOCHS}
precision = "fp32"
memory_format = "contiguous"
augmentation = "none"

[space]
drop_rate = {{ low = 0.1, high = 0.5 }}
"""


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place for checkpoints of each kind."""
    return str(tmp_path / "shared") if request.param == "folder" else request.getfixturevalue("s3_place")


@pytest.fixture
def s3_place(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place on the S3 server, which boto3 finds."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3.new_place()


@pytest.fixture
def work(run: Run, generated: Path, tmp_path: Path) -> Work:
    """A function that works on the study, which is new, with the checkpoints at a place: exit code and stderr."""
    (tmp_path / "small.toml").write_text(DEFINITION)
    code, _, err = run("create-study", "small.toml", "--data", str(generated))
    assert code == 0, err

    def call(place: str, *more: str) -> tuple[int, str]:
        common = ("--devices", "cpu", "--per-device", "1", "--data", str(generated))
        code, _, err = run("worker", "small", *common, "--checkpoints", place, *more)
        return code, err

    return call


@pytest.fixture
def stop_when_saved(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The first worker is stopped when the first checkpoint of its first trial is announced."""

    def announce(checkpoints: trial_checkpoints.TrialCheckpoints) -> None:
        original(checkpoints)
        if checkpoints.writer.saved_epoch is not None:
            monkeypatch.setattr(trial_checkpoints.TrialCheckpoints, "announce", original)
            os.kill(os.getpid(), signal.SIGTERM)

    original = trial_checkpoints.TrialCheckpoints.announce
    monkeypatch.setattr(writer, "SAVING_SHARE", 1e9)
    monkeypatch.setattr(trial_checkpoints.TrialCheckpoints, "announce", announce)
    yield


def events(err: str) -> list[dict[str, str]]:
    """Return the events of a worker's stderr."""
    found = [dict(re.findall(r'(\w+)=("[^"]*"|\S+)', line)) for line in err.splitlines()]
    return [event for event in found if "event" in event]


def named(err: str, name: str) -> list[dict[str, str]]:
    return [event for event in events(err) if event["event"] == name]


def all_done(url: str) -> None:
    """Assert that both trials are complete, with each epoch once."""
    with open_storage(url) as storage:
        study = studies.load_study(storage, "small")
        for slot in ledger.slots(storage, study, "search"):
            assert slot.state == "done"
            assert slot.outcome is not None
            assert slot.outcome.state == "COMPLETE"
            rows = epochs_of(storage, study, "search", slot.slot)
            assert [row.epoch for row in rows] == list(range(1, N_EPOCHS + 1))
        assert event_log.events(storage, study, kind="error") == []


def test_any_worker_resumes_any_trial(
    work: Work, place: str, stop_when_saved: None, storage_url_sqlite: str, tmp_path: Path
) -> None:
    """A worker that shares the store trains only the rest of a stopped worker's trial; the best trial's state stays."""
    assert work(place)[0] == 143
    code, err = work(place)

    assert code == 0, err
    assert int(named(err, "epoch")[0]["epoch"]) > 1
    assert not named(err, "anew")
    all_done(storage_url_sqlite)
    store = open_checkpoints(place, tmp_path)
    [kept] = store.keys("")
    with open_storage(storage_url_sqlite) as storage:
        study = studies.load_study(storage, "small")
        slots = ledger.slots(storage, study, "search")
        best = max(slots, key=lambda slot: (slot.outcome.value, -slot.slot))
        assert kept == checkpoint_key(study, "search", best.slot)
    state = store.load(kept)
    assert state is not None
    assert len(state["history"]) == N_EPOCHS


def test_a_stopped_worker_saves_what_its_cadence_left_out(
    work: Work, storage_url_sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first epoch is due to be saved; stopped after the third, the store has the third."""

    def announce(checkpoints: trial_checkpoints.TrialCheckpoints) -> None:
        announce_first(checkpoints)
        if checkpoints._where()["epoch"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    announce_first = trial_checkpoints.TrialCheckpoints.announce
    place = str(tmp_path / "here")
    with monkeypatch.context() as patched:
        patched.setattr(writer, "SAVING_SHARE", 0.0)
        patched.setattr(writer, "_KEEPING_SHARE", 1e9)
        patched.setattr(trial_checkpoints.TrialCheckpoints, "announce", announce)
        assert work(place)[0] == 143
    store = open_checkpoints(place, tmp_path)
    [key] = store.keys("")
    state = store.load(key)
    assert state is not None
    assert len(state["history"]) == 3

    assert work(place)[0] == 0
    all_done(storage_url_sqlite)


def test_a_trial_whose_checkpoint_is_elsewhere_is_left_to_others(
    work: Work, stop_when_saved: None, storage_url_sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that cannot read the checkpoint says so once and takes other slots. One that can resumes the trial."""
    assert work(str(tmp_path / "first"))[0] == 143

    def stop_waiting(*args: Any, **kwargs: Any) -> Claim | None:
        claim = claim_slot(*args, **kwargs)
        if claim is None and kwargs["excluding"] and not stopped.is_set():  # a second signal would end the process
            stopped.set()
            os.kill(os.getpid(), signal.SIGTERM)
        return claim

    claim_slot, stopped = ledger.take, threading.Event()
    monkeypatch.setattr(ledger, "take", stop_waiting)
    code, err = work(str(tmp_path / "second"))

    assert code == 143
    [event] = named(err, "unreachable")
    assert event["slot"] == "0"
    assert str(tmp_path / "first") in event["reason"]
    assert [event["slot"] for event in named(err, "done")] == ["1"]
    code, err = work(str(tmp_path / "first"))
    assert code == 0
    assert int(named(err, "epoch")[0]["epoch"]) > 1
    all_done(storage_url_sqlite)


def test_a_trial_that_nobody_reaches_is_begun_anew(
    work: Work, stop_when_saved: None, storage_url_sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins anew after every other slot and `PATIENCE_S`; recorded epochs stay, the others are recorded once."""
    assert work(str(tmp_path / "first"))[0] == 143
    monkeypatch.setattr(trial_checkpoints, "PATIENCE_S", 0.1)
    code, err = work(str(tmp_path / "second"))

    assert code == 0
    told = [
        (event["event"], event["slot"]) for event in events(err) if event["event"] in ("unreachable", "anew", "done")
    ]
    assert told == [("unreachable", "0"), ("done", "1"), ("anew", "0"), ("done", "0")]
    all_done(storage_url_sqlite)


def test_lost_checkpoints_are_not_waited_for(
    work: Work, stop_when_saved: None, storage_url_sqlite: str, tmp_path: Path
) -> None:
    """If the worker's own store lacks the recorded checkpoint, the trial begins anew at once."""
    assert work(str(tmp_path / "first"))[0] == 143
    for path in (tmp_path / "first").rglob("*.safetensors"):
        path.write_bytes(b"torn")
    code, err = work(str(tmp_path / "first"))

    assert code == 0
    assert [event["slot"] for event in named(err, "anew")] == ["0"]
    all_done(storage_url_sqlite)


def test_a_store_that_is_away_pauses_the_trial(
    work: Work, s3: S3Server, s3_place: str, storage_url_sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is killed during a trial: the worker says so, waits, and goes on when it is back."""

    def stop(*args: Any, **kwargs: Any) -> object:
        if kwargs["epoch"] == 2 and kwargs["slot"] == 0:
            s3.stop()
        return decide(*args, **kwargs)

    def wait(checkpoints: trial_checkpoints.TrialCheckpoints, error: Exception) -> None:
        s3.start()
        original(checkpoints, error)

    decide, original = search.decide, trial_checkpoints.TrialCheckpoints._wait
    monkeypatch.setattr(writer, "SAVING_SHARE", 1e9)
    monkeypatch.setattr(search, "decide", stop)
    monkeypatch.setattr(trial_checkpoints, "_WAIT_S", 0.01)
    monkeypatch.setattr(trial_checkpoints.TrialCheckpoints, "_wait", wait)
    code, err = work(s3_place)

    assert code == 0, err
    assert len(named(err, "blocked")) == 1
    all_done(storage_url_sqlite)


def test_a_store_that_is_away_keeps_no_trial(
    work: Work, s3: S3Server, s3_place: str, stop_when_saved: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial whose checkpoint is on a server that does not answer is left to others."""
    assert work(s3_place)[0] == 143

    def stop_waiting(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        check_elsewhere(*args, **kwargs)

    check_elsewhere = trial_checkpoints.TrialCheckpoints._check_elsewhere
    monkeypatch.setattr(trial_checkpoints.TrialCheckpoints, "_check_elsewhere", stop_waiting)
    s3.stop()
    try:
        code, err = work(s3_place)
    finally:
        s3.start()

    assert code == 143
    [event] = named(err, "unreachable")
    assert "cannot be reached" in event["reason"]


@pytest.mark.parametrize("place", ["s3://", "gs://bucket/x", "s3://key:secret@bucket/x"])
def test_other_places_are_refused(work: Work, place: str) -> None:
    """An impossible place is a usage error that shows no secret."""
    code, err = work(place)

    assert code == 2
    assert "s3://BUCKET/PREFIX" in err
    assert "secret" not in err


def test_deleting_a_study_removes_its_checkpoints(run: Run, work: Work, place: str, tmp_path: Path) -> None:
    """Deleting a study removes its checkpoints and no others."""
    assert work(place)[0] == 0
    store: CheckpointStore = open_checkpoints(place, tmp_path)
    assert len(store.keys("")) == 1
    code, _, err = run("delete-study", "small", "--yes", "--checkpoints", place)

    assert code == 0, err
    assert store.keys("") == set()


def test_doctor_tries_the_place(run: Run, place: str, tmp_path: Path) -> None:
    """A usable place is ok; an unusable one fails with a hint."""
    _, out, _ = run("doctor", "--checkpoints", place)
    assert f"ok    checkpoints: {place}" in out
    (tmp_path / "file").write_text("")
    code, out, _ = run("doctor", "--checkpoints", str(tmp_path / "file"))
    assert code == 1
    assert "fail  checkpoints: " in out
