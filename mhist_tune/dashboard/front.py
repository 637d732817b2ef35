"""What lies between the server and the guard: a trusted proxy's headers, and the base path of all pages."""

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from werkzeug.middleware.proxy_fix import ProxyFix

from mhist_tune.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_FORWARDED = re.compile("HTTP_(FORWARDED|X_FORWARDED_.*|X_REAL_IP)")
_BASE_PATH = re.compile(r"(/[A-Za-z0-9._~@-]+)+")


class Front:
    """A WSGI application that gives `inner` the client's address, scheme and host, and the path below the base path.

    Args:
        inner: the application. Its redirects are paths below the base path.
        trusted_proxy: the address or network whose X-Forwarded-For, -Proto and -Host headers are believed. Those of
            other senders are removed.
        base_path: the path under which browsers see the pages, such as `/tune`; empty for none. A proxy may remove it.
    """

    def __init__(self, inner: "WSGIApplication", *, trusted_proxy: Network | None, base_path: str) -> None:
        self._inner, self._trusted, self._base_path = inner, trusted_proxy, base_path
        self._forwarded = ProxyFix(self._below_base_path, x_for=1, x_proto=1, x_host=1)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Pass a request on."""
        if self._trusted is not None and _is_in(environ.get("REMOTE_ADDR", ""), self._trusted):
            return self._forwarded(environ, start_response)
        return self._below_base_path(environ, start_response)

    def _below_base_path(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        for name in [name for name in environ if _FORWARDED.fullmatch(name)]:
            del environ[name]
        if not self._base_path:
            return self._inner(environ, start_response)
        path = environ.get("PATH_INFO", "")
        if path == self._base_path or path.startswith(f"{self._base_path}/"):
            environ["PATH_INFO"] = path.removeprefix(self._base_path) or "/"
        environ["SCRIPT_NAME"] = self._base_path
        return self._inner(environ, self._with_location(start_response))

    def _with_location(self, start_response: "StartResponse") -> "Callable[..., Any]":
        def start(status: str, headers: list[tuple[str, str]], error: "OptExcInfo | None" = None) -> Any:
            sent = [(name, f"{self._base_path}{value}" if name == "Location" else value) for name, value in headers]
            return start_response(status, sent, error) if error else start_response(status, sent)

        return start


def read_proxy(text: str) -> Network:
    """Return the address or network of a trusted proxy.

    Raises:
        UsageError: it is neither.
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise UsageError(
            f"--trusted-proxy: {text!r} is not the address of a proxy", hint="give an IP address such as 127.0.0.1"
        ) from error


def read_base_path(text: str) -> str:
    """Return a base path without a slash at its end; empty for none.

    Raises:
        UsageError: it cannot be the path of a URL.
    """
    path = text.rstrip("/")
    if path and (not _BASE_PATH.fullmatch(path) or {".", ".."} & set(path.split("/"))):
        raise UsageError(
            f"--base-path: {text!r} is not a path", hint="begin with /, then letters, digits and . _ ~ @ -, as in /tune"
        )
    return path


def _is_in(address: str, network: Network) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found in network
