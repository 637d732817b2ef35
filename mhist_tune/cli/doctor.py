"""The command `doctor`."""

import json
from pathlib import Path

import click

from mhist_tune.cli.options import checkpoints_option, data_option, follow_up, json_option, storage_option


@click.command("doctor")
@json_option
@storage_option
@data_option
@checkpoints_option
def doctor_command(as_json: bool, storage_url: str, data_root: Path | None, checkpoints: str | None) -> None:
    """Check Python, torch and its devices, the data set, the database and the folders. Exit with 1 if a check fails.

    \b
    Example:
      mhist-tune doctor --data MHIST
    """
    from dataclasses import asdict

    from mhist_tune.actions.doctor import examine, to_text
    from mhist_tune.errors import MhistTuneError

    checks = examine(storage_url, data_root, checkpoints)
    click.echo(json.dumps({"checks": [asdict(check) for check in checks]}, indent=2) if as_json else to_text(checks))
    failed = [check.name for check in checks if check.state == "fail"]
    if failed:
        raise MhistTuneError(f"failed: {', '.join(failed)}", hint="see the list above")
    follow_up("studies")
