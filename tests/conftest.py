"""Fixtures for tests that need a database: both kinds, real ones, a fresh one for each test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from mhist_tune.cli import main
from mhist_tune.data.synthesize import synthesize
from mhist_tune.definition import study_file
from mhist_tune.storage import studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study
from tests.support.postgres import PostgresServer

if TYPE_CHECKING:
    import optuna

    from tests.support.s3 import S3Server

DEFINITION = """
[study]
name = "{name}"
n_trials = {n_trials}
pruner = {pruner}
lease_s = {lease_s}

[space]
learning_rate = {{ low = {low}, high = 1e-1, log = true }}
{start}
"""

IMAGE_SETS = {
    "train": [["a.png", 0, 0, "p1"], ["b.png", 1, 7, "p2"]],
    "val": [["c.png", 0, 2, "p3"], ["d.png", 1, 5, "p4"], ["e.png", 0, 3, "p4"]],
}

Run = Callable[..., tuple[int, str, str]]
MakeStudy = Callable[..., Study]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole run, started when a test first needs it."""
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def s3() -> Iterator["S3Server"]:
    """An S3 server for the whole run, started when a test first needs it."""
    from tests.support.s3 import S3Server

    server = S3Server()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/storage/mhist-tune.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.new_database()
    yield url
    server.drop_database(url)


@pytest.fixture
def storage(storage_url: str) -> Iterator[Storage]:
    """An open storage without studies, of each kind."""
    with open_storage(storage_url) as opened:
        yield opened


@pytest.fixture
def make_definition() -> Callable[..., study_file.StudyDefinition]:
    """A function that returns a small study definition."""

    def make(
        name: str = "small",
        *,
        n_trials: int = 3,
        lease_s: float = 0.5,
        low: float = 1e-5,
        start: tuple[float, ...] = (),
        pruner: str = '{ name = "hyperband" }',
    ) -> study_file.StudyDefinition:
        entries = "\n".join(f"[[start]]\nlearning_rate = {rate}" for rate in start)
        text = DEFINITION.format(name=name, n_trials=n_trials, lease_s=lease_s, low=low, start=entries, pruner=pruner)
        return study_file.parse(text, "test")

    return make


@pytest.fixture
def make_study(storage: Storage, make_definition: Callable[..., study_file.StudyDefinition]) -> MakeStudy:
    """A function that stores such a study, with two train and three validation images."""

    def make(name: str = "small", **options: object) -> Study:
        return studies.create_study(
            storage, make_definition(name, **options), dataset={"fingerprint": "f"}, image_sets=IMAGE_SETS
        )

    return make


def load_optuna_study(storage: Storage, study: Study, stage: str) -> "optuna.Study":
    """Return Optuna's study of a stage, as Optuna itself loads it."""
    import optuna

    name = studies.optuna_name(study, Stage(stage))
    return storage.retrying(lambda: optuna.load_study(study_name=name, storage=storage.optuna))


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty generated images of 32 px in MHIST's layout; to be read only."""
    root = tmp_path_factory.mktemp("generated") / "images"
    synthesize(root, n_images=60, image_size=32, seed=0)
    return root


@pytest.fixture
def storage_url_sqlite(tmp_path: Path) -> str:
    """The URL of a SQLite storage that is not there yet."""
    return f"sqlite:///{tmp_path}/storage/mhist-tune.db"


@pytest.fixture
def run(
    storage_url_sqlite: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """A function that runs one command line on a fresh SQLite storage: exit code, stdout, stderr."""
    monkeypatch.setenv("MHIST_TUNE_STORAGE", storage_url_sqlite)
    monkeypatch.delenv("MHIST_TUNE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        n_threads = torch.get_num_threads()
        try:
            main(arguments)
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 0
        finally:
            torch.set_num_threads(n_threads)  # a worker takes all cores, which the tests beside it and after it share
        return code, *capfd.readouterr()

    return call
