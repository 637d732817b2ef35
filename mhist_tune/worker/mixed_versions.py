"""Versions of the code that train one study: the first one is recorded, and another one is said or refused."""

from mhist_tune.code_version import code_version
from mhist_tune.errors import UsageError
from mhist_tune.events import Emit
from mhist_tune.storage import event_log, ledger, studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.leases import Claim
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study

_BEFORE = "an earlier version"


def join(storage: Storage, study: Study, *, may_mix: bool, emit: Emit) -> Study:
    """Record this version as the study's if it has none, and return the study; report if the study has another one.

    Args:
        storage: where the study is.
        study: the study that a worker is about to train.
        may_mix: whether the rows of a table may be trained by different versions.
        emit: receives the event.

    Raises:
        UsageError: another version trains the rows of this table.
    """
    if studies.CODE_VERSION not in study.settings:
        has_begun = any(slot.trial_number is not None for slot in ledger.slots(storage, study, Stage.SEARCH))
        study = studies.set_setting(storage, study, studies.CODE_VERSION, _BEFORE if has_begun else code_version())
    require_one(study, may_mix=may_mix)
    first = study.settings[studies.CODE_VERSION]
    if first != code_version():
        emit("version", study=study.name, code_version=code_version(), first=first)
    return study


def require_one(study: Study, *, may_mix: bool) -> None:
    """Raise UsageError if the study is a table whose rows another version trains, unless versions may be mixed.

    A table from before versions were recorded is not refused: nobody knows its version, so none could go on with it.
    """
    first = study.settings.get(studies.CODE_VERSION, _BEFORE)
    if study.definition.rows and first not in (code_version(), _BEFORE) and not may_mix:
        raise UsageError(
            f"the rows of {study.name} are trained by mhist-tune {first}, and this is {code_version()}",
            hint="rows are compared, so one version should train all of them; --mix-versions trains them with this one",
        )


def record(storage: Storage, study: Study, claim: Claim) -> None:
    """Record that this version trains a slot, unless it is the study's own version."""
    if study.settings.get(studies.CODE_VERSION, code_version()) != code_version():
        detail = {"code_version": code_version()}
        event_log.event(storage, study, kind=event_log.VERSION, stage=claim.stage, slot=claim.slot, detail=detail)
