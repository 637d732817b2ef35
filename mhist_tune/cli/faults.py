"""What the command line says about an error, and its exit code."""

import re
import tempfile
import traceback

import click

from mhist_tune.errors import MhistTuneError
from mhist_tune.words import one_line

_PASSWORDS = re.compile(r"://\S*@|(?<=password=)[^\s&'\"]+")


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


def report_unexpected(error: Exception) -> int:
    """Print one line about an error that nobody foresaw, and write its traceback to a file; return the exit code."""
    summary = _without_passwords(f"{type(error).__name__}: {error}")
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="mhist-tune-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(_without_passwords("".join(traceback.format_exception(error))))
        where = f"the traceback is in {file.name}"
    except OSError as fault:
        where = f"its traceback cannot be written: {fault.strerror}"
    hint = f"this is a mistake of mhist-tune, or a file or record that it cannot read; {where}"
    return report(MhistTuneError(f"unexpected {summary}", hint=hint))


def _without_passwords(text: str) -> str:
    return _PASSWORDS.sub(lambda match: "://***@" if match[0].startswith(":") else "***", text)
