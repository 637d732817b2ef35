"""Deleting a study: nothing is lost while a place is wrong, and an interrupted deletion can be repeated."""

import io
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mhist_tune.actions.delete import delete
from mhist_tune.errors import StorageError
from mhist_tune.report import optuna_note
from mhist_tune.storage import event_log, kept_weights, ledger, studies, thumbnails
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study
from mhist_tune.worker.checkpoint_places import open_files
from tests.support import made_up
from tests.support.killed_worker import run_killed
from tests.support.s3 import S3Server

Run = Callable[..., tuple[int, str, str]]

FOLDERS = ("checkpoints", "models", "thumbnails", "artifacts")


def create(storage: Storage, *, checkpoints: str | None = None, recorded: str | None = None) -> Study:
    """Store a retrained study that has a file of each kind, with its checkpoint in a place."""
    study = made_up.create(storage)
    made_up.open_test(storage, study, seeds=(0,))
    made_up.retrain(storage, study, n_slots=1)
    files = open_files(checkpoints, storage.root)
    files.write(f"{study.folder_name}/search-00000/epoch-1.safetensors", io.BytesIO(b"state"))
    event_log.event(
        storage, study, kind=event_log.CHECKPOINT, stage="search", slot=0, detail={"place": recorded or files.place}
    )
    (slot,) = ledger.slots(storage, study, Stage.RETRAIN)
    weights = kept_weights.path_of(storage, study, slot.payload)
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    images = thumbnails.path_of(storage, study)
    thumbnails.write(images, ["00.png"], np.zeros((1, 3, 8, 8), dtype=np.uint8))
    images.with_suffix(".123.partial").write_bytes(b"left by a process that was killed")
    predictions = storage.root / "predictions.csv"
    predictions.write_text("image_name,probability\n")
    optuna_note.write_report(storage, study, "text", {}, predictions)
    predictions.unlink()
    assert {path.relative_to(storage.root).parts[0] for path in files_of(storage.root)} >= set(FOLDERS[1:])
    return study


def files_of(root: Path) -> list[Path]:
    """Return every file of a study below a storage folder."""
    return [path for folder in FOLDERS for path in (root / folder).rglob("*") if path.is_file()]


@pytest.fixture
def study(storage_url_sqlite: str) -> str:
    with open_storage(storage_url_sqlite) as storage:
        return create(storage).name


@pytest.mark.parametrize("place", ["s3://", "s3://bucket?x=1", "ftp://host/x"])
def test_a_wrong_place_loses_nothing(run: Run, study: str, tmp_path: Path, place: str) -> None:
    """A wrong place is a usage error and deletes nothing; the right command then deletes everything."""
    before = files_of(tmp_path / "storage")
    code, _, err = run("delete-study", study, "--yes", "--checkpoints", place)

    assert code == 2
    assert "s3://BUCKET/PREFIX" in err
    assert files_of(tmp_path / "storage") == before
    assert study in run("studies")[1]
    assert run("delete-study", study, "--yes")[0] == 0
    assert files_of(tmp_path / "storage") == []
    assert run("delete-study", study, "--yes")[0] == 2


@pytest.mark.parametrize(
    ("place", "n"),
    [
        ("mhist_tune.storage.thumbnails:remove", 1),
        ("mhist_tune.storage.kept_weights:remove", 1),
        ("mhist_tune.storage.optuna_attrs:remove", 1),
        ("mhist_tune.training.checkpoints.files:Folder.remove", 1),
        ("mhist_tune.storage.studies:delete_study", 1),
        ("mhist_tune.storage.optuna_mirror:delete", 2),
        ("mhist_tune.storage.database:Storage.transaction", 1),
    ],
)
def test_a_killed_deletion_is_repeated(
    run: Run, study: str, storage_url_sqlite: str, tmp_path: Path, place: str, n: int
) -> None:
    """After a kill before any of its steps, the same command removes the rest."""
    command = ["delete-study", study, "--yes", "--storage", storage_url_sqlite]
    assert run_killed(place, n, command) == -signal.SIGKILL
    code, _, err = run(*command)

    assert code == 0, err
    assert files_of(tmp_path / "storage") == []
    with open_storage(storage_url_sqlite) as storage:
        assert studies.list_studies(storage) == []
        assert storage.optuna.get_all_studies() == []


def test_a_file_that_cannot_be_removed_keeps_the_rows(run: Run, study: str, tmp_path: Path) -> None:
    """The same command exits with 4 until the cause is removed, and then deletes the rest."""
    [images] = (tmp_path / "storage" / "thumbnails").glob("*.zip")
    blocked = images.with_suffix(".d")
    blocked.mkdir()  # a folder, which nobody removes as a file
    code, _, err = run("delete-study", study, "--yes")

    assert code == 4
    assert "run the same command again" in err
    assert study in run("studies")[1]
    blocked.rmdir()
    assert run("delete-study", study, "--yes")[0] == 0
    assert files_of(tmp_path / "storage") == []


def test_an_unreadable_place_loses_nothing(run: Run, study: str, tmp_path: Path) -> None:
    """Checkpoints that cannot be listed end the deletion before the first file."""
    before = files_of(tmp_path / "storage")
    [state] = (tmp_path / "storage" / "checkpoints").rglob("*.safetensors")
    blocked = state.with_name("loop")
    blocked.symlink_to(blocked)
    assert run("delete-study", study, "--yes")[0] == 4
    blocked.unlink()
    assert files_of(tmp_path / "storage") == before


def test_recorded_places_are_emptied_too(storage_url_sqlite: str, tmp_path: Path) -> None:
    """A checkpoint is found in the place that its worker recorded; a place on another machine is named."""
    elsewhere = tmp_path / "elsewhere"
    with open_storage(storage_url_sqlite) as storage:
        study = create(storage, checkpoints=str(elsewhere))
        event_log.event(
            storage, study, kind=event_log.CHECKPOINT, detail={"place": f"{socket.gethostname()}-2:/scratch"}
        )
        assert any(path.is_file() for path in elsewhere.rglob("*"))

        assert delete(storage, study) == [f"{socket.gethostname()}-2:/scratch"]
        assert not any(path.is_file() for path in elsewhere.rglob("*"))


def test_a_bucket_that_does_not_answer_loses_nothing(
    storage_url_sqlite: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded bucket must answer before anything is deleted."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    place = s3.new_place()
    with open_storage(storage_url_sqlite) as storage:
        study = create(storage, checkpoints=place)
        before = files_of(storage.root)
        with monkeypatch.context() as wrong:
            wrong.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            with pytest.raises(StorageError, match="cannot be reached"):
                delete(storage, study)
        assert files_of(storage.root) == before
        assert studies.load_study(storage, study.name) == study

        assert delete(storage, study) == []
        assert open_files(place, storage.root).sizes("") == {}
        assert files_of(storage.root) == []
