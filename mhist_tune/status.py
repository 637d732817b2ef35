"""Where a study stands: slots, trials, workers, and its best trial.

What needs NumPy is imported inside functions: loading that is a fifth of `status`, and needed only where finalists are
confirmed or workers train.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mhist_tune import ledger, selection, words
from mhist_tune.heartbeats import load_workers
from mhist_tune.ledger import SlotRow
from mhist_tune.openings import load_openings
from mhist_tune.stages import SlotState, Stage
from mhist_tune.storage import Storage
from mhist_tune.studies import Study

_N_TIMED = 20  # finished trials whose mean time tells how long the rest will take
_KEYS = {SlotState.WAITING: "paused"}  # the key that programs know
_WORDS = {key: state for state, key in _KEYS.items()}
_SHOWN = ("worker", "host", "device", "images_per_s", "memory_bytes")


def best(storage: Storage, study: Study) -> dict[str, Any] | None:
    """Return number, slot, value, best epoch and params of the trial to go on with, if any is complete.

    That is the search's best trial until its finalists are confirmed, and then the best confirmed one; `confirm` is
    what `finalists.document` says then, and None before. Of a table it is the first seed of the best row, with the
    row's label, its number of seeds and their mean value.
    """
    slots = {stage: ledger.slots(storage, study, stage) for stage in (Stage.SEARCH, Stage.CONFIRM)}
    return best_of(storage, study, slots)


def of_study(storage: Storage, study: Study) -> dict[str, Any]:
    """Return a JSON-safe summary of a study."""
    slots = {stage: ledger.slots(storage, study, stage) for stage in Stage}
    return summary(storage, study, slots, best_of(storage, study, slots))


def summary(
    storage: Storage, study: Study, slots: Mapping[Stage, Sequence[SlotRow]], best: dict[str, Any] | None
) -> dict[str, Any]:
    """Return what `of_study` does, from the slots of each of `Stage` and the best of them."""
    states = Counter(
        slot.outcome["state"] for slot in slots[Stage.SEARCH] if slot.outcome and slot.state != SlotState.WAITING
    )
    workers = _workers(storage, study, [slot for stage in Stage for slot in slots[stage]])
    return {
        "study": study.name,
        "state": study.state,
        "settings": study.settings,
        "stages": {stage: dict(Counter(_KEYS.get(slot.state, slot.state) for slot in slots[stage])) for stage in Stage},
        "trials": {state: states[state] for state in ("COMPLETE", "PRUNED", "FAIL")},
        "best": best,
        "workers": workers,
        "time_left_s": _time_left_s(storage, study, slots[Stage.SEARCH], workers),
        "test_openings": len(load_openings(storage, study)),
    }


def best_of(storage: Storage, study: Study, slots: Mapping[Stage, Sequence[SlotRow]]) -> dict[str, Any] | None:
    """Return what `best` does, from the slots of search and confirmation; the latter costs a bootstrap."""
    searched = slots[Stage.SEARCH]
    slot = selection.best(study, searched)
    if slot is None or slot.outcome is None:
        return None
    outcome, confirmed = slot.outcome, None
    if slots[Stage.CONFIRM]:
        from mhist_tune import finalists  # with NumPy

        confirmation = finalists.of_slots(storage, study, searched, slots[Stage.CONFIRM])
        if confirmation and confirmation.chosen:
            chosen, confirmed = confirmation.chosen.candidate, finalists.document(confirmation)
            slot = next(one for one in searched if one.trial_number == chosen.trial)
            outcome = {**(slot.outcome or {}), "params": chosen.params, "value": chosen.search_value}
    shown = ("value", "standard_error", "best_epoch", "stopped_epoch", "params")
    found = {"number": slot.trial_number, "slot": slot.slot} | {name: outcome.get(name) for name in shown}
    found["confirm"] = confirmed
    row = selection.best_row(study, searched)
    if row is not None:
        return found | {"value": row.mean, "label": row.label, "n_seeds": len(row.slots)}
    found["n_ties"] = len(selection.ties(slot, searched))
    return found


def _workers(storage: Storage, study: Study, slots: Sequence[SlotRow]) -> list[dict[str, Any]]:
    """Return whoever holds a lease that has not run out, with what it last said about itself."""
    now, lease_s = storage.now(), study.definition.lease_s
    said = {worker["worker"]: worker for worker in load_workers(storage, study)}
    found = []
    for slot in slots:
        if slot.state != SlotState.LEASED or slot.expires_at is None or slot.expires_at < now:
            continue
        name = (slot.owner or "").rpartition(":")[0]
        last = said.get(name, {})
        is_this_slot = (last.get("stage"), last.get("slot")) == (slot.stage, slot.slot)
        found.append(
            {
                **{key: last.get(key) for key in _SHOWN},
                "worker": name,
                "stage": slot.stage,
                "slot": slot.slot,
                "trial_number": slot.trial_number,
                "epoch": last.get("epoch") if is_this_slot else None,
                "lease_age_s": max(0.0, now + lease_s - slot.expires_at),
            }
        )
    return found


def _time_left_s(
    storage: Storage, study: Study, slots: Sequence[SlotRow], workers: Sequence[dict[str, Any]]
) -> float | None:
    """Return how long those at work will need for the rest of the search; None if nobody is, or nothing is known."""
    n_workers = len([worker for worker in workers if worker["stage"] == Stage.SEARCH])
    done = [slot for slot in slots if slot.state == SlotState.DONE][-_N_TIMED:]
    if not n_workers or not done:
        return None

    from mhist_tune.epochs import elapsed_s  # imports NumPy

    leased = [slot for slot in slots if slot.state == SlotState.LEASED]
    spent_s = elapsed_s(storage, study, Stage.SEARCH, [slot.slot for slot in [*done, *leased]])
    mean_s = sum(spent_s.get(slot.slot, 0.0) for slot in done) / len(done)
    n_free = sum(slot.state == SlotState.FREE for slot in slots)
    rest_s = sum(max(0.0, mean_s - spent_s.get(slot.slot, 0.0)) for slot in leased)
    return (n_free * mean_s + rest_s) / n_workers


def best_text(found: dict[str, Any]) -> str:
    """Return `best`'s result in one line, or two where it is confirmed."""
    if "label" in found:
        row = f'"{found["label"]}" (trial {found["number"]})'
        return f"{row}, mean val F1 {found['value']:.3f} of {found['n_seeds']} seeds"
    if found["confirm"] is None:
        error = "" if found["standard_error"] is None else f" ± {found['standard_error']:.3f}"
        ties = f"; {found['n_ties']} more within this standard error" if found["n_ties"] else ""
        return f"trial {found['number']}, val F1 {found['value']:.3f}{error} at epoch {found['best_epoch']}{ties}"
    from mhist_tune import finalists  # with NumPy

    return "; ".join(finalists.sentences(found["confirm"]))


