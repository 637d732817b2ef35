"""The command `dashboard`."""

import os
from pathlib import Path

import click

from mhist_tune.cli.options import storage_option
from mhist_tune.errors import UsageError
from mhist_tune.words import one_line

_PASSWORD = "MHIST_TUNE_DASHBOARD_PASSWORD"
_PASSWORD_FILE = f"{_PASSWORD}_FILE"
_HOSTS = "MHIST_TUNE_DASHBOARD_HOSTS"


@click.command("dashboard")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--read-only", is_flag=True, help="Refuse every change.")
@click.option("--trusted-proxy", metavar="ADDRESS", help="Believe X-Forwarded-For, -Proto and -Host of this proxy.")
@click.option("--base-path", default="", metavar="PATH", help="Path that begins every URL of the pages, such as /tune.")
@storage_option
def dashboard_command(
    host: str, port: int, read_only: bool, trusted_proxy: str | None, base_path: str, storage_url: str
) -> None:
    """Serve the studies of a storage as web pages, with optuna-dashboard beside them.

    Without a password the pages are read-only and only this machine is served. The password is read from the file that
    MHIST_TUNE_DASHBOARD_PASSWORD_FILE names, or from MHIST_TUNE_DASHBOARD_PASSWORD. With it every page asks for a
    login, and studies can be changed unless --read-only is given. MHIST_TUNE_DASHBOARD_HOSTS lists further host names
    of the server, separated by commas.

    Behind a proxy with TLS, --trusted-proxy is needed for logins and changes. The proxy may leave the base path in the
    address or remove it.

    \b
    Example:
      mhist-tune dashboard --port 8080
      MHIST_TUNE_DASHBOARD_PASSWORD_FILE=password mhist-tune dashboard --host 0.0.0.0
      mhist-tune dashboard --trusted-proxy 127.0.0.1 --base-path /tune
    """
    password = _password()
    hosts = [name.strip() for name in os.environ.get(_HOSTS, "").split(",") if name.strip()]

    from mhist_tune.dashboard.server import serve

    mode = "read-only" if read_only or password is None else "with a login"
    click.echo(f"listening on http://{one_line(host)}:{port}{one_line(base_path)}, {mode}", err=True)
    serve(
        storage_url,
        host,
        port,
        password=password,
        is_read_only=read_only,
        hosts=hosts,
        trusted_proxy=trusted_proxy,
        base_path=base_path,
    )


def _password() -> str | None:
    name = os.environ.get(_PASSWORD_FILE)
    if not name:
        return os.environ.get(_PASSWORD) or None
    try:
        password = Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {_PASSWORD_FILE}", hint="name a readable text file") from error
    if not password:
        raise UsageError(f"the file that {_PASSWORD_FILE} names is empty", hint="write the password into it")
    return password
