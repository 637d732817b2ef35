"""The values for the templates of the overview, of a study and of a trial."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from werkzeug.exceptions import NotFound

from mhist_tune.dashboard import view
from mhist_tune.dashboard.live import Board, Snapshot
from mhist_tune.storage import event_log
from mhist_tune.storage.stages import SlotState, StudyState
from mhist_tune.words import shortest

_MAX_STATE = 200  # characters of a state in a query


def overview(board: Board) -> dict[str, Any]:
    """Return the values of `overview.html`."""
    return {"studies": [view.study(snapshot) for snapshot in board.all()]}


def study(board: Board, name: str, query: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of `study.html`.

    Args:
        board: all studies.
        name: the name of the study.
        query: `sort` (value or number), `state` (of the trials to list) and `page` (from 0), each optional.

    Raises:
        StudyNotFoundError: there is no study of that name.
    """
    snapshot = board.snapshot(name)
    sort = "value" if query.get("sort") == "value" else "number"
    state = query.get("state", "")[:_MAX_STATE]
    listed = view.listed(snapshot.slots, sort=sort, only=state)
    last = max(0, (len(listed) - 1) // view.PAGE)
    number = min(int(query["page"]), last) if query.get("page", "").isdecimal() and len(query["page"]) < 7 else 0
    rows = listed[number * view.PAGE : (number + 1) * view.PAGE]
    running = {slot.slot: board.epochs(name, slot) for slot in rows if slot.state == SlotState.LEASED}
    curves = [(label, board.epochs(name, slot), style) for slot, label, style in view.drawn(snapshot)]

    def url(**changed: Any) -> str:
        fields = {"sort": sort, "state": state, "page": number, **changed}
        return f"/study/{name}?{urlencode({key: value for key, value in fields.items() if value})}#trials"

    best = snapshot.summary.best
    n_epochs = max([len(epochs) for _, epochs, _ in curves], default=1)
    return {
        "study": view.study(snapshot),
        "stock_url": f"/dashboard/studies/{snapshot.optuna_id}",
        "score": snapshot.study.definition.score_name,
        "best": ", ".join(f"{key} = {shortest(value)}" for key, value in best.params.items()) if best else "",
        "workers": view.workers(snapshot),
        "legend_lines": [(label, style) for label, _, style in reversed(curves)],
        "charts": [view.history(snapshot), *view.panels(curves, n_epochs)],
        "filters": view.filters(name, snapshot.slots, state),
        "columns": [
            ("trial", url(sort="number", page=0), ""),
            ("state", "", "left"),
            (_column(snapshot), url(sort="value", page=0), ""),
            ("at epoch", "", ""),
            ("epochs", "", ""),
            *((param.replace("_", " "), "", "") for param in view.params_of(snapshot)),
            ("why it ended", "", "left"),
        ],
        "trials": view.trial_rows(snapshot, rows, [board.params(name, slot) for slot in rows], running),
        "pages": [
            *([("newer", url(page=number - 1))] if number else []),
            (f"page {number + 1} of {last + 1}", ""),
            *([("older", url(page=number + 1))] if number < last else []),
        ],
        "states": _buttons(snapshot.study.state),
        "space": _space(snapshot),
        "events": [_sentence(event) for event in snapshot.changes],
    }


def _column(snapshot: Snapshot) -> str:
    definition = snapshot.study.definition
    return f"best {definition.score_name}" if definition.at == "best" else definition.score_name


def _capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


def trial(board: Board, name: str, number: int) -> dict[str, Any]:
    """Return the values of `trial.html`.

    Raises:
        NotFound: the study has no such trial.
        StudyNotFoundError: there is no study of that name.
    """
    snapshot = board.snapshot(name)
    slot = next((slot for slot in snapshot.slots if slot.trial_number == number), None)
    if slot is None:
        raise NotFound(f"study {name} has no trial {number}")
    epochs = board.epochs(name, slot)
    params = board.params(name, slot)
    [row] = view.trial_rows(snapshot, [slot], [params], {slot.slot: epochs})
    curves = [(f"trial {number}", epochs, "c0")]
    best = snapshot.summary.best
    other = next((slot for slot in snapshot.slots if best and slot.slot == best.slot), None)
    if other is not None and other is not slot:
        curves.insert(0, (f"trial {other.trial_number}, best", board.epochs(name, other), "best"))
    elapsed_s = sum(epoch.metrics.get("elapsed_s") or 0.0 for epoch in epochs)
    has_best = slot.outcome is not None or slot.if_not_promoted is not None
    return {
        "study": name,
        "trial": row,
        "facts_of_trial": [
            (_capitalized(view.value_name(snapshot)), row.value, f"epoch {row.best_epoch}" if has_best else ""),
            ("Epochs", row.epochs, ""),
            ("Training", f"{elapsed_s:,.0f}", "s"),
            ("Attempts", str(slot.n_claims), ""),
        ],
        "legend_lines": [(label, style) for label, _, style in reversed(curves)],
        "charts": view.panels(curves, max(len(drawn) for _, drawn, _ in curves)),
        "params": [(key, shortest(value)) for key, value in params.items()],
        "decisions": [
            (epoch.epoch, epoch.decision.reason)
            for epoch in epochs
            if epoch.decision and epoch.decision.threshold is not None
        ],
        "may_retry": row.state in ("failed", "pruned") and not snapshot.study.definition.rows,
        "may_veto": slot.state is SlotState.LEASED,
        "may_thaw": slot.state is SlotState.WAITING,
    }


def _buttons(state: str) -> list[tuple[str, str, str]]:
    """Return the buttons for a study in this state: action, text and style."""
    if state == StudyState.ACTIVE:
        return [("pause", "Pause", ""), ("stop", "Stop: cancel free slots", "danger")]
    return [("continue", "Continue", "strong")]


def _space(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    """Return name, range and default of each searched hyperparameter; nothing for a table."""
    definition = snapshot.study.definition
    if definition.rows:
        return []
    default = definition.default_params()
    return [(name, str(dimension), shortest(default[name])) for name, dimension in definition.space.items()]


def _sentence(event: event_log.EventRow) -> str:
    detail = dict(event.detail)
    by = detail.pop("by")
    changes = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in detail.items() if value not in (None, {}))
    return f"{event.kind} ({changes}) by {by}"
