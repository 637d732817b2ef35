"""The web UI."""

import click

from mhist_tune.cli.options import storage_option


@click.command("dashboard")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--read-only", is_flag=True, help="Refuse every change.")
@storage_option
def dashboard_command(host: str, port: int, read_only: bool, storage_url: str) -> None:
    """Serve optuna-dashboard for a storage.

    \b
    Example:
      mhist-tune dashboard --port 8080
    """
    from mhist_tune.dashboard import serve

    click.echo(f"listening on http://{host}:{port}", err=True)
    serve(storage_url, host, port, allow_remote=read_only)
