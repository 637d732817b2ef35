"""Requests and responses as our pages see them, on top of WSGI."""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MAX_FORM_BYTES = 64 * 1024

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
COMMON_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)


@functools.cache
def templates() -> Environment:
    """Return the templates of our pages; values are escaped."""
    loader = PackageLoader("mhist_tune.dashboard")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)


class FormError(ValueError):
    """A body that is no form, or too long."""


@dataclass(frozen=True)
class Response:
    """An answer; HTML unless `content_type` says otherwise."""

    body: str
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/html; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)

    def send(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request; one that has this very page already gets 304."""
        body = self.body.encode()
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {
            "Content-Type": self.content_type,
            "Content-Security-Policy": _PAGE_POLICY,
            "Cache-Control": "no-cache",
            "ETag": tag,
            **dict(COMMON_HEADERS),
            **self.headers,
        }
        status = self.status
        if status == HTTPStatus.OK and environ.get("HTTP_IF_NONE_MATCH") == tag:
            status, body = HTTPStatus.NOT_MODIFIED, b""
        headers["Content-Length"] = str(len(body))
        start_response(f"{status.value} {status.phrase}", list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def problem(status: HTTPStatus, reason: str) -> Response:
    """Return an error as JSON, which optuna-dashboard's pages show as well."""
    return Response(json.dumps({"reason": reason}), status, "application/json")


def see_other(url: str, **headers: str) -> Response:
    """Return a redirection to a path of this server, which is then read with GET."""
    return Response("", HTTPStatus.SEE_OTHER, headers={"Location": url, **headers})


def query(environ: "WSGIEnvironment") -> dict[str, str]:
    """Return the query's fields; of one that comes twice the last."""
    return dict(parse_qsl(environ.get("QUERY_STRING", "")))


def form(environ: "WSGIEnvironment") -> dict[str, str]:
    """Return the fields of a posted form.

    Raises:
        FormError: it is none, or is longer than `MAX_FORM_BYTES`.
    """
    if environ.get("CONTENT_TYPE", "").partition(";")[0] not in ("application/x-www-form-urlencoded", ""):
        raise FormError("expected a form")
    length = environ.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal() or int(length) > MAX_FORM_BYTES:
        raise FormError("the form is too long")
    try:
        return dict(parse_qsl(environ["wsgi.input"].read(int(length)).decode(), max_num_fields=200))
    except ValueError as error:  # not UTF-8, or too many fields
        raise FormError("the form cannot be read") from error


def cookie(environ: "WSGIEnvironment", name: str) -> str | None:
    """Return a cookie's value."""
    try:
        found: Mapping[str, Any] = SimpleCookie(environ.get("HTTP_COOKIE", ""))
    except CookieError:
        return None
    return found[name].value if name in found else None
