"""The stages of a study and the states of a study and of its slots, as they are named everywhere."""

from enum import StrEnum


class Stage(StrEnum):
    """What the slots of a study are for, in the order in which they are worked on."""

    SEARCH = "search"
    """Train a trial on the split and score it on the validation images."""

    CONFIRM = "confirm"
    """Train a finalist on one of the folds."""

    RETRAIN = "retrain"
    """Train one seed on the whole train partition and predict the test partition."""

    DESCRIPTIVE = "descriptive"
    """Train one seed of a table's row with early stopping and predict the test partition; no report rests on it."""


class SlotState(StrEnum):
    """Where a slot stands."""

    FREE = "free"
    """Nobody works on it; any worker may claim it."""

    LEASED = "leased"
    """A worker holds it."""

    WAITING = "waiting"
    """Its trial waits at a rung to be promoted or pruned."""

    DONE = "done"
    """Its outcome stands and Optuna has it."""

    CANCELLED = "cancelled"
    """The study was stopped before anybody had begun it."""


OPEN = (SlotState.FREE, SlotState.LEASED, SlotState.WAITING)
"""The states of slots from which a result is still to come."""


class StudyState(StrEnum):
    """Whether slots of a study are claimed."""

    ACTIVE = "active"
    """They are."""

    PAUSED = "paused"
    """None is claimed until the study is continued."""

    STOPPED = "stopped"
    """What was begun is finished; all other slots are cancelled."""
