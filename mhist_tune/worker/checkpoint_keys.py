"""The keys of checkpoints in a store: one for each slot of a study."""

from mhist_tune.storage.leases import SlotKey
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study
from mhist_tune.worker.session import Session


def checkpoint_key(study: Study, stage: Stage, slot: int) -> str:
    """Return the key of a slot's checkpoints."""
    return f"{study.folder_name}/{stage}-{slot:05d}"


def slots_in(session: Session) -> set[SlotKey]:
    """Return the slots of the study that have a checkpoint in the worker's store."""
    return {_slot_of(key) for key in session.checkpoints.keys(f"{session.study.folder_name}/")}


def _slot_of(key: str) -> SlotKey:
    stage, _, slot = key.rpartition("/")[2].rpartition("-")
    return Stage(stage), int(slot)
