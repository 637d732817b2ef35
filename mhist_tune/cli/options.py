"""Options that several commands share, and their defaults."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import click

from mhist_tune.errors import UsageError

if TYPE_CHECKING:
    from mhist_tune.definition.study_file import StudyDefinition

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_STORAGE = "sqlite:///storage/mhist-tune.db"


def storage_option(command: Command) -> Command:
    """Add --storage. The option beats the environment, which beats the default."""
    return click.option(
        "--storage",
        "storage_url",
        envvar="MHIST_TUNE_STORAGE",
        default=DEFAULT_STORAGE,
        show_default=True,
        metavar="URL",
        help="Database of the studies (or MHIST_TUNE_STORAGE).",
    )(command)


def data_option(command: Command) -> Command:
    """Add --data. The option beats the environment."""
    return click.option(
        "--data",
        "data_root",
        envvar="MHIST_TUNE_DATA",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder with annotations.csv and images/ (or MHIST_TUNE_DATA).",
    )(command)


def devices_options(command: Command) -> Command:
    """Add --devices and --per-device."""
    command = click.option(
        "--per-device",
        type=click.IntRange(min=1),
        metavar="N",
        help="Workers per device.  [default: 1 on a GPU, one per core within memory on a CPU]",
    )(command)
    return click.option(
        "--devices", default="all", show_default=True, metavar="all|cpu|0,1", help="Devices to train on."
    )(command)


def checkpoints_option(command: Command) -> Command:
    """Add --checkpoints."""
    return click.option(
        "--checkpoints",
        envvar="MHIST_TUNE_CHECKPOINTS",
        metavar="DIR|s3://BUCKET/PREFIX",
        help="Place of the checkpoints (or MHIST_TUNE_CHECKPOINTS).  [default: checkpoints beside the storage]",
    )(command)


class WorkOptions(TypedDict):
    """The options of `work_options`."""

    devices: str
    per_device: int | None
    checkpoints: str | None
    checkpoints_gb: float | None


def work_options(command: Command) -> Command:
    """Add the options of every command that trains."""
    command = click.option(
        "--checkpoints-gb",
        envvar="MHIST_TUNE_CHECKPOINTS_GB",
        type=click.FloatRange(min=0, min_open=True),
        metavar="GB",
        help="Limit on their size (or MHIST_TUNE_CHECKPOINTS_GB).  [default: no limit]",
    )(command)
    return devices_options(checkpoints_option(command))


def json_option(command: Command) -> Command:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def required_data(data_root: Path | None) -> Path:
    """Return the data folder.

    Raises:
        UsageError: neither the option nor the variable names a folder.
    """
    if data_root is None:
        raise UsageError("no data set was named", hint="--data DIR or MHIST_TUNE_DATA")
    return data_root


def show_advice(definition: "StudyDefinition", data_warnings: Sequence[str]) -> None:
    """Print the warnings about the data set, and one for each setting that has less effect than it seems to."""
    from mhist_tune.definition.advice import advice

    for line in (*data_warnings, *advice(definition)):
        click.echo(f"Warning: {line}", err=True)


def follow_up(text: str) -> None:
    """Print the next command on stderr."""
    click.echo(f"next: {text}", err=True)
