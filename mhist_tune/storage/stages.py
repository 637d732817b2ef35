"""The stages, the states of a slot and the states of a study. All other modules use these names."""

from enum import StrEnum


class Stage(StrEnum):
    """The stages of a study in the order in which they are worked on. Each slot belongs to one."""

    SEARCH = "search"
    """Train a trial on the split and score it on the validation images."""

    CONFIRM = "confirm"
    """Train a finalist on one of the folds."""

    RETRAIN = "retrain"
    """Train one seed on the whole train partition and predict the test partition."""

    DESCRIPTIVE = "descriptive"
    """Train one seed of a table's row with early stopping and predict the test partition; for description only."""


class SlotState(StrEnum):
    """The state of a slot."""

    FREE = "free"
    """Any worker may claim it."""

    LEASED = "leased"
    """One worker holds it."""

    WAITING = "waiting"
    """Its trial waits at a rung until it is promoted or pruned."""

    DONE = "done"
    """Its outcome is decided, and Optuna has it too."""

    CANCELLED = "cancelled"
    """The study was stopped, or the race dropped its finalist, before a worker had begun it."""


OPEN = (SlotState.FREE, SlotState.LEASED, SlotState.WAITING)
"""The states of a slot that is neither done nor cancelled."""


class StudyState(StrEnum):
    """Whether workers claim slots of a study."""

    ACTIVE = "active"
    """Workers claim its slots."""

    PAUSED = "paused"
    """No slot is claimed until the study is continued."""

    STOPPED = "stopped"
    """Workers finish the slots that they have begun. All others are cancelled."""
