"""Reads posted forms and makes the changes to a study that they ask for."""

from collections.abc import Mapping
from urllib.parse import quote

from werkzeug import Request
from werkzeug.exceptions import RequestEntityTooLarge

from mhist_tune.actions import change
from mhist_tune.actions.delete import delete
from mhist_tune.errors import StorageError, UsageError
from mhist_tune.search import veto
from mhist_tune.storage.database import Storage
from mhist_tune.storage.stages import StudyState
from mhist_tune.storage.studies import Study

ACTIONS = ("pause", "continue", "stop", "extend", "retry", "thaw", "veto", "enqueue", "delete")
_STATES = {"pause": StudyState.PAUSED, "continue": StudyState.ACTIVE, "stop": StudyState.STOPPED}
_BY = "the dashboard"
_MAX_FORM_BYTES = 64 * 1024
_MAX_TEXT, _MAX_TRIALS = 200, 10_000


class FormError(ValueError):
    """A body that is not a form, is too long, or has a wrong field."""


def read(request: Request) -> dict[str, str]:
    """Return the fields of a posted form.

    Raises:
        FormError: the body is not a form, is too long, or has no length.
    """
    request.max_content_length = request.max_form_memory_size = _MAX_FORM_BYTES
    if request.mimetype != "application/x-www-form-urlencoded":
        raise FormError("expected a form")
    if request.content_length is None:  # the server counts chunked bodies; Werkzeug would cut a stream at the limit
        raise FormError("the form has no Content-Length")
    try:
        return request.form.to_dict()
    except RequestEntityTooLarge as error:
        raise FormError("the form is too long") from error


def act(storage: Storage, study: Study, action: str, fields: Mapping[str, str]) -> str:
    """Change a study as a form asks, and return the path of the page that shows the change.

    Args:
        storage: the storage of the study.
        study: the study to change.
        action: one of `ACTIONS`.
        fields: the fields of the form.

    Raises:
        FormError: a field is wrong.
        UsageError: the study cannot be changed in this way.
    """
    if any(len(value) > _MAX_TEXT for value in fields.values()):
        raise FormError("a field is too long")
    page = f"/study/{quote(study.name)}"
    match action:
        case "extend":
            change.extend(storage, study, _whole(fields, "n_trials", 1, _MAX_TRIALS), by=_BY)
        case "retry":
            change.retry(storage, study, _whole(fields, "trial", 0, 10**9), by=_BY)
        case "thaw":
            number = _whole(fields, "trial", 0, 10**9)
            change.thaw(storage, study, number, by=_BY)
            return f"{page}/trial/{number}"
        case "veto":
            number = _whole(fields, "trial", 0, 10**9)
            veto.record(storage, study, number, fields.get("reason", ""), by=_BY)
            return f"{page}/trial/{number}"
        case "enqueue":
            typed = {key.removeprefix("param."): value for key, value in fields.items() if value.strip()}
            change.enqueue(storage, study, change.read_params(study, typed), by=_BY)
        case "delete":
            _delete(storage, study, fields)
            return "/"
        case _:
            change.set_state(storage, study, _STATES[action], by=_BY)
    return page


def _delete(storage: Storage, study: Study, fields: Mapping[str, str]) -> None:
    if fields.get("name", "").strip() != study.name:
        raise FormError("the typed name is not that of the study")
    try:
        delete(storage, study)
    except StorageError as error:  # its message is meant for a terminal
        raise UsageError(
            f"{study.name} is not deleted completely",
            hint=f"run mhist-tune delete-study {study.name}, which says why and deletes the rest",
        ) from error


def _whole(fields: Mapping[str, str], name: str, low: int, high: int) -> int:
    text = fields.get(name, "")
    if not (text.isdecimal() and len(text) < 12 and low <= int(text) <= high):
        raise FormError(f"{name} must be a whole number from {low} to {high}")
    return int(text)
