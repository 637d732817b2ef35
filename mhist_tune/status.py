"""Where a study stands: slots, trials, workers, and its best trial."""

from typing import Any

from mhist_tune import journal, ledger, selection
from mhist_tune.storage import Storage
from mhist_tune.studies import Study

STAGES = ("search", "retrain")


def best(storage: Storage, study: Study) -> dict[str, Any] | None:
    """Return number, value, best epoch and params of the best search trial, if any is complete."""
    slot = selection.best_slot(storage, study)
    if slot is None or slot.outcome is None:
        return None
    shown = ("value", "best_epoch", "stopped_epoch", "params")
    return {"number": slot.trial_number, "slot": slot.slot} | {name: slot.outcome[name] for name in shown}


def of_study(storage: Storage, study: Study) -> dict[str, Any]:
    """Return a JSON-safe summary of a study."""
    slots = ledger.slots(storage, study, "search")
    states = [slot.outcome["state"] for slot in slots if slot.outcome is not None]
    now = storage.now()
    workers = [
        worker for worker in journal.workers(storage, study) if now - worker["seen_at"] < 2 * study.definition.lease_s
    ]
    return {
        "study": study.name,
        "state": study.state,
        "settings": study.settings,
        "stages": {stage: ledger.counts(storage, study, stage) for stage in STAGES},
        "trials": {state: states.count(state) for state in ("COMPLETE", "PRUNED", "FAIL")},
        "best": best(storage, study),
        "workers": [{**worker, "age_s": now - worker["seen_at"]} for worker in workers],
        "test_openings": len(journal.openings(storage, study)),
    }


def to_text(found: dict[str, Any]) -> str:
    """Return the summary as lines of text."""
    lines = [f"{found['study']}  {found['state']}"]
    for stage, counts in found["stages"].items():
        if counts:
            states = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
            lines.append(f"  {stage}: {states}")
    trials = ", ".join(f"{n} {state.lower()}" for state, n in found["trials"].items() if n)
    if trials:
        lines.append(f"  trials: {trials}")
    if top := found["best"]:
        lines.append(f"  best: trial {top['number']}, val F1 {top['value']:.3f} at epoch {top['best_epoch']}")
    for worker in found["workers"]:
        speed = f", {worker['images_per_s']:.0f} images/s" if worker["images_per_s"] else ""
        lines.append(
            f"  worker {worker['worker']} on {worker['device']}: {worker['stage']} trial {worker['trial_number']}, "
            f"epoch {worker['epoch']}{speed}, seen {worker['age_s']:.0f} s ago"
        )
    lines.append(f"  test partition opened {found['test_openings']} times")
    return "\n".join(lines)
