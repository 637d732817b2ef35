"""The server: gunicorn with one process, in front of one storage."""

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
from mhist_tune.storage import Storage, open_storage

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names in a request's Host header that mean this machine, as seen from its browser or through a tunnel."""

_MIN_PASSWORD = 8
_N_THREADS = 8  # a page waits for others' reading of the same study; a storage has four connections


def app(storage: Storage, access: Access | None = None, *, hosts: Iterable[str] = LOOPBACK_HOSTS) -> "WSGIApplication":
    """Return the dashboard of `storage` as a WSGI application.

    Args:
        storage: what is shown.
        access: the password; without one everybody may read and nobody may write.
        hosts: names in a request's Host header that are served.
    """
    storage.interrupt = _give_up
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
    """Serve the dashboard until SIGTERM or SIGINT; leaves by SystemExit.

    Args:
        storage_url: an existing storage.
        host: address to listen on.
        port: port to listen on.
        password: of everybody who may see anything but `/healthz`.
        is_read_only: refuse every write, with a password too.
        hosts: names under which this server is reached, beside `host` and those of this machine: of a proxy, say.

    Raises:
        UsageError: `host` is not a loopback address and there is no password, it is too short, or the address cannot
            be had.
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
    open_storage(storage_url, create=False).close()  # fails here, in one line, and not in the server's process
    named = {*LOOPBACK_HOSTS, host, socket.gethostname(), socket.getfqdn(), *hosts}
    access = Access(password, is_read_only)
    _Server(lambda: app(open_storage(storage_url, create=False), access, hosts=named), _listen(host, port)).run()


def _give_up() -> None:
    """End the waiting for a database that is away: workers wait for minutes, people do not."""
    raise StorageError("the database does not answer")


class _Server(BaseApplication):  # type: ignore[misc]
    """gunicorn with one process, since caches of several would disagree.

    Args:
        load: makes the application, in the serving process: database connections do not survive a fork.
        listener: file descriptor of a listening socket; the server closes it.
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
            "keepalive": 15,  # longer than a page's poll, or each would race with the connection's end
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> "WSGIApplication":
        return self._load()


def _listen(host: str, port: int) -> int:
    """Return the file descriptor of a listening socket: gunicorn itself would try a taken port for five seconds."""
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
