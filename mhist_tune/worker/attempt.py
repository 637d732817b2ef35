"""One attempt at a claimed slot: what each error does to the slot and to the worker."""

import contextlib
import traceback
from collections.abc import Callable
from functools import partial

from mhist_tune.errors import DeviceError, MhistTuneError, StorageError
from mhist_tune.events import Interrupted
from mhist_tune.storage import event_log, ledger
from mhist_tune.storage.leases import Claim, LeaseKeeper, StaleTokenError
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.training import memory
from mhist_tune.worker.checkpoint_room import GivesWay
from mhist_tune.worker.session import Session
from mhist_tune.worker.slot_run import EndedEarly, SlotRun, Waits
from mhist_tune.worker.trial_checkpoints import LeftToOthers

N_ATTEMPTS_AFTER_ERRORS = 3
"""The number of attempts that may fail by an error of the trial. After the last one the trial is recorded as FAIL."""

_RELEASE_S = 5.0


def run_slot(session: Session, claim: Claim, work: Callable[[SlotRun], Outcome]) -> Claim | None:
    """Run a claimed slot to its end with `work`, which returns the outcome.

    If the lease is lost, the run ends without an error. An error of the trial is recorded with its traceback and the
    slot is freed; after `N_ATTEMPTS_AFTER_ERRORS` errors the trial is recorded as FAIL. A fault of the machine
    (database, disk, memory or device) frees the slot, ends the worker and gives the trial no value.

    Returns:
        The slot that the worker has claimed instead, because the space for checkpoints is full; None otherwise.

    Raises:
        Interrupted: a signal asked to stop; the slot is free.
        MhistTuneError: this worker cannot go on; the slot is free, or becomes free when its lease expires.
    """
    storage, name = session.storage, session.study.name
    stage, slot = claim.stage, claim.slot
    watch = partial(ledger.watch, storage, session.study, session.stages, session.observer)
    with LeaseKeeper(storage, claim, session.study.definition.lease_s, watch=watch) as keeper:
        run = SlotRun(session, claim, keeper)
        try:
            try:
                run.conclude(claim.outcome or _outcome_of(work, run))
            except Interrupted:
                run.checkpoints.writer.save_kept()
                raise
            finally:
                run.checkpoints.writer.finish()  # nothing is saved after the lease has ended
        except Waits as waits:
            session.emit("waits", study=name, stage=stage, slot=slot, reason=str(waits))
        except StaleTokenError:
            session.emit("lost", study=name, stage=stage, slot=slot)
        except LeftToOthers:
            _release(session, claim)
        except GivesWay as way:
            session.emit("gives_way", study=name, stage=stage, slot=slot, reason=str(way))
            _release(session, claim)
            return way.claim
        except StorageError as error:
            _release(session, claim)
            message = f"{error}; trial {run.trial.number} of {name} keeps its checkpoint and is resumed from it"
            raise StorageError(message, hint=error.hint) from error
        except (Interrupted, MhistTuneError):
            _release(session, claim)
            raise
        except Exception as error:
            if fault := memory.device_fault(error):
                _release(session, claim)
                raise DeviceError(f"{session.device} {fault}: {error}".splitlines()[0]) from error
            summary = f"{type(error).__name__}: {error}"
            detail = {"error": summary, "traceback": traceback.format_exc()}
            event_log.event(storage, session.study, kind="error", stage=stage, slot=slot, detail=detail)
            session.emit("error", study=name, stage=stage, slot=slot, error=summary)
            errors = event_log.events(storage, session.study, kind="error", stage=stage, slot=slot)
            if len(errors) < N_ATTEMPTS_AFTER_ERRORS:
                ledger.release(storage, claim)
            else:
                run.conclude(Outcome(state=EndState.FAIL, reason=summary))
    return None


def _outcome_of(work: Callable[[SlotRun], Outcome], run: SlotRun) -> Outcome:
    try:
        return work(run)
    except EndedEarly as ended:
        return ended.outcome


def _release(session: Session, claim: Claim) -> None:
    """Free the slot if the database answers within `_RELEASE_S` seconds; otherwise the lease expires by itself."""
    with contextlib.suppress(Interrupted, StorageError):
        ledger.release(session.storage, claim, retry_s=_RELEASE_S)
