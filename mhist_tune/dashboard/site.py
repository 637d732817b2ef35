"""The URLs of our own pages, and a cache of pages for all readers."""

import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from werkzeug import Request, Response
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import BaseConverter, Map, Rule

from mhist_tune.dashboard import forms, pages, responses
from mhist_tune.dashboard.access import User
from mhist_tune.dashboard.guard import USER
from mhist_tune.dashboard.live import Board, Fresh
from mhist_tune.errors import MhistTuneError, StorageError, StudyNotFoundError
from mhist_tune.storage import studies
from mhist_tune.storage.database import Storage

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_N_CACHED = 64


class _Name(BaseConverter):
    regex = "[A-Za-z0-9._-]+"


_URLS = Map(
    [
        Rule("/", endpoint="overview", methods=["GET"]),
        Rule("/study/<name:name>", endpoint="study", methods=["GET"]),
        Rule("/study/<name:name>/trial/<int(max=999999999):number>", endpoint="trial", methods=["GET"]),
        Rule("/study/<name:name>/report", endpoint="report", methods=["GET"]),
        Rule(f"/study/<name:name>/<any({', '.join(forms.ACTIONS)}):action>", endpoint="act", methods=["POST"]),
    ],
    converters={"name": _Name},
    merge_slashes=False,
).bind("")


class Site:
    """The WSGI application of our own pages. Requests for other paths go to `stock`.

    Args:
        storage: the storage of the studies.
        stock: optuna-dashboard.
    """

    def __init__(self, storage: Storage, stock: "WSGIApplication") -> None:
        self._storage, self._stock, self._board = storage, stock, Board(storage)
        self._cache: dict[tuple[str, bytes, User], Fresh[Response]] = {}
        self._lock = threading.Lock()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request that the guard has passed on."""
        request, user = Request(environ), environ[USER]
        try:
            endpoint, values = _URLS.match(request.path, request.method)
        except MethodNotAllowed:
            response = responses.problem(HTTPStatus.METHOD_NOT_ALLOWED, "this page cannot be changed")
        except NotFound:
            if not request.path.startswith("/study/"):
                return self._stock(environ, start_response)
            response = _message(request, user, HTTPStatus.NOT_FOUND, "there is no such page")
        else:
            response = self._respond(request, user, endpoint, values)
        return responses.conditional(response, request)(environ, start_response)

    def _respond(self, request: Request, user: User, endpoint: str, values: Mapping[str, Any]) -> Response:
        try:
            match endpoint:
                case "act":
                    return self._act(request, **values)
                case "report":
                    return responses.html(self._board.report(**values), policy=responses.REPORT_POLICY)
                case _:
                    return self._shared(request, user, lambda: self._page(request, user, endpoint, values))
        except forms.FormError as error:
            return _message(request, user, HTTPStatus.BAD_REQUEST, str(error))
        except StudyNotFoundError as error:
            return _message(request, user, HTTPStatus.NOT_FOUND, str(error).replace(self._storage.url_safe, "here"))
        except NotFound as error:
            return _message(request, user, HTTPStatus.NOT_FOUND, str(error.description))
        except StorageError:  # its message is meant for a terminal
            return _message(request, user, HTTPStatus.SERVICE_UNAVAILABLE, "the database does not answer")
        except MhistTuneError as error:
            return _message(request, user, HTTPStatus.CONFLICT, str(error), error.hint)

    def _page(self, request: Request, user: User, endpoint: str, values: Mapping[str, Any]) -> Response:
        match endpoint:
            case "overview":
                context = pages.overview(self._board)
            case "study":
                context = pages.study(self._board, **values, query=request.args)
            case _:
                context = pages.trial(self._board, **values)
        return responses.page(f"{endpoint}.html", request, user, **context)

    def _shared(self, request: Request, user: User, make: Callable[[], Response]) -> Response:
        """Return a page that was made less than a second ago for a user with the same rights, or a new one."""
        key = (request.path, request.query_string, user)
        with self._lock:
            while len(self._cache) >= _N_CACHED and key not in self._cache:
                self._cache.pop(next(iter(self._cache)))
            shared = self._cache.setdefault(key, Fresh(make))
        return shared.get()

    def _act(self, request: Request, name: str, action: str) -> Response:
        study = studies.load_study(self._storage, name)
        path = forms.act(self._storage, study, action, forms.read(request))
        self._board.forget(study)
        with self._lock:
            self._cache.clear()
        return responses.see_other(path)


def _message(request: Request, user: User, status: HTTPStatus, title: str, hint: str | None = None) -> Response:
    return responses.page("message.html", request, user, status, title=title, hint=hint)
