"""Checks before every page: host name, sizes, origin of a write, login, read-only mode."""

import math
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from werkzeug import Request, Response
from werkzeug.sansio.utils import host_is_trusted

from mhist_tune.dashboard import forms, responses
from mhist_tune.dashboard.access import COOKIE, Access, TooManyFailuresError, User
from mhist_tune.dashboard.http_server import MAX_BODY_BYTES
from mhist_tune.dashboard.responses import problem, see_other
from mhist_tune.words import rough_duration

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

USER = "mhist_tune.user"
"""The key of the WSGI environment that holds the `User` of a request."""

_READING = frozenset({"GET", "HEAD"})
_WRITING = frozenset({"POST", "PUT", "DELETE"})
_MAX_URL = 4000
_MAX_COOKIE = 8000


class Guard:
    """A WSGI application that passes on the requests that `access` allows.

    Args:
        inner: the application that answers allowed requests. It finds their user in the environment under `USER`.
        access: the password and the sessions.
        hosts: the names in a Host header that are answered. Others get 421, against DNS rebinding.
    """

    def __init__(self, inner: "WSGIApplication", access: Access, hosts: Iterable[str]) -> None:
        self._inner, self._access = inner, access
        self._hosts = frozenset(host.lower() for host in hosts)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Refuse a request, answer it, or pass it on."""
        request = Request(environ)
        token = request.cookies.get(COOKIE)
        user = self._access.user(token)
        response = self._refuse(request) or self._public(request) or self._for_users(request, token, user)
        if response is not None:
            return responses.conditional(response, request)(environ, start_response)
        environ[USER] = user
        return self._inner(environ, start_response)

    def _refuse(self, request: Request) -> Response | None:
        """Return an error if a request is malformed or comes from another site; None otherwise."""
        environ = request.environ
        if _host_name(environ.get("HTTP_HOST", "")) not in self._hosts:
            return problem(HTTPStatus.MISDIRECTED_REQUEST, "unknown host name")
        if len(environ.get("PATH_INFO", "")) + len(request.query_string) > _MAX_URL:
            return problem(HTTPStatus.REQUEST_URI_TOO_LONG, "the address is too long")
        if len(environ.get("HTTP_COOKIE", "")) > _MAX_COOKIE:
            return problem(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many cookies")
        length = environ.get("CONTENT_LENGTH") or "0"
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too long")
        if request.method not in _READING and not _is_same_origin(request):
            reason = "this request comes from another site, or through a proxy that --trusted-proxy does not name"
            return problem(HTTPStatus.FORBIDDEN, reason)
        return None

    def _public(self, request: Request) -> Response | None:
        """Answer a request that needs no login: the server's health, files of the pages, the login itself."""
        is_reading = request.method in _READING
        if request.path == "/healthz" and is_reading:
            return responses.document({"status": "ok"})
        if request.path.startswith("/assets/") and is_reading:  # the login page needs them
            return responses.file(request.path.removeprefix("/assets/"))
        if request.path == "/login" and self._access.is_guarded:
            return _login_page(request, request.args.get("next", "/")) if is_reading else self._log_in(request)
        return None

    def _for_users(self, request: Request, token: str | None, user: User) -> Response | None:
        """Answer a logout, and refuse a request that the user may not make. Return None for an allowed request."""
        if self._access.is_guarded and not user.is_known:
            if request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
                return see_other(f"/login?next={quote(request.full_path.removesuffix('?'))}")
            return problem(HTTPStatus.UNAUTHORIZED, "log in first")
        if request.path == "/logout" and request.method == "POST":
            self._access.log_out(token)
            response = see_other("/")
            response.delete_cookie(COOKIE, **_cookie_options(request))
            return response
        if request.method not in _READING and not user.may_write:
            return problem(HTTPStatus.FORBIDDEN, "this dashboard is read-only")
        if request.method not in _READING | _WRITING:
            return problem(HTTPStatus.METHOD_NOT_ALLOWED, "there is no such method")
        return None

    def _log_in(self, request: Request) -> Response:
        try:
            fields = forms.read(request)
        except forms.FormError as error:
            return problem(HTTPStatus.BAD_REQUEST, str(error))
        next_path = fields.get("next", "/")
        try:
            token = self._access.log_in(fields.get("password", ""), request.remote_addr or "")
        except TooManyFailuresError as error:
            seconds = math.ceil(error.wait_s)
            message = f"Too many wrong passwords; wait {rough_duration(seconds)}."
            response = _login_page(request, next_path, message, HTTPStatus.TOO_MANY_REQUESTS)
            response.headers["Retry-After"] = str(seconds)
            return response
        if token is None:
            return _login_page(request, next_path, "The password is wrong.", HTTPStatus.UNAUTHORIZED)
        response = see_other(_own_path(next_path))
        response.set_cookie(COOKIE, token, **_cookie_options(request))
        return response


def _login_page(request: Request, next_path: str, message: str = "", status: HTTPStatus = HTTPStatus.OK) -> Response:
    values = {"next": _own_path(next_path), "message": message, "is_wrong": bool(message)}
    return responses.page("login.html", request, User(), status, **values)


def _cookie_options(request: Request) -> dict[str, Any]:
    """Return the attributes of the session's cookie. After a login over TLS it is not sent over plain HTTP."""
    path = request.root_path or "/"
    return {"httponly": True, "samesite": "Lax", "secure": request.is_secure, "path": path}


def _own_path(url: str) -> str:
    """Return `url` if it is a path of this server, and `/` for any other URL such as `//evil.example`."""
    parts = urlsplit(url)
    is_own = not parts.scheme and not parts.netloc and url.startswith("/") and not url.startswith(("//", "/\\"))
    return url if is_own and url.isprintable() else "/"


def _is_same_origin(request: Request) -> bool:
    """Return whether a write comes from one of our own pages. Browsers send Origin with every write."""
    origin, host = request.headers.get("Origin", "").lower(), request.headers.get("Host", "").lower()
    own_port = ":443" if request.scheme == "https" else ":80"
    return bool(host) and origin.removesuffix(own_port) == f"{request.scheme}://{host.removesuffix(own_port)}"


def _host_name(header: str) -> str | None:
    """Return the name in a Host header, in lower case and without the port; None for a malformed header.

    Werkzeug checks the header. Its comparison with trusted names does not cover IPv6 addresses.
    """
    host = header.lower()
    return urlsplit(f"//{host}").hostname if host_is_trusted(host) else None
