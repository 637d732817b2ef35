"""The command that comes next for a study, from its records."""

from mhist_tune.cli.options import follow_up


def follow_up_study(name: str, storage_url: str) -> None:
    """Print the next command for a study: one that does something, so that no two commands name each other for ever."""
    from mhist_tune.search import selection
    from mhist_tune.storage import ledger, studies
    from mhist_tune.storage.database import open_storage
    from mhist_tune.storage.stages import Stage, StudyState

    with open_storage(storage_url, create=False) as storage:
        study = studies.load_study(storage, name)
        slots = ledger.slots(storage, study, Stage.SEARCH)
    if study.state is StudyState.PAUSED:
        follow_up("continue", name)
    elif selection.unfinished(slots):
        follow_up("worker", name)
    elif any(selection.is_complete(slot) for slot in slots):
        follow_up("retrain", name)
    else:
        follow_up("status", name)
