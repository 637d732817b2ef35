"""Serves the dashboard of one storage from this process, since the caches of several would differ."""

import contextlib
import ipaddress
import signal
import socket
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from werkzeug.http import parse_cookie

from mhist_tune.dashboard import front
from mhist_tune.dashboard.access import COOKIE, Access
from mhist_tune.dashboard.guard import Guard
from mhist_tune.dashboard.http_server import Server
from mhist_tune.dashboard.site import Site
from mhist_tune.dashboard.stock import Stock
from mhist_tune.errors import StorageError, UsageError
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.retries import Waiting

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names of this machine in a Host header, for a browser on it or at the other end of a tunnel."""

_MIN_PASSWORD = 8


def app(
    storage: Storage,
    access: Access | None = None,
    *,
    hosts: Iterable[str] = LOOPBACK_HOSTS,
    trusted_proxy: front.Network | None = None,
    base_path: str = "",
) -> "WSGIApplication":
    """Return the dashboard of `storage` as a WSGI application.

    Args:
        storage: the storage of the studies.
        access: the password and the sessions; None for no password: everybody may read and nobody may write.
        hosts: the names in a Host header that are answered.
        trusted_proxy: the proxy whose X-Forwarded headers are believed.
        base_path: the path that begins every URL, without a slash at its end; empty for none.
    """
    guard = Guard(Site(storage, Stock(storage, base_path)), access or Access(), hosts)
    return front.Front(guard, trusted_proxy=trusted_proxy, base_path=base_path)


def serve(
    storage_url: str,
    host: str,
    port: int,
    *,
    password: str | None = None,
    is_read_only: bool = False,
    hosts: Iterable[str] = (),
    trusted_proxy: str | None = None,
    base_path: str = "",
) -> None:
    """Serve the dashboard until SIGTERM or SIGINT.

    Args:
        storage_url: the URL of an existing storage.
        host: the address to listen on.
        port: the port to listen on.
        password: the password of all users; None for none. Only `/healthz`, the login page and its files need none.
        is_read_only: whether every write is refused, also after a login.
        hosts: further names under which browsers reach this server, such as that of a proxy.
        trusted_proxy: the address or network of a proxy whose X-Forwarded-For, -Proto and -Host headers are believed.
        base_path: the path under which browsers see the pages, such as `/tune`.

    Raises:
        UsageError: there is no password and `host` is not a loopback address or there is a proxy, the password is too
            short, an argument is malformed, or the address is in use.
        StorageError: the storage cannot be opened.
    """
    if password is None and not _is_loopback(host):
        raise UsageError(
            f"{host} can be reached from other machines, and there is no password",
            hint="put one into a file and name it in MHIST_TUNE_DASHBOARD_PASSWORD_FILE, or leave --host out and use "
            "a tunnel",
        )
    if password is None and trusted_proxy is not None:
        raise UsageError(
            "a proxy lets other machines in, and there is no password",
            hint="put one into a file and name it in MHIST_TUNE_DASHBOARD_PASSWORD_FILE",
        )
    if password is not None and len(password) < _MIN_PASSWORD:
        raise UsageError(f"the dashboard's password has fewer than {_MIN_PASSWORD} characters", hint="use a longer one")
    proxy = None if trusted_proxy is None else front.read_proxy(trusted_proxy)
    base = front.read_base_path(base_path)
    all_hosts = {*LOOPBACK_HOSTS, host, socket.gethostname(), socket.getfqdn(), *hosts}
    access = Access(password, is_read_only)

    def may_send_files(cookies: str) -> bool:
        return access.user(parse_cookie(cookies).get(COOKIE)).may_write

    with open_storage(storage_url, create=False, waiting=Waiting(interrupt=_give_up)) as storage:
        application = app(storage, access, hosts=all_hosts, trusted_proxy=proxy, base_path=base)
        server = Server(application, _listen(host, port), may_send_files=may_send_files)
        with contextlib.closing(server), _sigterm_as_exit():
            server.run()


def _give_up() -> None:
    """End the wait for an unreachable database at once. Workers wait for minutes, people do not."""
    raise StorageError("the database does not answer")


@contextlib.contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Raise SystemExit in the main thread at SIGTERM, which ends the server's loop."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror}", hint="choose another --host or --port"
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
