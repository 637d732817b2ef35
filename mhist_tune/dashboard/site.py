"""Our own pages beside optuna-dashboard's: which path shows what, and what a posted form does."""

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from mhist_tune import control, journal, studies, veto
from mhist_tune.dashboard import view, web
from mhist_tune.dashboard.live import Board, Fresh, Snapshot
from mhist_tune.dashboard.web import FormError, Response
from mhist_tune.errors import MhistTuneError, StorageError, StudyNotFoundError
from mhist_tune.html import style_sheet
from mhist_tune.stages import SlotState, StudyState
from mhist_tune.storage import Storage
from mhist_tune.words import shortest

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from mhist_tune.studies import Study

_ASSETS = {"style.css": "text/css", "pages.css": "text/css", "live.js": "text/javascript"}
_TEMPLATES = Path(__file__).with_name("templates")
_STUDY = re.compile(r"/study/([A-Za-z0-9._-]+)(?:/(report|trial/(\d{1,9})))?")
_ACTION = re.compile(r"/study/([A-Za-z0-9._-]+)/(pause|continue|stop|extend|retry|veto|enqueue)")
_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
_BY = "the dashboard"
_MAX_TEXT, _MAX_TRIALS = 200, 10_000
_N_PAGES = 64


class Site:
    """A WSGI application; what is not one of our paths goes to `stock`.

    Args:
        storage: what is shown.
        stock: optuna-dashboard.
    """

    def __init__(self, storage: Storage, stock: "WSGIApplication") -> None:
        self._storage, self._stock, self._board = storage, stock, Board(storage)
        self._pages: dict[tuple[str, str, bool, bool], Fresh[Response]] = {}
        self._lock = threading.Lock()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request that the guard let through."""
        page = self._page(environ)
        if page is None:
            return self._stock(environ, start_response)
        try:
            response = self._shared(environ, page) if _is_live(environ) else page()
        except StudyNotFoundError as error:
            response = self._message(environ, HTTPStatus.NOT_FOUND, str(error).replace(self._storage.url_safe, "here"))
        except StorageError:  # its text is for the terminal
            response = self._message(environ, HTTPStatus.SERVICE_UNAVAILABLE, "the database does not answer")
        except MhistTuneError as error:
            response = self._message(environ, HTTPStatus.CONFLICT, str(error), error.hint)
        return response.send(environ, start_response)

    def _shared(self, environ: "WSGIEnvironment", page: Callable[[], Response]) -> Response:
        """Return a page that was made less than a second ago for somebody else with the same rights, or a new one."""
        rights = (environ["mhist.is_known"], environ["mhist.may_write"])
        key = (environ.get("PATH_INFO", ""), environ.get("QUERY_STRING", ""), *rights)
        with self._lock:
            while len(self._pages) >= _N_PAGES and key not in self._pages:
                self._pages.pop(next(iter(self._pages)))
            shared = self._pages.setdefault(key, Fresh(page))
        return shared.get()

    def _page(self, environ: "WSGIEnvironment") -> Callable[[], Response] | None:
        path, is_reading = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"] in ("GET", "HEAD")
        if path in ("", "/"):
            return (lambda: self._overview(environ)) if is_reading else _no_method
        if path.startswith("/assets/"):
            return lambda: _asset(path.removeprefix("/assets/"))
        if (acted := _ACTION.fullmatch(path)) and environ["REQUEST_METHOD"] == "POST":
            return lambda: self._act(environ, acted[1], acted[2])
        if asked := _STUDY.fullmatch(path):
            if not is_reading:
                return _no_method
            name, rest, trial = asked.groups()
            if rest is None:
                return lambda: self._study(environ, name)
            return (lambda: self._trial(environ, name, int(trial))) if trial else (lambda: self._report(name))
        if path.startswith("/study/"):
            return lambda: self._message(environ, HTTPStatus.NOT_FOUND, "there is no such page")
        return None

    def _overview(self, environ: "WSGIEnvironment") -> Response:
        return self._render(environ, "overview.html", studies=[view.study(one) for one in self._board.all()])

    def _study(self, environ: "WSGIEnvironment", name: str) -> Response:
        snapshot = self._board.snapshot(name)
        asked = web.query(environ)
        sort = "value" if asked.get("sort") == "value" else "number"
        only = asked.get("state", "")[:_MAX_TEXT]
        listed = view.chosen(snapshot.slots, sort=sort, only=only)
        last = max(0, (len(listed) - 1) // view.PAGE)
        number = min(int(asked["page"]), last) if asked.get("page", "").isdecimal() and len(asked["page"]) < 7 else 0
        rows = listed[number * view.PAGE : (number + 1) * view.PAGE]
        running = {slot.slot: self._board.epochs(name, slot) for slot in rows if slot.state == SlotState.LEASED}
        curves = [(label, self._board.epochs(name, slot), style) for slot, label, style in view.drawn(snapshot)]

        def url(**changed: Any) -> str:
            fields = {"sort": sort, "state": only, "page": number, **changed}
            return f"/study/{name}?{urlencode({key: value for key, value in fields.items() if value})}#trials"

        best = snapshot.summary["best"]
        n_epochs = max([len(epochs) for _, epochs, _ in curves], default=1)
        return self._render(
            environ,
            "study.html",
            study=view.study(snapshot),
            stock_url=f"/dashboard/studies/{snapshot.optuna_id}",
            best=", ".join(f"{key} = {shortest(value)}" for key, value in best["params"].items()) if best else "",
            workers=view.workers(snapshot),
            legend_lines=[(label, style) for label, _, style in reversed(curves)],
            charts=[view.history(snapshot), *view.panels(curves, n_epochs)],
            filters=view.filters(name, snapshot.slots, only),
            columns=[
                ("trial", url(sort="number", page=0), ""),
                ("state", "", "left"),
                ("best F1", url(sort="value", page=0), ""),
                ("at epoch", "", ""),
                ("epochs", "", ""),
                *((param.replace("_", " "), "", "") for param in view.params_of(snapshot)),
                ("why it ended", "", "left"),
            ],
            trials=view.trial_rows(snapshot, rows, [self._board.params(name, slot) for slot in rows], running),
            pages=[
                *([("newer", url(page=number - 1))] if number else []),
                (f"page {number + 1} of {last + 1}", ""),
                *([("older", url(page=number + 1))] if number < last else []),
            ],
            states=_states(snapshot.study.state),
            space=_space(snapshot),
            events=[_sentence(one) for one in snapshot.changes],
        )

    def _trial(self, environ: "WSGIEnvironment", name: str, number: int) -> Response:
        snapshot = self._board.snapshot(name)
        slot = next((slot for slot in snapshot.slots if slot.trial_number == number), None)
        if slot is None:
            return self._message(environ, HTTPStatus.NOT_FOUND, f"study {name} has no trial {number}")
        epochs = self._board.epochs(name, slot)
        params = self._board.params(name, slot)
        [row] = view.trial_rows(snapshot, [slot], [params], {slot.slot: epochs})
        curves = [(f"trial {number}", epochs, "c0")]
        best = snapshot.summary["best"]
        other = next((one for one in snapshot.slots if best and one.slot == best["slot"]), None)
        if other is not None and other is not slot:
            curves.insert(0, (f"trial {other.trial_number}, best", self._board.epochs(name, other), "best"))
        elapsed_s = sum(one.metrics.get("elapsed_s") or 0.0 for one in epochs)
        return self._render(
            environ,
            "trial.html",
            study=name,
            trial=row,
            facts_of_trial=[
                ("Best validation F1", row.value, f"epoch {row.best_epoch}" if slot.outcome else ""),
                ("Epochs", row.epochs, ""),
                ("Training", f"{elapsed_s:,.0f}", "s"),
                ("Attempts", str(slot.attempts), ""),
            ],
            legend_lines=[(label, style) for label, _, style in reversed(curves)],
            charts=view.panels(curves, max(len(one) for _, one, _ in curves)),
            params=[(key, shortest(value)) for key, value in params.items()],
            decisions=[
                (one.epoch, one.decision["reason"])
                for one in epochs
                if one.decision and one.decision.get("threshold") is not None
            ],
            may_retry=row.state in ("failed", "pruned") and not snapshot.study.definition.rows,
            may_veto=slot.state == SlotState.LEASED,
        )

    def _report(self, name: str) -> Response:
        return Response(self._board.report(name), headers={"Content-Security-Policy": _REPORT_POLICY})

    def _act(self, environ: "WSGIEnvironment", name: str, action: str) -> Response:
        study = studies.load_study(self._storage, name)
        try:
            fields = web.form(environ)
            if any(len(value) > _MAX_TEXT for value in fields.values()):
                raise FormError("a field is too long")
            where = self._do(study, action, fields)
        except FormError as error:
            return self._message(environ, HTTPStatus.BAD_REQUEST, str(error))
        self._board.forget(name)
        with self._lock:
            self._pages.clear()
        return web.see_other(where)

    def _do(self, study: "Study", action: str, fields: Mapping[str, str]) -> str:
        """Do what a form asks for, and return the page that shows it."""
        here = f"/study/{quote(study.name)}"
        match action:
            case "extend":
                control.extend(self._storage, study, _whole(fields, "n_trials", 1, _MAX_TRIALS), by=_BY)
            case "retry":
                control.retry(self._storage, study, _whole(fields, "trial", 0, 10**9), by=_BY)
            case "veto":
                number = _whole(fields, "trial", 0, 10**9)
                veto.record(self._storage, study, number, fields.get("reason", ""), by=_BY)
                return f"{here}/trial/{number}"
            case "enqueue":
                given = {key.removeprefix("param."): value for key, value in fields.items() if value.strip()}
                control.enqueue(self._storage, study, control.read_params(study, given), by=_BY)
            case _:
                state = {"pause": StudyState.PAUSED, "continue": StudyState.ACTIVE, "stop": StudyState.STOPPED}[action]
                control.set_state(self._storage, study, state, by=_BY)
        return here

    def _message(self, environ: "WSGIEnvironment", status: HTTPStatus, title: str, hint: str | None = None) -> Response:
        return self._render(environ, "message.html", status, title=title, hint=hint)

    def _render(
        self, environ: "WSGIEnvironment", template: str, status: HTTPStatus = HTTPStatus.OK, **context: Any
    ) -> Response:
        user = {"is_known": environ["mhist.is_known"], "may_write": environ["mhist.may_write"]}
        page = web.templates().get_template(template)
        return Response(page.render(user=user, message="", is_wrong=False, **context), status)


def _is_live(environ: "WSGIEnvironment") -> bool:
    """Return whether a request is for a page that many poll."""
    path = environ.get("PATH_INFO", "")
    return environ["REQUEST_METHOD"] in ("GET", "HEAD") and not path.startswith("/assets/") and path[-7:] != "/report"


def _no_method() -> Response:
    return web.problem(HTTPStatus.METHOD_NOT_ALLOWED, "this page is only read")


def _asset(name: str) -> Response:
    if name not in _ASSETS:
        return web.problem(HTTPStatus.NOT_FOUND, "there is no such file")
    text = style_sheet() if name == "style.css" else (_TEMPLATES / name).read_text("utf-8")
    return Response(text, content_type=f"{_ASSETS[name]}; charset=utf-8")


def _whole(fields: Mapping[str, str], name: str, low: int, high: int) -> int:
    text = fields.get(name, "")
    if not (text.isdecimal() and len(text) < 12 and low <= int(text) <= high):
        raise FormError(f"{name} must be a whole number from {low} to {high}")
    return int(text)


def _states(state: str) -> list[tuple[str, str, str]]:
    """Return the buttons that a study in this state has: action, text and style."""
    if state == StudyState.ACTIVE:
        return [("pause", "Pause", ""), ("stop", "Stop: cancel what waits", "danger")]
    return [("continue", "Continue", "strong")]


def _space(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    """Return name, range and the control's value of each searched hyperparameter."""
    definition = snapshot.study.definition
    if definition.rows:
        return []
    default = definition.default_params()
    return [(name, str(dimension), shortest(default[name])) for name, dimension in definition.space.items()]


def _sentence(event: journal.EventRow) -> str:
    detail = dict(event.detail)
    by = detail.pop("by")
    what = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in detail.items() if value not in (None, {}))
    return f"{event.kind} ({what}) by {by}"
