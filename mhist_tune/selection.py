"""Which trial is the best one: decided on validation records alone."""

from mhist_tune import ledger
from mhist_tune.ledger import SlotRow
from mhist_tune.storage import Storage
from mhist_tune.studies import Study


def best_slot(storage: Storage, study: Study) -> SlotRow | None:
    """Return the search slot whose complete trial has the best validation F1; of equal ones the first."""
    done = [slot for slot in ledger.slots(storage, study, "search") if (slot.outcome or {}).get("state") == "COMPLETE"]
    return max(done, key=lambda slot: ((slot.outcome or {})["value"], -slot.slot), default=None)
