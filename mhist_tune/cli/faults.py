"""What the command line says about an error, and its exit code."""

import click

from mhist_tune.errors import MhistTuneError
from mhist_tune.words import one_line


def report(error: MhistTuneError) -> int:
    """Print an error and its hint; return the exit code."""
    click.echo(f"error: {error}", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)
    return error.exit_code


def report_usage(error: click.ClickException) -> int:
    """Print what click found wrong with the command; return the exit code."""
    vars(error)["message"] = one_line(error.message)  # it quotes the user; click calls it final
    error.show()
    return error.exit_code
