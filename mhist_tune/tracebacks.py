"""Errors that nobody foresaw, as one line for the user. The traceback goes to a log file."""

import re
import tempfile
import traceback

from mhist_tune.errors import UnexpectedError

_PASSWORDS = re.compile(r"://\S*@|(?<=password=)[^\s&'\"]+")


def unexpected(error: Exception) -> UnexpectedError:
    """Write the traceback of an error to a file, and return the error for the user, which names the file.

    Passwords in URLs are replaced in both.
    """
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="mhist-tune-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(_without_passwords("".join(traceback.format_exception(error))))
        where = f"the traceback is in {file.name}"
    except OSError as fault:
        where = f"its traceback cannot be written: {fault.strerror}"
    return UnexpectedError(
        f"unexpected {_without_passwords(f'{type(error).__name__}: {error}')}",
        hint=f"this is a mistake of mhist-tune, or a file or record that it cannot read; {where}",
    )


def _without_passwords(text: str) -> str:
    return _PASSWORDS.sub(lambda match: "://***@" if match[0].startswith(":") else "***", text)
