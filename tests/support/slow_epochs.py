"""Lets every epoch of this process take the same device seconds, whatever it took."""

from typing import Any

from mhist_tune.training import epoch_time
from mhist_tune.worker import slot_run

EPOCH_S = 10.0


def install() -> None:
    """Replace the measured seconds of epochs, recorded and planned, by `EPOCH_S`, for the life of the process."""
    record = slot_run.record_epoch

    def record_slow(*args: Any, metrics: dict[str, Any], **kwargs: Any) -> Any:
        return record(*args, metrics={**metrics, "elapsed_s": EPOCH_S}, **kwargs)

    slot_run.record_epoch = record_slow
    epoch_time.measure = lambda *args, **kwargs: EPOCH_S
