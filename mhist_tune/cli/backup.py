"""The command `backup`."""

from pathlib import Path

import click

from mhist_tune.cli.options import LocalPath, storage_option


@click.command("backup")
@click.argument("file", type=LocalPath())
@storage_option
def backup_command(file: Path, storage_url: str) -> None:
    """Copy the SQLite storage to FILE while workers use it. A copy with `cp` can be damaged or lack the newest epochs.

    FILE is a storage of its own: `--storage sqlite:///FILE`. It has no checkpoints and no weights of retrained models.

    \b
    Example:
      mhist-tune backup storage-2026-11-27.db
    """
    from mhist_tune.actions.backup import backup
    from mhist_tune.storage.database import open_storage

    with open_storage(storage_url, create=False) as storage:
        n_bytes = backup(storage, file)
    click.echo(f"{file}: {n_bytes / 1e6:.1f} MB")
