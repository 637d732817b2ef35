"""What a command leaves behind when it is refused, and the command that it names as the next one."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import open_storage
from mhist_tune.storage.stages import Stage
from mhist_tune.worker import slot_run
from tests.support.postgres import PostgresServer

Run = Callable[..., tuple[int, str, str]]

DEFINITION = """
[study]
name = "tiny"
n_trials = 2
pruner = { name = "none" }
sampler = { name = "random" }

[fixed]
model = "fcnn"
weights = "random"
image_size = 32
epochs = 2
patience = 2
precision = "fp32"
memory_format = "contiguous"
weight_decay = WEIGHT_DECAY

[space]
drop_rate = { low = 0.1, high = 0.5 }
"""

CPU = ("--devices", "cpu", "--per-device", "1")


@pytest.fixture
def definition(tmp_path: Path) -> str:
    """The path of a small definition, in a folder with a space in its name."""
    folder = tmp_path / "my studies"
    folder.mkdir()
    (folder / "tiny.toml").write_text(DEFINITION.replace("WEIGHT_DECAY", "0.0"))
    return str(folder / "tiny.toml")


def next_of(err: str) -> list[str]:
    """Return the words of the one command that is named as the next one."""
    [line] = [line for line in err.splitlines() if line.startswith("next: ")]
    return shlex.split(line.removeprefix("next: "))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("create-study", "demo", "--set", "model=nothing", "--data", "{data}"), 2),
        (("create-study", "demo", "--data", "{tmp}"), 3),
        (("create-study", "demo", "--from", "other", "--data", "{data}"), 4),
        (("create-study", "demo", "--dry-run", "--from", "other", "--data", "{data}"), 4),
        (("run", "demo", "--data", "{tmp}"), 3),
        (("run", "demo", "--data", "{data}", "--devices", "7"), 2),
        (("run", "nothing", "--data", "{data}"), 2),
        (("demo", "--devices", "7"), 2),
        (("worker", "--data", "{data}"), 4),
        (("worker", "tiny", "--data", "{data}"), 4),
        (("worker", "--wait", "--data", "{data}", "--devices", "7"), 2),
        (("retrain", "tiny", "--data", "{data}"), 4),
        (("verify", "tiny", "--data", "{data}"), 4),
        (("studies",), 0),
        (("studies", "--json"), 0),
        (("status",), 4),
        (("report", "tiny"), 4),
        (("best-trial", "tiny"), 4),
        (("compare", "tiny", "other"), 4),
        (("ensemble", "tiny", "other"), 4),
        (("replay", "tiny"), 4),
        (("export", "tiny", "records"), 4),
        (("extend", "tiny", "--n-trials", "1"), 4),
        (("pause", "tiny"), 4),
        (("thaw", "tiny", "1"), 4),
        (("delete-study", "tiny", "--yes"), 4),
        (("dashboard",), 4),
        (("doctor",), 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_no_storage_is_made_by_reading_or_refusing(
    run: Run, arguments: tuple[str, ...], code: int, tmp_path: Path, generated: Path
) -> None:
    """A command that reads, and one that is refused, leave neither a database nor its folder."""
    code_found, _, err = run(*(word.format(data=generated, tmp=tmp_path) for word in arguments))

    assert code_found == code, err
    assert list(tmp_path.iterdir()) == []


def test_the_next_command_can_be_pasted(run: Run, definition: str, tmp_path: Path, generated: Path) -> None:
    """It names the storage and the data of this command line, quoted, where the next command takes them."""
    storage = f"sqlite:///{tmp_path}/a b/x.db"
    code, _, err = run("create-study", definition, "--data", str(generated), "--storage", storage)
    assert code == 0, err
    assert next_of(err) == ["mhist-tune", "worker", "tiny", "--storage", storage, "--data", str(generated)]

    asked = run("extend", "tiny", "--n-trials", "1", "--storage", storage)
    assert next_of(asked[2]) == ["mhist-tune", "worker", "tiny", "--storage", storage]
    worked = run(*next_of(err)[1:], *CPU)
    assert next_of(worked[2]) == ["mhist-tune", "retrain", "tiny", "--storage", storage, "--data", str(generated)]


def test_the_next_command_shows_no_password(
    run: Run, postgres: PostgresServer, definition: str, generated: Path
) -> None:
    """The password of a storage is not repeated, though the line must be completed then."""
    url = postgres.new_database()
    code, out, err = run("create-study", definition, "--data", str(generated), "--storage", url)
    [line] = [line for line in err.splitlines() if line.startswith("next: ")]

    assert code == 0
    assert ":***@" in line
    assert url.split("@")[0].rpartition(":")[2] not in out + err


def test_what_the_environment_names_is_left_to_it(run: Run, definition: str, generated: Path) -> None:
    """A storage from the environment is not repeated: it is still there."""
    _, _, err = run("create-study", definition, "--data", str(generated))

    assert next_of(err) == ["mhist-tune", "worker", "tiny", "--data", str(generated)]


def test_hints_do_not_go_in_a_circle(run: Run, definition: str, generated: Path) -> None:
    """After a search without a result neither worker nor retrain names the other."""
    path = Path(definition)
    path.write_text(DEFINITION.replace("WEIGHT_DECAY", "1e30"))
    data = ("--data", str(generated))
    assert run("create-study", definition, *data)[0] == 0
    worked = run("worker", "tiny", *data, *CPU)
    retrained = run("retrain", "tiny", *data, *CPU)

    assert (worked[0], retrained[0]) == (0, 2)
    assert next_of(worked[2])[:3] == ["mhist-tune", "status", "tiny"]
    for err in (retrained[2], run("best-trial", "tiny")[2]):
        assert "hint: see why: mhist-tune status tiny; then add trials: mhist-tune extend tiny --n-trials N" in err


def test_a_paused_study_is_said_to_be_paused(run: Run, definition: str, generated: Path) -> None:
    """A worker that finds its study paused names the command that continues it."""
    data = ("--data", str(generated))
    run("create-study", definition, *data)
    run("pause", "tiny")
    code, _, err = run("worker", "tiny", *data, *CPU)

    assert code == 0
    assert "event=left" in err
    assert 'reason="tiny is paused: 2 slots free"' in err
    assert next_of(err) == ["mhist-tune", "continue", "tiny"]


def test_a_worker_whose_trainings_all_fail_ends_with_1(
    run: Run, definition: str, generated: Path, monkeypatch: pytest.MonkeyPatch, storage_url_sqlite: str
) -> None:
    """Every trial that it ran is FAIL: the exit code says so, and the message has the reason."""

    def fail(*_: object, **__: object) -> None:
        raise ArithmeticError("no luck")

    monkeypatch.setattr(slot_run, "fit", fail)
    data = ("--data", str(generated))
    run("create-study", definition, *data)
    code, _, err = run("worker", "tiny", *data, *CPU)

    assert code == 1
    assert "error: all 2 trainings of this worker failed, the last: ArithmeticError: no luck" in err
    with open_storage(storage_url_sqlite) as storage:
        slots = ledger.slots(storage, studies.load_study(storage, "tiny"), Stage.SEARCH)
    assert [slot.outcome.state for slot in slots if slot.outcome] == ["FAIL", "FAIL"]


def test_a_bucket_without_keys_ends_a_worker_at_once(
    run: Run, definition: str, generated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Missing keys are an error before the first epoch, not a wait after it; so are names that no bucket can have."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    data = ("--data", str(generated))
    run("create-study", definition, *data)
    code, _, err = run("worker", "tiny", *data, *CPU, "--checkpoints", "s3://no-such-bucket/x")
    assert code == 4
    assert "error: cannot use the checkpoints in s3://no-such-bucket/x: Unable to locate credentials" in err

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    assert run("worker", "tiny", *data, *CPU, "--checkpoints", "s3://no%20bucket/x")[0] == 4
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    assert run("worker", "tiny", *data, *CPU, "--checkpoints", "s3://bucket/x")[0] == 2


def test_retraining_can_be_left_to_other_workers(run: Run, definition: str, generated: Path) -> None:
    """`retrain --enqueue` prints the receipt, adds the slots and trains nothing; any worker then trains them."""
    data = ("--data", str(generated))
    run("create-study", definition, *data)
    run("worker", "tiny", *data, *CPU)
    code, out, err = run("retrain", "tiny", "--n-seeds", "2", "--enqueue", *data)

    assert code == 0, err
    assert "Opening 1 of the test partition" in out and "event=" not in err
    assert next_of(err)[:3] == ["mhist-tune", "worker", "tiny"]
    assert run("worker", "tiny", *data, *CPU)[2].count("event=done") == 2