def to_text(found: dict[str, Any]) -> str:
    """Return the summary as lines of text."""
    lines = [f"{found['study']}  {found['state']}"]
    if settled := found["settings"].get("probed"):
        lines.append(f"  settings: {words.settings(settled)}")
    for stage, counts in found["stages"].items():
        if counts:
            states = ", ".join(f"{n} {_WORDS.get(state, state)}" for state, n in sorted(counts.items()))
            lines.append(f"  {stage}: {states}")
    trials = ", ".join(f"{n} {state.lower()}" for state, n in found["trials"].items() if n)
    if trials:
        lines.append(f"  trials: {trials}")
    if top := found["best"]:
        lines.append(f"  best: {best_text(top)}")
    for worker in found["workers"]:
        progress = "" if worker["epoch"] is None else f", epoch {worker['epoch']}"
        speed = f", {worker['images_per_s']:.0f} images/s" if worker["images_per_s"] else ""
        memory = f", {worker['memory_bytes'] / 1e9:.1f} GB" if worker["memory_bytes"] else ""
        lines.append(
            f"  {worker['worker']} on {worker['device'] or 'a device unknown yet'}: {worker['stage']} trial "
            f"{worker['trial_number']}{progress}{speed}{memory}, lease {worker['lease_age_s']:.0f} s old"
        )
    if (left_s := found["time_left_s"]) is not None:
        lines.append(f"  time left: about {words.rough_duration(left_s)}")
    lines.append(f"  test partition opened {words.counted(found['test_openings'], 'time')}")
    return "\n".join(lines)
