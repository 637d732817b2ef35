"""What stands before every page: host names, sizes, the login, the origin of a write, read-only mode."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from mhist_tune.dashboard import web
from mhist_tune.dashboard.access import COOKIE, Access
from mhist_tune.dashboard.web import FormError, Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_READING = frozenset({"GET", "HEAD"})
_WRITING = frozenset({"POST", "PUT", "DELETE"})
_MAX_URL = 4000
_MAX_COOKIE = 8000
_MAX_BODY_BYTES = 64 * 2**20  # an artifact of optuna-dashboard


class Guard:
    """A WSGI application that hands on only what `access` allows.

    Args:
        inner: gets what is allowed, with `mhist.is_known` and `mhist.may_write` in its environment.
        access: the password and the sessions.
        hosts: names in a Host header that are served; others get 421, against DNS rebinding.
    """

    def __init__(self, inner: "WSGIApplication", access: Access, hosts: Iterable[str]) -> None:
        self._inner, self._access = inner, access
        self._hosts = frozenset(host.lower() for host in hosts)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Refuse, answer, or hand on."""
        token = web.cookie(environ, COOKIE)
        answer = self._refused(environ) or self._answered(environ, token)
        if answer is not None:
            return answer.send(environ, start_response)
        environ["mhist.is_known"] = self._access.knows(token)
        environ["mhist.may_write"] = self._access.may_write(token)
        return self._inner(environ, start_response)

    def _refused(self, environ: "WSGIEnvironment") -> Response | None:
        """Return what is wrong with a request, whoever sends it."""
        if _host_name(environ.get("HTTP_HOST", "")) not in self._hosts:
            return web.problem(HTTPStatus.MISDIRECTED_REQUEST, "unknown host name")
        if len(environ.get("PATH_INFO", "")) + len(environ.get("QUERY_STRING", "")) > _MAX_URL:
            return web.problem(HTTPStatus.REQUEST_URI_TOO_LONG, "the address is too long")
        if len(environ.get("HTTP_COOKIE", "")) > _MAX_COOKIE:
            return web.problem(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many cookies")
        length = environ.get("CONTENT_LENGTH") or "0"
        if not length.isdecimal() or int(length) > _MAX_BODY_BYTES:
            return web.problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too long")
        method = environ["REQUEST_METHOD"]
        if method not in _READING and not _is_same_origin(environ):
            return web.problem(HTTPStatus.FORBIDDEN, "this request comes from another site")
        return None

    def _answered(self, environ: "WSGIEnvironment", token: str | None) -> Response | None:
        """Return the answer to requests about the server and the login, or to whoever may not go on."""
        method, path, access = environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), self._access
        is_reading = method in _READING
        if path == "/healthz" and is_reading:
            return Response('{"status": "ok"}', content_type="application/json")
        if path.startswith("/assets/") and is_reading:  # the login page needs them, and they say nothing
            return None
        if access.is_guarded and path == "/login":
            return _login_page(web.query(environ).get("next", "/")) if is_reading else self._log_in(environ)
        if access.is_guarded and not access.knows(token):
            if method == "GET" and "text/html" in environ.get("HTTP_ACCEPT", ""):
                wanted = path + (f"?{environ['QUERY_STRING']}" if environ.get("QUERY_STRING") else "")
                return web.see_other(f"/login?next={quote(wanted)}")
            return web.problem(HTTPStatus.UNAUTHORIZED, "log in first")
        if path == "/logout" and method == "POST":
            access.log_out(token)
            return web.see_other("/", **{"Set-Cookie": f"{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"})
        if not is_reading and not access.may_write(token):
            return web.problem(HTTPStatus.FORBIDDEN, "this dashboard is read-only")
        if not is_reading and method not in _WRITING:
            return web.problem(HTTPStatus.METHOD_NOT_ALLOWED, "there is no such method")
        return None

    def _log_in(self, environ: "WSGIEnvironment") -> Response:
        address = environ.get("REMOTE_ADDR", "")
        if self._access.is_blocked(address):
            return _login_page("/", "Too many wrong passwords; wait a minute.", HTTPStatus.TOO_MANY_REQUESTS)
        try:
            fields = web.form(environ)
        except FormError as error:
            return web.problem(HTTPStatus.BAD_REQUEST, str(error))
        token = self._access.log_in(fields.get("password", ""), address)
        wanted = fields.get("next", "/")
        if token is None:
            return _login_page(wanted, "That is not the password.", HTTPStatus.UNAUTHORIZED)
        is_secure = "; Secure" if environ.get("wsgi.url_scheme") == "https" else ""
        cookie = f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax{is_secure}"
        return web.see_other(_own_path(wanted), **{"Set-Cookie": cookie})


def _login_page(wanted: str, message: str = "", status: HTTPStatus = HTTPStatus.OK) -> Response:
    page = web.templates().get_template("login.html")
    return Response(page.render(next=_own_path(wanted), message=message, is_wrong=bool(message), user={}), status)


def _own_path(url: str) -> str:
    """Return a path of this server, `/` for anything else: `//evil.example` is none."""
    parts = urlsplit(url)
    is_own = not parts.scheme and not parts.netloc and url.startswith("/") and not url.startswith(("//", "/\\"))
    return url if is_own and url.isprintable() else "/"


def _is_same_origin(environ: "WSGIEnvironment") -> bool:
    """Return whether a write comes from one of our own pages: browsers send Origin with each of these."""
    origin = environ.get("HTTP_ORIGIN")
    host = environ.get("HTTP_HOST", "").lower()
    try:
        return origin is not None and bool(host) and urlsplit(origin).netloc.lower() == host
    except ValueError:
        return False


def _host_name(header: str) -> str:
    """Return the name in a Host header, in lower case, without the port and the brackets of an IPv6 address."""
    name = header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]
    return name.lower()
