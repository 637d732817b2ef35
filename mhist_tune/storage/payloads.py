"""What the slots of each stage are to do, as it is recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mhist_tune.storage.stages import Stage

INNER, OUTER = "inner", "fold"
"""What a confirming slot trains on: a part of the images outside a fold, to find the number of epochs, or all."""


@dataclass(frozen=True, kw_only=True)
class SearchPayload:
    """A trial of a search, or one seed of a table's row.

    Attributes:
        params: the trial's; None where the sampler suggests them.
        label: of the table's row.
        seed: of the table's row.
        retry_of: the number of the trial that is tried again.
    """

    label: str | None = None
    params: dict[str, Any] | None = None
    seed: int | None = None
    retry_of: int | None = None


@dataclass(frozen=True, kw_only=True)
class ConfirmPayload:
    """A training of a finalist for one fold.

    Attributes:
        trial: the number of its search trial.
        search_value: the value of that trial; None if it is not complete.
        fit: `INNER` or `OUTER`.
        stop_epoch: its fixed number of epochs; None for an inner split.
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
        stop_epoch: its fixed number of epochs.
        best_epoch, stopped_epoch: of the search trial.
        configured_epochs: how many epochs its params allow.
        opening: the id of the opening of the test partition that it belongs to; None until that is recorded.
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
        opening: as in `RetrainPayload`.
    """

    trial: int
    label: str
    params: dict[str, Any]
    seed: int
    opening: int | None = None


Payload = SearchPayload | ConfirmPayload | RetrainPayload | DescriptivePayload

_KINDS: Mapping[Stage, type[Payload]] = {
    Stage.SEARCH: SearchPayload,
    Stage.CONFIRM: ConfirmPayload,
    Stage.RETRAIN: RetrainPayload,
    Stage.DESCRIPTIVE: DescriptivePayload,
}


def to_json(payload: Payload) -> dict[str, Any]:
    """Return a JSON-safe record, without what is None."""
    return {name: value for name in payload.__dataclass_fields__ if (value := getattr(payload, name)) is not None}


def from_json(stage: Stage, record: Mapping[str, Any]) -> Payload:
    """Return the payload of such a record of a stage."""
    return _KINDS[stage](**record)
