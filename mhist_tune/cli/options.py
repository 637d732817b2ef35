"""Options that several commands share, and their defaults."""

import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import click
from click.core import ParameterSource

from mhist_tune.errors import UsageError

if TYPE_CHECKING:
    from mhist_tune.definition.study_file import StudyDefinition

Command = TypeVar("Command", bound=Callable[..., Any])

_PASSED_ON = {"storage_url": "--storage", "data_root": "--data", "checkpoints": "--checkpoints"}
"""The options of a command line that the next command is shown with, by parameter."""

DEFAULT_STORAGE = "sqlite:///storage/mhist-tune.db"


class LocalPath(click.Path):
    """A path that the file system takes: without NUL, not too long, no loop of links."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail as click's types do."""
        if not value:
            self.fail("the path is empty", param, ctx)
        try:
            Path(value).stat()
        except (FileNotFoundError, NotADirectoryError, PermissionError):  # the command says what it needs
            pass
        except (OSError, ValueError) as error:  # ValueError: a NUL
            self.fail(f"'{value}': {getattr(error, 'strerror', None) or error}", param, ctx)
        return super().convert(value, param, ctx)


class Finite(click.FloatRange):
    """A finite number above 0."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or fail as click's types do."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


SEED = click.IntRange(0, 2**63 - 1)
"""The type of a seed."""

PATH = LocalPath()
"""The type of a path on this machine."""

_MOST_WORKERS = 256


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
        type=PATH,
        metavar="DIR",
        help="Folder with annotations.csv and images/ (or MHIST_TUNE_DATA).",
    )(command)


def devices_options(command: Command) -> Command:
    """Add --devices and --per-device."""
    command = click.option(
        "--per-device",
        type=click.IntRange(1, _MOST_WORKERS),
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


def weights_option(command: Command) -> Command:
    """Add --weights."""
    return click.option(
        "--weights",
        multiple=True,
        type=LocalPath(),
        metavar="FILE",
        help="Where the study's weight file is on this machine; found by its content. Repeatable.",
    )(command)


class WorkOptions(TypedDict):
    """The options of `work_options`."""

    devices: str
    per_device: int | None
    checkpoints: str | None
    checkpoints_gb: float | None
    weights: tuple[Path, ...]
    mix_versions: bool


def work_options(command: Command) -> Command:
    """Add the options of every command that trains."""
    command = click.option(
        "--mix-versions", is_flag=True, help="Train rows of a table that another version of mhist-tune trains."
    )(weights_option(command))
    command = click.option(
        "--checkpoints-gb",
        envvar="MHIST_TUNE_CHECKPOINTS_GB",
        type=Finite(),
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


def follow_up(*words: str) -> None:
    """Print the next command on stderr, such that it can be pasted into a shell.

    It gets the storage, the data and the place of checkpoints that this command line named, if it takes them.
    """
    context = click.get_current_context()
    group = context.find_root().command
    command = group.get_command(context, words[0]) if isinstance(group, click.Group) else None
    taken = {param.name for param in command.params} if command else set()
    line = ["mhist-tune", *words]
    for name, option in _PASSED_ON.items():
        if name in taken and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            line += [option, _without_password(str(context.params[name]))]
    click.echo(f"next: {shlex.join(line)}", err=True)


def follow_up_file(path: Path) -> None:
    """Print the command that opens a file on stderr."""
    click.echo(f"next: open {shlex.quote(str(path))}", err=True)


def _without_password(value: str) -> str:
    if "://" not in value or "@" not in value:
        return value
    from sqlalchemy.engine import make_url  # loaded before: a storage was opened

    from mhist_tune.storage.database_url import without_passwords

    return without_passwords(make_url(value))
