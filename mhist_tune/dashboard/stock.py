"""optuna-dashboard, with repairs and without the writes that would bypass the ledger.

Faults of version 0.21 that this module repairs or refuses: static files answer 500 to clients without Accept-Encoding;
parallel coordinates stay blank until a restart once they have met a trial without params; `/trialTable` is an empty
page; a rename copies the study and drops its system attributes; an artifact's script runs with all rights; deleting a
study leaves its slots.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import optuna_dashboard
from optuna.artifacts import FileSystemArtifactStore

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


class Stock:
    """The WSGI application of optuna-dashboard for a storage."""

    def __init__(self, storage: Storage) -> None:
        folder = storage.root / "artifacts"
        with contextlib.suppress(OSError):  # on a read-only file system there are no artifacts
            private_folder(folder)
        self._app: Any = optuna_dashboard.wsgi(storage.optuna, FileSystemArtifactStore(folder))
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
        is_artifact = path.startswith("/artifacts/")
        answer: Iterable[bytes] = self._app(environ, _with_headers(start_response, is_artifact=is_artifact))
        return answer


def _clear_cache(app: Any) -> None:
    """Clear the cached properties of all studies, which are a private part of optuna-dashboard."""
    app._inmemory_cache.clear()


def _with_headers(start_response: "StartResponse", *, is_artifact: bool) -> "Callable[..., Any]":
    def start(status: str, headers: list[tuple[str, str]], error: "OptExcInfo | None" = None) -> Any:
        sent = [(name, value) for name, value in headers if name.lower() != "access-control-allow-origin"]
        sent += COMMON_HEADERS.items()
        if is_artifact:
            sent.append(("Content-Security-Policy", _SANDBOX))
        return start_response(status, sent, error)

    return start
