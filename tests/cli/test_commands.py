"""The command line: light help, a frozen set of options, and one clear line for every mistake."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from mhist_tune.cli import COMMANDS, cli
from mhist_tune.storage.database import open_storage

HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "torchmetrics",
    "optuna",
    "sqlalchemy",
    "numpy",
    "imblearn",
    "sklearn",
    "scipy",
    "statsmodels",
    "pandas",
    "matplotlib",
    "jinja2",
    "PIL",
    "rich",
}

Run = Callable[..., tuple[int, str, str]]


def every_command() -> list[tuple[str, ...]]:
    """Return the path of every command and subcommand."""
    context = click.Context(cli)
    paths: list[tuple[str, ...]] = [()]
    for name in COMMANDS:
        command = cli.get_command(context, name)
        paths.append((name,))
        if isinstance(command, click.Group):
            paths += [(name, sub) for sub in command.list_commands(context)]
    return paths


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_help_loads_nothing_heavy(path: tuple[str, ...]) -> None:
    """No --help imports a numerical library, and each shows an example and exits 0."""
    code = (
        "import sys\n"
        "from mhist_tune.cli import main\n"
        f"try:\n    main({[*path, '--help']!r})\n"
        f"finally:\n    print('LOADED', sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "LOADED []" in done.stdout
    assert "Example:" in done.stdout or path == ("data",)


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        ("report.status", {"sqlalchemy"}),
        ("report.status_text", {"sqlalchemy"}),
        ("worker.supervisor", set()),
        ("worker.checkpoint_places", set()),
        ("actions.delete", {"sqlalchemy", "numpy", "PIL"}),
        ("worker.loop", {"sqlalchemy", "numpy", "torch", "torchvision", "timm", "optuna", "PIL"}),
    ],
)
def test_a_start_loads_what_it_needs(module: str, needed: set[str]) -> None:
    """A module loads none of the heavy libraries that it does not need at once."""
    code = f"import sys, mhist_tune.{module}\nprint('LOADED', sorted({HEAVY - needed!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "LOADED []\n"


def test_options_are_frozen() -> None:
    """The options are frozen: most settings belong into a study definition."""
    context = click.Context(cli)
    found = {}
    for path in every_command()[1:]:
        command = cli.get_command(context, path[0])
        if len(path) == 2:
            assert isinstance(command, click.Group)
            command = command.get_command(context, path[1])
        assert command is not None
        options = [opt for param in command.params if isinstance(param, click.Option) for opt in param.opts]
        found[" ".join(path)] = sorted(options)

    work = ["--checkpoints", "--checkpoints-gb", "--data", "--devices", "--per-device", "--storage"]
    work += ["--mix-versions", "--weights"]
    assert found == {
        "demo": ["--devices", "--storage"],
        "create-study": [
            "--data",
            "--dry-run",
            "--from",
            "--json",
            "--max-hours",
            "--n-trials",
            "--set",
            "--storage",
            "--weights",
        ],
        "worker": sorted([*work, "--count", "--max-idle", "--max-outage", "--wait"]),
        "run": sorted([*work, "--again"]),
        "retrain": sorted([*work, "--again", "--enqueue", "--n-seeds", "--trial", "--with-validation"]),
        "report": ["--about", "--against", "--checklist", "--json", "--output", "--prevalence", "--storage"],
        "ensemble": ["--json", "--storage"],
        "compare": ["--json", "--output", "--storage"],
        "status": ["--json", "--storage", "--watch"],
        "studies": ["--json", "--storage"],
        "best-trial": ["--export", "--json", "--storage"],
        "repeat": sorted([*work, "--enqueue", "--json", "--n"]),
        "replay": ["--json", "--storage"],
        "openings": ["--json", "--storage", "--verify"],
        "verify": ["--data", "--devices", "--json", "--per-device", "--storage", "--weights"],
        "export": ["--storage"],
        "predict": ["--json"],
        "extend": ["--max-hours", "--n-trials", "--storage", "--widen"],
        "pause": ["--storage"],
        "continue": ["--storage"],
        "stop": ["--storage"],
        "thaw": ["--storage"],
        "delete-study": ["--checkpoints", "--storage", "--yes"],
        "backup": ["--storage"],
        "dashboard": ["--base-path", "--host", "--port", "--read-only", "--storage", "--trusted-proxy"],
        "data": [],
        "data check": ["--json"],
        "data synthesize": ["--image-size", "--n-images", "--seed"],
        "data show": ["--output", "--sampling", "--seed"],
        "doctor": ["--checkpoints", "--data", "--json", "--storage"],
    }


def test_what_hardly_was_meant_is_said_at_creation_and_on_every_run(run: Run, tmp_path: Path, generated: Path) -> None:
    """A decay that float32 drops is named by create-study, and by run of the study that exists."""
    path = tmp_path / "idle.toml"
    path.write_text(
        '[study]\nname = "idle"\nn_trials = 1\n[fixed]\nmodel = "fcnn"\nweights = "random"\nimage_size = 32\n'
        "learning_rate = 1e-5\nweight_decay = 1e-3\n"
    )
    data = ("--data", str(generated))
    created = run("create-study", str(path), *data)
    again = run("run", "idle", "--devices", "7", *data)  # a device that is not there ends it before any training

    assert (created[0], again[0]) == (0, 2)
    assert all(
        "Warning: learning_rate 1e-05 x weight_decay 0.001 is below 3e-8" in err for _, _, err in (created, again)
    )


def test_mistakes_are_one_line_with_the_pinned_exit_code(run: Run, tmp_path: Path, generated: Path) -> None:
    """Each mistake ends with its code and an error line on stderr, shows no traceback and leaves no study behind."""
    bad = tmp_path / "bad.toml"
    bad.write_text(
        '[study]\nname = "bad"\n[fixed]\nmodel = "test_resnet"\n[space]\nlearning_rate = {low = 1.0, high = 0.1}\n'
    )
    unknown = tmp_path / "unknown.toml"
    unknown.write_text('[study]\nname = "unknown"\n[fixed]\ndrop_rat = 0.1\n')
    missing_column = tmp_path / "missing"
    missing_column.mkdir()
    (missing_column / "annotations.csv").write_text("Image Name,Majority Vote Label,Partition\nA.png,HP,train\n")
    read_only = tmp_path / "file"
    read_only.write_text("")
    open_storage(os.environ["MHIST_TUNE_STORAGE"]).close()  # empty: a refused command makes none
    no_server = "postgresql://nobody:sesame@127.0.0.1:9/none"
    mistakes = [
        (["create-stud", "vit"], 2),
        (["create-study", "vti", "--data", str(generated)], 2),
        (["create-study", "demo"], 2),
        (["create-study", str(bad), "--data", str(generated)], 2),
        (["create-study", str(unknown), "--data", str(generated)], 2),
        (["create-study", "demo", "--set", "epochs", "--data", str(generated)], 2),
        (["create-study", "demo", "--set", "epochs=0", "--data", str(generated)], 2),
        (["create-study", "demo", "--set", "dropout_placement=head+last2", "--data", str(generated)], 2),
        (["create-study", "demo", "--set", "weights=pretrained", "--data", str(generated)], 2),
        (["create-study", "demo", "--set", "n_per_class=400", "--data", str(generated)], 2),
        (["create-study", "demo", "--data", str(tmp_path / "nowhere")], 3),
        (["create-study", "demo", "--data", str(missing_column)], 3),
        (["worker", "nothing", "--data", str(generated)], 2),
        (["worker", "demo", "--devices", "7", "--data", str(generated)], 2),
        (["status", "nothing"], 2),
        (["compare", "nothing", "else"], 2),
        (["studies", "--storage", f"sqlite:///{read_only}/storage.db"], 4),
    ]
    for arguments, code in mistakes:
        got, _, err = run(*arguments)

        assert got == code, (arguments, err)
        assert "rror" in err
        assert "Traceback" not in err
    assert json.loads(run("studies", "--json")[1])["studies"] == []
    got, out, err = run("status", "--storage", no_server)
    assert got == 4
    assert "sesame" not in out + err


def test_a_wrong_command_names_the_nearest(run: Run) -> None:
    """`retrian` is answered with `retrain`."""
    code, _, err = run("retrian")

    assert code == 2
    assert "retrain" in err


def test_a_wrong_option_names_the_nearest(run: Run) -> None:
    """`--jsn` is answered with `--json`."""
    code, _, err = run("status", "--jsn")

    assert code == 2
    assert "--json" in err


@pytest.mark.parametrize(("words", "found"), [("mhist-tune st", "status"), ("mhist-tune status --j", "--json")])
def test_the_shell_completes_commands_and_options(words: str, found: str) -> None:
    """Completion loads nothing heavy."""
    code = (
        "import sys\n"
        "from mhist_tune.cli import main\n"
        f"try:\n    main([])\nfinally:\n    print('LOADED', sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    variables = {
        "_MHIST_TUNE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables}, check=True)

    assert f"plain,{found}" in done.stdout
    assert "LOADED []" in done.stdout
