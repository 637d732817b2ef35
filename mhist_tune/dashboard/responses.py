"""Makes responses: pages from templates, JSON, redirects, style sheets and scripts."""

import functools
import json
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from werkzeug import Request, Response
from werkzeug.datastructures import Headers

from mhist_tune.dashboard.access import User
from mhist_tune.report.html import style_sheet

COMMON_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_TEMPLATES = Path(__file__).with_name("templates")
_FILES = {"style.css": "text/css", "pages.css": "text/css", "live.js": "text/javascript"}


def page(template: str, request: Request, user: User, status: HTTPStatus = HTTPStatus.OK, **context: Any) -> Response:
    """Return a page made from a template. `base` in it is the base path, which begins every URL."""
    values = {"user": user, "base": request.root_path, "message": "", "is_wrong": False, **context}
    return html(_templates().get_template(template).render(values), status)


def html(text: str, status: HTTPStatus = HTTPStatus.OK, *, policy: str = _PAGE_POLICY) -> Response:
    """Return a page of HTML; `policy` is its Content-Security-Policy."""
    return _with_headers(Response(text, status, mimetype="text/html"), policy)


def document(content: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Return a JSON document."""
    return _with_headers(Response(json.dumps(content), status, mimetype="application/json"))


def problem(status: HTTPStatus, reason: str) -> Response:
    """Return an error as JSON. The pages of optuna-dashboard show the reason."""
    return document({"reason": reason}, status)


def see_other(path: str) -> Response:
    """Return a redirect to a page of this server, below the base path. The browser then reads it with GET."""
    return _with_headers(Response(status=HTTPStatus.SEE_OTHER, headers={"Location": path}))


def file(name: str) -> Response:
    """Return a style sheet or a script of the pages, or 404."""
    if name not in _FILES:
        return problem(HTTPStatus.NOT_FOUND, "there is no such file")
    text = style_sheet() if name == "style.css" else (_TEMPLATES / name).read_text("utf-8")
    return _with_headers(Response(text, mimetype=_FILES[name]))


def conditional(response: Response, request: Request) -> Response:
    """Return a copy of a response for one request: 304 without a body if the client has this version."""
    copy = Response(response.response, response.status, Headers(response.headers))
    if copy.status_code == HTTPStatus.OK:
        copy.make_conditional(request)
        copy.headers.pop("Date", None)  # the server sends its own
    return copy


@functools.cache
def _templates() -> Environment:
    loader = PackageLoader("mhist_tune.dashboard")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def _with_headers(response: Response, policy: str = _PAGE_POLICY) -> Response:
    response.headers.update({"Content-Security-Policy": policy, "Cache-Control": "no-cache", **COMMON_HEADERS})
    response.add_etag()
    return response
