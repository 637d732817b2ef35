"""The command line: the only place that prints, exits and reads the environment.

A command imports its libraries when it runs, so that help and completion load nothing heavy. `COMMANDS` names each
command's module, which declares its options; `options` has those that several commands share. The files in `deploy/`
set the environment variables of options, for Slurm, Kubernetes and Compose.

- `backup`: The command `backup`.
- `dashboard`: The command `dashboard`.
- `data`: The commands `data check`, `data synthesize` and `data show`.
- `doctor`: The command `doctor`.
- `export`: The commands `export` and `predict`.
- `faults`: Prints errors, and gives their exit codes.
- `next_step`: Names the command that comes next for a study.
- `options`: Options that several commands share, and their defaults.
- `progress`: Shows the events of workers: bars on a terminal, key=value lines otherwise.
- `results`: Commands that report on what was retrained: `report`, `compare`, `ensemble`.
- `repeat`: The command `repeat`.
- `show`: Commands that show what a storage holds, such as `status`.
- `streams`: Standard streams that cope with being closed, full, or of another encoding.
- `studies`: Commands that create, change and delete studies.
- `work`: Commands that train: `worker`, `run`, `retrain`, `verify`, `demo`.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from mhist_tune import __version__
from mhist_tune.cli import faults, streams
from mhist_tune.errors import MhistTuneError, UsageError, did_you_mean
from mhist_tune.tracebacks import unexpected

COMMANDS = {
    "demo": "work",
    "create-study": "studies",
    "worker": "work",
    "run": "work",
    "retrain": "work",
    "report": "results",
    "compare": "results",
    "ensemble": "results",
    "status": "show",
    "studies": "show",
    "best-trial": "show",
    "repeat": "repeat",
    "replay": "show",
    "openings": "show",
    "verify": "work",
    "export": "export",
    "predict": "export",
    "extend": "studies",
    "pause": "studies",
    "continue": "studies",
    "stop": "studies",
    "thaw": "studies",
    "delete-study": "studies",
    "backup": "backup",
    "dashboard": "dashboard",
    "data": "data",
    "doctor": "doctor",
}
"""Each command, and its module in this package."""


class _LazyGroup(click.Group):
    """Imports the module of a command when the command is named. Suggests the nearest name for a wrong one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"mhist_tune.cli.{COMMANDS[cmd_name]}")
        command = getattr(module, cmd_name.replace("-", "_") + "_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no such command: {args[0]}{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="mhist-tune %(version)s")
def cli() -> None:
    """Hyperparameter optimization for MHIST, from the search to a ten-seed report on a sealed test partition.

    \b
    Example:
      mhist-tune create-study vit --data MHIST
      mhist-tune worker vit --data MHIST
      mhist-tune retrain vit --data MHIST
      mhist-tune report vit
    """
    try:
        Path.cwd()
    except OSError:  # without one, torch ends the process when it is imported
        raise UsageError("the working directory was removed", hint="change into one that exists") from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its documented code: 0, 1, 2, 3, 4, 130 or 143."""
    # Set before torch is imported, so that its threads sleep while they wait for each other. By default they spin, and
    # training is several times slower once another process runs on the same cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # makes cuBLAS reproducible
    with streams.prepared():
        code = _run(arguments)
    if code:
        sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    """Run a command and return the exit code of the process. This is the one place where errors become text."""
    try:
        result = cli.main(args=arguments, prog_name="mhist-tune", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0  # click returns the code of an early exit
    except MhistTuneError as error:
        return faults.report(error)
    except click.ClickException as error:
        return faults.report_usage(error)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except streams.OutputEnded:  # as with `| head`
        streams.discard(sys.stdout)
        return 0
    except Exception as error:
        return faults.report(unexpected(error))
