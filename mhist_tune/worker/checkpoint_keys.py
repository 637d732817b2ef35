"""The keys of checkpoints in a store: one for each slot of a study."""

from collections.abc import Iterable

from mhist_tune.storage.leases import SlotKey
from mhist_tune.storage.stages import Stage
from mhist_tune.storage.studies import Study
from mhist_tune.training.checkpoints.store import CheckpointStore


def checkpoint_key(study: Study, stage: Stage, slot: int) -> str:
    """Return the key of a slot's checkpoints."""
    return f"{study.folder_name}/{stage}-{slot:05d}"


def slots_in(store: CheckpointStore, study: Study) -> set[SlotKey]:
    """Return the slots of a study that have a checkpoint in a store."""
    return {_slot_of(key) for key in store.keys(f"{study.folder_name}/")}


def slots_of_others(store: CheckpointStore, studies: Iterable[Study]) -> list[tuple[Study, set[SlotKey]]]:
    """Return each of the studies that has checkpoints in a store, with the slots that have one."""
    by_folder: dict[str, set[SlotKey]] = {}
    for key in store.keys(""):
        folder, _, name = key.rpartition("/")
        if any(name.startswith(f"{stage}-") for stage in Stage):
            by_folder.setdefault(folder, set()).add(_slot_of(key))
    return [(study, by_folder[study.folder_name]) for study in studies if study.folder_name in by_folder]


def _slot_of(key: str) -> SlotKey:
    stage, _, slot = key.rpartition("/")[2].rpartition("-")
    return Stage(stage), int(slot)
