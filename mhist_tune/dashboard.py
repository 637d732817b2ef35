"""The web UI: optuna-dashboard for a storage, read-only and behind a check of the Host header.

optuna-dashboard alone lets everybody who reaches its port delete studies and fail trials, and answers under any host
name, so that a web page elsewhere can reach it by DNS rebinding. Here nothing is written and only known names are
served.
"""

import ipaddress
import json
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import optuna_dashboard
from gunicorn.app.base import BaseApplication

from mhist_tune.errors import UsageError
from mhist_tune.storage import Storage, open_storage

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names in a request's Host header that mean this machine, as seen from its browser or through a tunnel."""

_N_THREADS = 4  # as many as a storage has connections
_READING = frozenset({"GET", "HEAD"})


def app(storage: Storage, *, hosts: Iterable[str] = LOOPBACK_HOSTS) -> "WSGIApplication":
    """Return the dashboard of `storage` as a WSGI application that changes nothing.

    Requests under a host name that is not in `hosts` get 421, whatever is not GET or HEAD gets 403, and `/healthz` says
    `ok` as long as the server lives, without asking the database.
    """
    dashboard: WSGIApplication = optuna_dashboard.wsgi(storage.optuna)
    known = frozenset(host.lower() for host in hosts)

    def guarded(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if _host_name(environ.get("HTTP_HOST", "")) not in known:
            return _answer(start_response, "421 Misdirected Request", {"reason": "unknown host name"})
        if environ["REQUEST_METHOD"] not in _READING:
            return _answer(start_response, "403 Forbidden", {"reason": "this dashboard is read-only"})
        if environ.get("PATH_INFO") == "/healthz":
            return _answer(start_response, "200 OK", {"status": "ok"})
        # optuna-dashboard 0.21 answers 500 for its static files to clients that do not send this header.
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")
        return dashboard(environ, start_response)

    return guarded


def serve(storage_url: str, host: str, port: int, *, allow_remote: bool = False) -> None:
    """Serve the dashboard until SIGTERM or SIGINT; leaves by SystemExit.

    Args:
        storage_url: an existing storage.
        host: address to listen on. Requests must name it, or this machine, in their Host header; after the wildcard
            addresses only the latter, which is what a container with a port published on loopback needs.
        port: port to listen on.
        allow_remote: let `host` be an address that other machines may reach. They can read everything in the storage.

    Raises:
        UsageError: `host` is not a loopback address and `allow_remote` is not set, or the address cannot be had.
        StorageError: the storage cannot be opened.
    """
    if not allow_remote and not _is_loopback(host):
        raise UsageError(
            f"{host} can be reached from other machines, and the dashboard asks for no password",
            hint="add --read-only to let everybody read, or leave --host out and use a tunnel",
        )
    open_storage(storage_url, create=False).close()  # fails here, in one line, and not in the server's process
    hosts = {*LOOPBACK_HOSTS, host}
    _Server(lambda: app(open_storage(storage_url, create=False), hosts=hosts), _listen(host, port)).run()


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


def _host_name(header: str) -> str:
    """Return the name in a Host header, in lower case, without the port and the brackets of an IPv6 address."""
    name = header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]
    return name.lower()


def _answer(start_response: "StartResponse", status: str, document: dict[str, str]) -> list[bytes]:
    body = json.dumps(document).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
