"""Write `docs/guide/cli.md` from the commands themselves: `python tools/cli_reference.py`. A test compares the two."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from mhist_tune.cli import cli

PAGE = Path(__file__).parents[1] / "docs" / "guide" / "cli.md"
HEAD = """# The command line

`python tools/cli_reference.py` writes this page from the code. Data goes to stdout; progress and the name of the next
command go to stderr. `--json` prints one JSON document. An error is one line, with a hint where there is a remedy. An
option beats its environment variable, which beats the default.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a run failed |
| 2 | wrong usage or input |
| 3 | the data set is missing, damaged or another one |
| 4 | the storage cannot be reached |
| 129, 130, 143 | interrupted by SIGHUP (a closed terminal), Ctrl-C or SIGTERM; the same command again resumes |

Completion of commands and options is switched on in the shell's start-up file:

```
eval "$(_MHIST_TUNE_COMPLETE=bash_source mhist-tune)"        # bash; zsh_source for zsh
_MHIST_TUNE_COMPLETE=fish_source mhist-tune | source         # fish
```
"""


def to_markdown() -> str:
    """Return the whole reference."""
    return "\n".join([HEAD, *(_section(path, command) for path, command in _commands(cli, ("mhist-tune",)))])


def _commands(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


def _section(path: tuple[str, ...], command: click.Command) -> str:
    context = click.Context(command, info_name=" ".join(path), terminal_width=10_000)
    text, _, example = inspect.cleandoc(command.help or "").partition("\b\nExample:\n")
    usage = " ".join([" ".join(path), *command.collect_usage_pieces(context)])
    parts = [f"## {' '.join(path[1:])}", f"`{usage}`", text.strip()]
    rows = []
    for param in command.params:
        record = param.get_help_record(context) if isinstance(param, click.Option) else None
        if record is not None:
            rows.append(f"| `{_cell(record[0])}` | {_cell(record[1])} |")
    if rows:
        parts.append("\n".join(["| option | |", "|---|---|", *rows]))
    if example:
        parts.append(f"```\n{inspect.cleandoc(example)}\n```")
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(to_markdown(), encoding="utf-8")
