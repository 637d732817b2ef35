"""What a slot has to train, one class for each stage, and its form in the database."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mhist_tune.storage import damage
from mhist_tune.storage.stages import Stage

INNER, OUTER = "inner", "fold"
"""What a slot of the confirm stage trains on: a part of the images outside a fold, to find the number of epochs, or all
of them.
"""


def fold_set(fold: int) -> str:
    """Return the name of the image set of a fold."""
    return f"fold{fold}"


def inner_set(fold: int) -> str:
    """Return the name of the image set outside a fold that validates the number of epochs."""
    return f"fold{fold}.inner"


@dataclass(frozen=True, kw_only=True)
class SearchPayload:
    """A trial of a search, or one seed of a table's row.

    Attributes:
        label: the label of the table's row; None in a search.
        params: the hyperparameters; None if the sampler suggests them.
        seed: the seed for the table's row; None in a search.
        retry_of: the number of the failed trial that is trained again.
    """

    label: str | None = None
    params: dict[str, Any] | None = None
    seed: int | None = None
    retry_of: int | None = None


@dataclass(frozen=True, kw_only=True)
class ConfirmPayload:
    """A training of a finalist for one fold.

    Attributes:
        trial: the number of the search trial.
        params: its hyperparameters.
        search_value: its value; None if it is not complete.
        fit: `INNER` or `OUTER`.
        stop_epoch: the fixed number of epochs; None for an inner split.
        fold: the fold that is left out, 0-based.
    """

    trial: int
    params: dict[str, Any]
    search_value: float | None = None
    fit: str
    stop_epoch: int | None = None
    fold: int


@dataclass(frozen=True, kw_only=True)
class RetrainPayload:
    """One seed of a trial on the whole train partition.

    Attributes:
        trial: the number of the search trial.
        params: its hyperparameters.
        seed: number of the retraining, 0-based.
        stop_epoch: the fixed number of epochs.
        best_epoch, stopped_epoch: the best and the last epoch of the search trial.
        configured_epochs: the number of epochs in its params.
        opening: the id of the opening of the test partition; None until that is recorded.
    """

    trial: int
    params: dict[str, Any]
    seed: int
    stop_epoch: int
    best_epoch: int | None = None
    stopped_epoch: int | None = None
    configured_epochs: int
    opening: int | None = None


@dataclass(frozen=True, kw_only=True)
class DescriptivePayload:
    """One seed of a table's row with early stopping.

    Attributes:
        trial: the number of the row's search trial.
        label: the label of the row.
        params: its hyperparameters.
        seed, opening: as in `RetrainPayload`.
    """

    trial: int
    label: str
    params: dict[str, Any]
    seed: int
    opening: int | None = None


Payload = SearchPayload | ConfirmPayload | RetrainPayload | DescriptivePayload

_CLASSES: Mapping[Stage, type[Payload]] = {
    Stage.SEARCH: SearchPayload,
    Stage.CONFIRM: ConfirmPayload,
    Stage.RETRAIN: RetrainPayload,
    Stage.DESCRIPTIVE: DescriptivePayload,
}


def to_json(payload: Payload) -> dict[str, Any]:
    """Return a JSON-safe record. Attributes that are None are left out."""
    return {name: value for name in payload.__dataclass_fields__ if (value := getattr(payload, name)) is not None}


def from_json(stage: Stage, record: Mapping[str, Any]) -> Payload:
    """Return the payload of a record of `stage`."""
    with damage.explained("a payload"):
        return _CLASSES[stage](**record)
