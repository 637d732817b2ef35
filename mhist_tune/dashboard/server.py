"""Runs gunicorn with one process for one storage."""

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication

from mhist_tune.dashboard.access import Access
from mhist_tune.dashboard.guard import Guard
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
_N_THREADS = 8  # more than the four connections of a storage, since a thread may wait while another one reads


def app(storage: Storage, access: Access | None = None, *, hosts: Iterable[str] = LOOPBACK_HOSTS) -> "WSGIApplication":
    """Return the dashboard of `storage` as a WSGI application.

    Args:
        storage: the storage of the studies.
        access: the password and the sessions; None for no password: everybody may read and nobody may write.
        hosts: the names in a Host header that are answered.
    """
    return Guard(Site(storage, Stock(storage)), access or Access(), hosts)


def serve(
    storage_url: str,
    host: str,
    port: int,
    *,
    password: str | None = None,
    is_read_only: bool = False,
    hosts: Iterable[str] = (),
) -> None:
    """Serve the dashboard until SIGTERM or SIGINT, then raise SystemExit.

    Args:
        storage_url: the URL of an existing storage.
        host: the address to listen on.
        port: the port to listen on.
        password: the password of all users; None for none. Only `/healthz`, the login page and its files need none.
        is_read_only: whether every write is refused, also after a login.
        hosts: further names under which browsers reach this server, such as that of a proxy.

    Raises:
        UsageError: there is no password and `host` is not a loopback address, the password is too short, or the
            address is in use.
        StorageError: the storage cannot be opened.
    """
    if password is None and not _is_loopback(host):
        raise UsageError(
            f"{host} can be reached from other machines, and there is no password",
            hint="put one into a file and name it in MHIST_TUNE_DASHBOARD_PASSWORD_FILE, or leave --host out and use "
            "a tunnel",
        )
    if password is not None and len(password) < _MIN_PASSWORD:
        raise UsageError(f"the dashboard's password has fewer than {_MIN_PASSWORD} characters", hint="use a longer one")
    open_storage(storage_url, create=False).close()  # an error ends the command here, not in the server's process
    all_hosts = {*LOOPBACK_HOSTS, host, socket.gethostname(), socket.getfqdn(), *hosts}
    access = Access(password, is_read_only)
    waiting = Waiting(interrupt=_give_up)
    _Server(
        lambda: app(open_storage(storage_url, create=False, waiting=waiting), access, hosts=all_hosts),
        _listen(host, port),
    ).run()


def _give_up() -> None:
    """End the wait for an unreachable database at once. Workers wait for minutes, people do not."""
    raise StorageError("the database does not answer")


class _Server(BaseApplication):  # type: ignore[misc]
    """gunicorn with one process, since the caches of several would differ.

    Args:
        load: makes the application. The serving process calls it: database connections do not survive a fork.
        listener: the file descriptor of a listening socket; the server closes it.
    """

    def __init__(self, load: "Callable[[], WSGIApplication]", listener: int) -> None:
        self._load = load
        self._listener = listener
        super().__init__()

    def load_config(self) -> None:
        settings: dict[str, Any] = {
            "bind": f"fd://{self._listener}",
            "workers": 1,
            "worker_class": "gthread",
            "threads": _N_THREADS,
            "graceful_timeout": 5,
            "keepalive": 15,  # longer than the period of a page's polls, so that connections are reused
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> "WSGIApplication":
        return self._load()


def _listen(host: str, port: int) -> int:
    """Return the file descriptor of a listening socket. gunicorn would retry a port in use for five seconds."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family).detach()
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror}", hint="choose another --host or --port"
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
