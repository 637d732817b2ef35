"""The checkpoints of one run, as `fit` uses them: copied by the thread that trains, written by another thread.

Training waits for the copy only, but on a CPU both threads use the same cores. Saving takes at most `SAVING_SHARE` of
the run's time. After a kill, the epochs since the last save are trained again. A run that is asked to stop writes the
copy of its last epoch, if there is one: no copy is made where it would take too much of an epoch.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from mhist_tune.errors import DiskFullError, StorageError, StoreUnreachableError
from mhist_tune.training.checkpoints.store import Cancelled, CheckpointStore, Snapshot, snapshot

SAVING_SHARE = 0.02
"""The share of the training time that saving may take. The first save is exempt: it measures what a save takes."""

_KEEPING_SHARE = 0.005
"""The share of an epoch that its copy may take; a shorter epoch is cheaper to train again than to copy each time."""


def _give_up(error: StorageError) -> None:
    raise error


def _ignore(*_: object) -> None:
    pass


class CheckpointWriter:
    """Writes and loads the checkpoints of one run under one lease. One save is under way at a time.

    Args:
        store: where the checkpoints are.
        key: of the run.
        token: of the lease.
        shares_cores: whether the run trains on the CPU; the processor time of the writing thread then counts as saving.
        on_wait: called when the disk is full or the store is unreachable. It returns when it is time to try again,
            or raises to give up.
        on_missing: called if the store has no intact state of the run, with the error if the store is
            unreachable. It may raise, so that the run does not start from the beginning.
        on_unsaved: called with the error if the last save of a run fails that has ended anyway.

    Attributes:
        saved_epoch: the epoch of the newest durable state that was written under this lease; None before the first.
    """

    def __init__(
        self,
        store: CheckpointStore,
        key: str,
        token: int,
        *,
        shares_cores: bool = True,
        on_wait: Callable[[StorageError], None] = _give_up,
        on_missing: Callable[[StoreUnreachableError | None], None] = _ignore,
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
        self.finish()
        state, unreachable = None, None
        try:
            state = self.store.load(self.key)
        except StoreUnreachableError as error:
            unreachable = error
        if state is None:
            self._on_missing(unreachable)
        return state

    def is_due(self) -> bool:
        """Return whether a save now would keep to its share of the time; to be called after every epoch.

        Raises:
            StorageError: the previous save has failed.
        """
        if self._write is not None and not self._write.thread.is_alive():
            self.wait()
        if self._last_s is None and self._write is None:
            return True
        now = time.perf_counter()
        expected_s = self._last_s or 0.0
        if self._write is not None:  # training would wait for it, about as long again
            expected_s += now - self._write.began
        return self._spent_s + expected_s <= SAVING_SHARE * (now - self._began)

    def save(self, state: Mapping[str, Any], *, epoch: int, is_last: bool = False) -> None:
        """Copy the state after `epoch` and begin to write it; the last one cancels a save under way, others wait."""
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
        """Copy the state after an `epoch` that is not saved, for `save_kept`, if a copy is cheap beside the epoch."""
        self._kept = None
        if self._copying_s <= _KEEPING_SHARE * (time.perf_counter() - self._epoch_began):
            self._kept = self._copy(state), epoch
            self._spent_s += self._copying_s
        else:
            self._epoch_began = time.perf_counter()

    def save_kept(self) -> None:
        """Begin to write the copy that was kept since the last save, if there is one: for an interrupted run."""
        if self._kept is not None:
            self.discard()
            self._write, self._kept = _Write(self, *self._kept), None

    def wait(self) -> None:
        """Wait until the last save is durable; try again as long as `on_wait` returns.

        Raises:
            StorageError: the state cannot be written.
        """
        while self._write is not None:
            error = self._write.ended()
            if error is None:
                self._note(self._write)
                return
            copied, epoch, self._write = self._write.copied, self._write.epoch, None
            if not isinstance(error, DiskFullError | StoreUnreachableError):
                raise error
            self._on_wait(error)
            self._write = _Write(self, copied, epoch)

    def finish(self) -> None:
        """Wait for a save under way, and call `on_unsaved` if it failed: for a run that ends here."""
        if self._write is not None:
            error = self._write.ended()
            self._note(self._write)
            if error is not None:
                self._on_unsaved(error)

    def discard(self) -> None:
        """Cancel a save under way. It leaves nothing, or a whole file if it had ended already."""
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
    """One save under way, in a thread of its own.

    Attributes:
        began: on the clock of `time.perf_counter`.
        computed_s: processor time of the thread.
    """

    def __init__(self, writer: CheckpointWriter, copied: Snapshot, epoch: int) -> None:
        self.copied, self.epoch = copied, epoch
        self.cancelled = threading.Event()
        self.began = time.perf_counter()
        self.computed_s = 0.0
        self._writer = writer
        self._error: Exception | None = None
        self.thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self.thread.start()

    def ended(self) -> Exception | None:
        """Wait for the end, and return the error if the save failed."""
        self.thread.join()
        return self._error

    def _run(self) -> None:
        writer = self._writer
        try:
            writer.store.save(writer.key, self.copied, epoch=self.epoch, token=writer.token, cancelled=self.cancelled)
            writer.saved_epoch = self.epoch
        except Cancelled:
            pass
        except Exception as error:  # the thread that trains raises it
            self._error = error
        self.computed_s = time.thread_time()
