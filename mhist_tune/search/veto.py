"""Records a person's veto, which prunes a running trial at its next epoch."""

from mhist_tune.errors import UsageError
from mhist_tune.storage import event_log, ledger
from mhist_tune.storage.database import Storage
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.storage.studies import Study

_KIND = "veto"


def record(storage: Storage, study: Study, number: int, reason: str, *, by: str) -> None:
    """Veto a running trial: its worker prunes it at its next epoch.

    Args:
        storage: the database of the study.
        study: the study.
        number: of the trial.
        reason: recorded with the trial; not empty.
        by: the person who vetoes.

    Raises:
        UsageError: there is no such trial, it has ended or waits at a rung, or no reason is given.
    """
    if not reason.strip():
        raise UsageError("a veto needs a reason", hint="it is recorded with the trial")
    slot = ledger.of_trial(storage, study, number)
    if slot.outcome is not None:
        raise UsageError(f"trial {number} has ended; there is nothing to veto")
    if slot.state is SlotState.WAITING:
        raise UsageError(f"trial {number} waits at a rung and trains no epoch; there is nothing to veto")
    event_log.event(storage, study, kind=_KIND, stage=Stage.SEARCH, slot=slot.slot, detail={"reason": reason, "by": by})


def reason(storage: Storage, study: Study, slot: int) -> str | None:
    """Return by whom and why the trial of a slot was vetoed; None if it was not."""
    events = event_log.events(storage, study, kind=_KIND, stage=Stage.SEARCH, slot=slot)
    return f"vetoed by {events[0].detail['by']}: {events[0].detail['reason']}" if events else None
