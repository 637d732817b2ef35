"""optuna-dashboard, with repairs and without the writes that would bypass the ledger.

Faults of version 0.21 that this module repairs or refuses: static files answer 500 to clients without Accept-Encoding;
parallel coordinates stay blank until a restart once they have met a trial without params; `/trialTable` is an empty
page; a rename copies the study and drops its system attributes; an artifact's script runs with all rights; deleting a
study leaves its slots.
"""

import contextlib
import gzip
import re
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import optuna_dashboard
from optuna.artifacts import FileSystemArtifactStore
from optuna_dashboard._app import JupyterLabExtensionContext
from werkzeug import Response

from mhist_tune.dashboard import stock_files
from mhist_tune.dashboard.responses import COMMON_HEADERS, problem, see_other
from mhist_tune.storage.database import Storage
from mhist_tune.writing import private_folder

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_ALLOWED = re.compile(r"/api/(studies/\d+/(\d+/)?note|artifacts/\d+(/\d+)?(/[0-9a-f-]+)?)")
"""Paths that may be written: notes and artifacts. Other writes would bypass the ledger."""

_SANDBOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src 'self'"
_CACHE_S = 60.0
_CONDITIONS = frozenset({"HTTP_IF_MODIFIED_SINCE", "HTTP_IF_NONE_MATCH", "HTTP_IF_RANGE", "HTTP_RANGE"})
_DROPPED = frozenset({"access-control-allow-origin", "location"})


class Stock:
    """The WSGI application of optuna-dashboard for a storage.

    Args:
        storage: the storage.
        base_path: the path that begins every URL; empty for none.
    """

    def __init__(self, storage: Storage, base_path: str = "") -> None:
        self._base_path = base_path
        if base_path:
            stock_files.bundle(base_path)  # an error ends the start, not a request
        folder = storage.root / "artifacts"
        with contextlib.suppress(OSError):  # on a read-only file system there are no artifacts
            private_folder(folder)
        context = JupyterLabExtensionContext(base_url=base_path) if base_path else None  # begins URLs of artifacts
        self._app: Any = optuna_dashboard.wsgi(
            storage.optuna, FileSystemArtifactStore(folder), jupyterlab_extension_context=context
        )
        self._cleared = time.monotonic()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request that the guard has passed on."""
        path = environ.get("PATH_INFO", "")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD") and not _ALLOWED.fullmatch(path):
            reason = "this would bypass the ledger: use the study's own page or the command line"
            return problem(HTTPStatus.FORBIDDEN, reason)(environ, start_response)
        if path.endswith("/trialTable"):
            return see_other(path.replace("/trialTable", "/trials"))(environ, start_response)
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")
        if path.startswith("/api/studies/") and time.monotonic() - self._cleared > _CACHE_S:
            self._cleared = time.monotonic()
            _clear_cache(self._app)
        start = _with_headers(start_response, is_artifact=path.startswith("/artifacts/"))
        if self._base_path and (path == stock_files.BUNDLE_PATH or f"{path}/".startswith("/dashboard/")):
            return self._based(environ, path)(environ, start)
        answer: Iterable[bytes] = self._app(environ, start)
        return answer

    def _based(self, environ: "WSGIEnvironment", path: str) -> Response:
        """Return optuna-dashboard's answer with the body that fits the base path."""
        is_packed = "gzip" in environ["HTTP_ACCEPT_ENCODING"]
        plain = {name: value for name, value in environ.items() if name not in _CONDITIONS}
        response = Response.from_app(self._app, plain)
        response.close()  # the file that was opened
        if path != stock_files.BUNDLE_PATH:
            response.set_data(stock_files.page(self._base_path))
        else:
            packed = stock_files.bundle(self._base_path)
            response.set_data(packed if is_packed else gzip.decompress(packed))
            response.vary.add("Accept-Encoding")
        response.headers.pop("Last-Modified", None)  # that of the installed file
        response.add_etag(overwrite=True)
        return response.make_conditional(environ)


def _clear_cache(app: Any) -> None:
    """Clear the cached properties of all studies, which are a private part of optuna-dashboard."""
    app._inmemory_cache.clear()


def _path(location: str) -> str:
    """Return the path of a redirect, to which the base path is added later."""
    return urlsplit(location)._replace(scheme="", netloc="").geturl()


def _with_headers(start_response: "StartResponse", *, is_artifact: bool) -> "Callable[..., Any]":
    def start(status: str, headers: list[tuple[str, str]], error: "OptExcInfo | None" = None) -> Any:
        sent = [(name, value) for name, value in headers if name.lower() not in _DROPPED]
        sent += [("Location", _path(value)) for name, value in headers if name.lower() == "location"]
        sent += COMMON_HEADERS.items()
        if is_artifact:
            sent.append(("Content-Security-Policy", _SANDBOX))
        return start_response(status, sent, error)

    return start
