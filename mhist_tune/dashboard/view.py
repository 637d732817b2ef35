"""Parts of pages made from snapshots: facts, table rows, charts."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from mhist_tune.dashboard.live import Snapshot
from mhist_tune.plots import svg
from mhist_tune.plots.svg import Line
from mhist_tune.report import stage_costs, status_text
from mhist_tune.report.status import BestOfSearch
from mhist_tune.search import selection
from mhist_tune.storage.epochs import EpochRow
from mhist_tune.storage.outcome import EndState
from mhist_tune.storage.slot_rows import SearchSlot
from mhist_tune.storage.stages import SlotState
from mhist_tune.words import rough_duration, score, shortest

PANELS = (
    ("Training loss", "train_loss", False),
    ("Validation loss", "val_loss", False),
    ("Validation mean F1", "val_mean_f1", False),
    ("Validation F1", "val_f1", False),
    ("Validation AUROC", "val_auroc", False),
    ("Learning rate", "learning_rate", True),
)
N_COLOURS = 6
N_DRAWN = 2000
"""The number of trials, the newest ones, that the history chart shows at most."""
PAGE = 50
_STATES = {EndState.COMPLETE: "complete", EndState.PRUNED: "pruned", EndState.FAIL: "failed"}
_SLOTS = {
    SlotState.LEASED: "running",
    SlotState.FREE: "free",
    SlotState.WAITING: "waiting",
    SlotState.CANCELLED: "cancelled",
    SlotState.DONE: "done",
}
_BAR = ("done", "pruned", "failed", "leased", "waiting", "free", "cancelled")

Epochs = Sequence[EpochRow]
Curves = Sequence[tuple[str, Epochs, str]]
"""Label, epochs and CSS class of each drawn trial."""


@dataclass(frozen=True)
class TrialRow:
    """One row of the table of trials, as formatted texts."""

    slot: int
    number: int | None
    state: str
    value: str
    best_epoch: str
    epochs: str
    params: list[str]
    reason: str
    is_best: bool


def state_of(slot: SearchSlot) -> str:
    """Return the state of a slot in one word."""
    return _STATES[slot.outcome.state] if slot.outcome else _SLOTS[slot.state]


def study(snapshot: Snapshot) -> dict[str, Any]:
    """Return the summary of a study for the overview and the top of its own page."""
    summary, slots = snapshot.summary, snapshot.slots
    counts = dict.fromkeys(_BAR, 0)
    for slot in slots:
        state = state_of(slot)
        counts[{"complete": "done", "running": "leased"}.get(state, state)] += 1
    ended = counts["done"] + counts["pruned"] + counts["failed"]
    words = {"done": "complete", "leased": "running"}
    speed = sum(worker.images_per_s or 0.0 for worker in summary.workers)
    best = summary.best
    left = "–" if summary.time_left_s is None else rough_duration(summary.time_left_s)
    n_looks = sum(opening.failed is None for opening in summary.openings)
    confirm = best.confirm if best else None
    definition = snapshot.study.definition
    is_trivial = isinstance(best, BestOfSearch) and best.is_trivial and confirm is None
    confirmed = (
        [(f"Confirmed {definition.score_name}", score(confirm.finalists[0].of(confirm.score)), "out of fold")]
        if confirm
        else []
    )
    return {
        "name": snapshot.study.name,
        "state": summary.state,
        "bar": svg.bar("slots", [(name, counts[name]) for name in _BAR]),
        "counts": ", ".join(f"{n:,} {words.get(name, name)}" for name, n in counts.items() if n),
        "activity": _ago(snapshot),
        "has_report": summary.test_openings > 0,
        "openings": "" if not n_looks else "once" if n_looks == 1 else f"{n_looks} times",
        "notes": [
            *([f"Budget: {stage_costs.budget_text(summary.budget)}."] if summary.budget else []),
            *([f"{status_text.trivial_text(summary.n_trivial, summary.trivial_f1)}."] if summary.n_trivial else []),
        ],
        "facts": [
            (
                f"{'Leading' if is_trivial else 'Best'} validation {definition.score_name}",
                score(best.value if best else None),
                f"trial {best.number}" if best else "",
            ),
            *confirmed,
            ("Trials", f"{ended:,}", f"of {len(slots):,}"),
            ("Pruned", f"{counts['pruned'] / ended:.0%}" if ended else "–", ""),
            ("Workers", str(len(summary.workers)), ""),
            ("Speed", f"{speed:,.0f}" if speed else "–", "images/s" if speed else ""),
            ("Time left", left, ""),
        ],
    }


def workers(snapshot: Snapshot) -> list[list[str]]:
    """Return the rows of the table of active workers, the head first; empty if there are none."""
    rows = [
        [
            worker.host or worker.worker,
            worker.device or "–",
            worker.stage,
            shortest(worker.trial_number),
            shortest(worker.epoch),
            f"{worker.images_per_s:,.0f}" if worker.images_per_s else "–",
            f"{worker.memory_bytes / 1e9:.1f} GB" if worker.memory_bytes else "–",
            f"{worker.lease_age_s:.0f} s",
        ]
        for worker in snapshot.summary.workers
    ]
    head = ["host", "device", "stage", "trial", "epoch", "images/s", "memory", "lease age"]
    return [head, *rows] if rows else []


def trial_rows(
    snapshot: Snapshot, slots: Sequence[SearchSlot], params: Sequence[Mapping[str, Any]], running: Mapping[int, Epochs]
) -> list[TrialRow]:
    """Return one row of the table of trials for each slot.

    Args:
        snapshot: the study.
        slots: the slots.
        params: the params of each slot's trial.
        running: the epochs of the slots that have not ended, by slot number.
    """
    names = params_of(snapshot)
    best = snapshot.summary.best
    rows = []
    for slot, trial_params in zip(slots, params, strict=True):
        outcome = slot.outcome or slot.if_not_promoted
        epochs = running.get(slot.slot, ())
        value = outcome.value if outcome else max((row.value for row in epochs if row.value is not None), default=None)
        rows.append(
            TrialRow(
                slot=slot.slot,
                number=slot.trial_number,
                state=state_of(slot),
                value=score(value),
                best_epoch=shortest(outcome.best_epoch if outcome else None),
                epochs=shortest((outcome and outcome.stopped_epoch) or len(epochs) or None),
                params=[shortest(trial_params.get(name)) for name in names],
                reason="; ".join(_reasons(slot)),
                is_best=best is not None and slot.slot == best.slot,
            )
        )
    return rows


def _reasons(slot: SearchSlot) -> list[str]:
    """Return why a trial ended, after the remark that its model is trivial."""
    outcome = slot.outcome or slot.if_not_promoted
    remarks = ["calls all validation images one class"] if selection.is_trivial(slot) else []
    return [*remarks, outcome.reason] if outcome and outcome.reason else remarks


def params_of(snapshot: Snapshot) -> list[str]:
    """Return the names of the searched hyperparameters, or of those that the rows of a table set."""
    definition = snapshot.study.definition
    return list(definition.rows[0].params) if definition.rows else list(definition.space)


def listed(slots: Sequence[SearchSlot], *, sort: str, only: str) -> list[SearchSlot]:
    """Return the slots in state `only` (all if empty): the best first if `sort` is value, else the newest first."""
    begun = [slot for slot in slots if slot.trial_number is not None or slot.payload.params]
    matching = [slot for slot in begun if only in ("", state_of(slot))]
    if sort == "value":
        return sorted(matching, key=lambda slot: -_value(slot))
    return sorted(matching, key=lambda slot: math.inf if slot.trial_number is None else slot.trial_number, reverse=True)


def filters(name: str, slots: Sequence[SearchSlot], only: str) -> list[tuple[str, str]]:
    """Return text and URL of a link for each state that occurs. The URL of the listed state is empty."""
    states = dict.fromkeys(("complete", "pruned", "failed", "running", "waiting", "free", "cancelled"), 0)
    for slot in listed(slots, sort="", only=""):
        states[state_of(slot)] = states.get(state_of(slot), 0) + 1
    links = [("all", "" if not only else f"/study/{name}#trials")]
    for state, count in states.items():
        if count:
            url = "" if only == state else f"/study/{name}?{urlencode({'state': state})}#trials"
            links.append((f"{state} {count:,}", url))
    return links


def drawn(snapshot: Snapshot) -> list[tuple[SearchSlot, str, str]]:
    """Return slot, label and CSS class of each trial whose curves are drawn. The best one comes last, so on top."""
    leased = [slot for slot in snapshot.slots if slot.state == SlotState.LEASED]
    running = [slot for slot in leased if slot.trial_number is not None][-N_COLOURS:]
    coloured = [(slot, f"trial {slot.trial_number}, running", f"c{place}") for place, slot in enumerate(running)]
    ranked = sorted((slot for slot in snapshot.slots if state_of(slot) == "complete"), key=lambda slot: -_value(slot))
    top = selection.best(snapshot.study, snapshot.slots)
    muted = [(slot, f"trial {slot.trial_number}", "muted") for slot in ranked[:4] if slot is not top]
    return [*muted, *coloured, *([(top, f"trial {top.trial_number}, best", "best")] if top else [])]


def panels(curves: Curves, n_epochs: int) -> list[tuple[str, str]]:
    """Return title and chart of each of `PANELS`."""
    charts = []
    for title, metric, is_log in PANELS:
        lines = [Line(label, [row.metrics.get(metric) for row in rows], style) for label, rows, style in curves]
        charts.append((title, svg.curves(title, lines, n_epochs=n_epochs, is_log=is_log)))
    return charts


def history(snapshot: Snapshot) -> tuple[str, str]:
    """Return title and chart of the value of each trial."""
    points: dict[str, list[tuple[int, float]]] = {"complete": [], "pruned": []}
    for slot in snapshot.slots[-N_DRAWN:]:
        state, value = state_of(slot), _value(slot)
        if state in points and slot.trial_number is not None and math.isfinite(value):
            points[state].append((slot.trial_number, value))
    title = f"Search: {value_name(snapshot)} by trial, pruned trials grey"
    return title, svg.history(title, points["complete"], points["pruned"])


def value_name(snapshot: Snapshot) -> str:
    """Return what the value of a trial is, such as "best validation F1"."""
    definition = snapshot.study.definition
    best = "best " if definition.at == "best" else ""
    return f"{best}validation {definition.score_name}"


def _value(slot: SearchSlot) -> float:
    outcome = slot.outcome or slot.if_not_promoted
    return -math.inf if outcome is None or outcome.value is None else outcome.value


def _ago(snapshot: Snapshot) -> str:
    seconds = snapshot.now - snapshot.active_at
    if seconds < 90:
        return "active now" if snapshot.summary.workers else "last active a minute ago"
    if seconds < 86400:
        return f"last active {rough_duration(seconds)} ago"
    return f"last active {time.strftime('%Y-%m-%d', time.gmtime(snapshot.active_at))}"
