"""The checkpoints of one run as `train.fit` sees them: copied on the thread that trains, written by another one.

Training pays for the copy alone, unless it computes on the same cores. Saving is rare enough to stay below
`SAVING_SHARE` of the run's time; the epochs since the last save are trained again after a kill. When a run is asked
to stop, the copy of an epoch that was not saved is written, unless copying would have cost too much of the epoch.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from mhist_tune.checkpoint import Cancelled, CheckpointStore, Snapshot, snapshot
from mhist_tune.errors import DiskFullError, StorageError, StoreAwayError

SAVING_SHARE = 0.02
"""The part of the training time that saving may take, but for the first save, which tells what one takes."""

_KEEPING_SHARE = 0.005  # of an epoch: shorter ones cost less to train again than to copy each time


def _give_up(error: StorageError) -> None:
    raise error


def _ignore(*_: object) -> None:
    pass


class CheckpointSlot:
    """The checkpoints of one run under one lease. One save is on its way at a time.

    Args:
        store: where they are kept.
        key: the run's.
        token: the lease's.
        shares_cores: whether the device that trains is the CPU, so that the writer's computing is saving time too.
        on_wait: hears that there is no space, or that the store is away; returns when it is time to try again, or
            raises to give up.
        on_missing: hears that the store has no intact state of the run, or why it does not tell; may raise to keep the
            run from starting anew.
        on_unsaved: hears why the last save of a run that ends anyway has failed.

    Attributes:
        saved_epoch: of the newest state that this lease has written and that is durable; None before.
    """

    def __init__(
        self,
        store: CheckpointStore,
        key: str,
        token: int,
        *,
        shares_cores: bool = True,
        on_wait: Callable[[StorageError], None] = _give_up,
        on_missing: Callable[[StoreAwayError | None], None] = _ignore,
        on_unsaved: Callable[[Exception], None] = _ignore,
    ) -> None:
        self.store = store
        self.key = key
        self.token = token
        self.saved_epoch: int | None = None
        self._shares_cores = shares_cores
        self._on_wait, self._on_missing, self._on_unsaved = on_wait, on_missing, on_unsaved
        self._write: _Write | None = None
        self._kept: tuple[Snapshot, int] | None = None
        self._began = self._epoch_began = time.perf_counter()
        self._spent_s = 0.0
        self._last_s: float | None = None
        self._copying_s = 0.0

    def load(self) -> dict[str, Any] | None:
        """Return the newest intact state, or None."""
        self.settle()
        state, away = None, None
        try:
            state = self.store.load(self.key)
        except StoreAwayError as error:
            away = error
        if state is None:
            self._on_missing(away)
        return state

    def is_due(self) -> bool:
        """Tell whether saving now keeps to its share of the time; call it after every epoch.

        Raises:
            StorageError: the save before has failed.
        """
        if self._write is not None and not self._write.thread.is_alive():
            self.wait()
        if self._last_s is None and self._write is None:
            return True
        now = time.perf_counter()
        expected_s = self._last_s or 0.0
        if self._write is not None:  # it would have to be waited for, likely as long again
            expected_s += now - self._write.began
        return self._spent_s + expected_s <= SAVING_SHARE * (now - self._began)

    def save(self, state: Mapping[str, Any], *, epoch: int, is_last: bool = False) -> None:
        """Copy the state after `epoch` and begin to write it; the last one overtakes one that is on its way."""
        began = time.perf_counter()
        if is_last:
            self.discard()
        else:
            self.wait()
        self._kept = None
        copied = self._copy(state)
        self._last_s = time.perf_counter() - began
        self._spent_s += self._last_s
        self._write = _Write(self, copied, epoch)

    def keep(self, state: Mapping[str, Any], *, epoch: int) -> None:
        """Copy the state after an `epoch` that is not saved, for `save_kept`, if a copy is cheap for such an epoch."""
        self._kept = None
        if self._copying_s <= _KEEPING_SHARE * (time.perf_counter() - self._epoch_began):
            self._kept = self._copy(state), epoch
            self._spent_s += self._copying_s
        else:
            self._epoch_began = time.perf_counter()

    def save_kept(self) -> None:
        """Begin to write what was kept since the last save, if anything was: for a run that is interrupted."""
        if self._kept is not None:
            self.discard()
            self._write, self._kept = _Write(self, *self._kept), None

    def wait(self) -> None:
        """Wait until what was saved last is durable, and try again while `on_wait` returns.

        Raises:
            StorageError: it cannot be written.
        """
        while self._write is not None:
            error = self._write.ended()
            if error is None:
                self._note(self._write)
                return
            copied, epoch, self._write = self._write.copied, self._write.epoch, None
            if not isinstance(error, DiskFullError | StoreAwayError):
                raise error
            self._on_wait(error)
            self._write = _Write(self, copied, epoch)

    def settle(self) -> None:
        """Let a save that is on its way come to its end, and say so if it failed: for a run that ends here."""
        if self._write is not None:
            error = self._write.ended()
            self._note(self._write)
            if error is not None:
                self._on_unsaved(error)

    def discard(self) -> None:
        """Stop a save that is on its way; it leaves nothing, or is whole if it had come to its end."""
        if self._write is not None:
            self._write.cancelled.set()
            self._write.ended()
            self._note(self._write)

    def _copy(self, state: Mapping[str, Any]) -> Snapshot:
        began = time.perf_counter()
        copied = snapshot(state)
        self._epoch_began = time.perf_counter()
        self._copying_s = self._epoch_began - began
        return copied

    def _note(self, write: "_Write") -> None:
        if self._shares_cores and self._last_s is not None:
            self._last_s += write.computed_s
            self._spent_s += write.computed_s
        self._write = None


class _Write:
    """One save on its way, in a thread of its own.

    Attributes:
        began: on the clock of `time.perf_counter`.
        computed_s: processor time that it took.
    """

    def __init__(self, slot: CheckpointSlot, copied: Snapshot, epoch: int) -> None:
        self.copied, self.epoch = copied, epoch
        self.cancelled = threading.Event()
        self.began = time.perf_counter()
        self.computed_s = 0.0
        self._slot = slot
        self._error: Exception | None = None
        self.thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self.thread.start()

    def ended(self) -> Exception | None:
        """Wait for its end, and return why it failed, if it did."""
        self.thread.join()
        return self._error

    def _run(self) -> None:
        slot = self._slot
        try:
            slot.store.save(slot.key, self.copied, epoch=self.epoch, token=slot.token, cancelled=self.cancelled)
            slot.saved_epoch = self.epoch
        except Cancelled:
            pass
        except Exception as error:  # whoever trains raises it
            self._error = error
        self.computed_s = time.thread_time()
