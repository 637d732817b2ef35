"""The command line: the only place that prints, exits and reads the environment.

A command imports its libraries when it runs, so that help and completion load nothing heavy. `COMMANDS` names each
command's module, which declares its options; `options` has those that several commands share. The files in `deploy/`
set the environment variables of options, for Slurm, Kubernetes and Compose.

- `dashboard`: The command `dashboard`.
- `data`: The commands `data check`, `data synthesize` and `data show`.
- `doctor`: The command `doctor`.
- `export`: The commands `export` and `predict`.
- `options`: Options that several commands share, and their defaults.
- `progress`: Shows the events of workers: bars on a terminal, key=value lines otherwise.
- `show`: Commands that show what a storage holds, such as `report` and `status`.
- `studies`: Commands that create, change and delete studies.
- `work`: Commands that train: `worker`, `run`, `retrain`, `verify`, `demo`.
"""

import importlib
import os
import sys
from collections.abc import Sequence

import click

from mhist_tune import __version__
from mhist_tune.errors import MhistTuneError, did_you_mean

COMMANDS = {
    "demo": "work",
    "create-study": "studies",
    "worker": "work",
    "run": "work",
    "retrain": "work",
    "report": "show",
    "compare": "show",
    "ensemble": "show",
    "status": "show",
    "studies": "show",
    "best-trial": "show",
    "replay": "show",
    "verify": "work",
    "export": "export",
    "predict": "export",
    "extend": "studies",
    "pause": "studies",
    "continue": "studies",
    "stop": "studies",
    "thaw": "studies",
    "delete-study": "studies",
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its documented code: 0, 1, 2, 3, 4, 130 or 143."""
    # Set before torch is imported, so that its threads sleep while they wait for each other. By default they spin, and
    # training is several times slower once another process runs on the same cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # makes cuBLAS reproducible
    try:
        cli.main(args=arguments, prog_name="mhist-tune", standalone_mode=False)
    except MhistTuneError as error:
        click.echo(f"error: {error}", err=True)
        if error.hint:
            click.echo(f"  hint: {error.hint}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output has ended, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
