"""The processes of one machine, one per device: started, listened to, started again after a crash, and stopped."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from typing import Any

from mhist_tune.devices import WorkerOptions, n_cores
from mhist_tune.errors import DeviceError, MhistTuneError
from mhist_tune.events import Emit, Interrupted, StopRequest

N_CRASHES = 3
"""So many crashes on one device within `CRASHES_S` seconds end the work on it."""

CRASHES_S = 600.0

_LISTEN_S = 0.2
# One process imports everything, touches no device, and is forked for each worker: they share its memory, and one that
# is started again after a crash is there at once.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["mhist_tune.preload"])


def run_workers(options: WorkerOptions, devices: Sequence[str], emit: Emit, stop: StopRequest) -> None:
    """Serve with one process per entry of `devices`; a single one on the CPU runs in this process.

    Local CPU processes divide the cores among them. Each process has a log file below `logs/` in the storage folder.
    A process that crashes is started again, until its device has seen `N_CRASHES` crashes; the others go on.

    Raises:
        Interrupted: a signal asked to stop; every slot is free.
        MhistTuneError: what ended a worker process.
    """
    n_threads = max(1, n_cores() // len(devices))
    if list(devices) == ["cpu"]:
        from mhist_tune.preload import serve

        serve(options, "cpu", n_threads, emit, stop)
        return
    supervised = [_Supervised(options, device, n_threads) for device in devices]
    for one in supervised:
        one.start()
    try:
        _listen(supervised, emit, stop)
    finally:
        for one in supervised:
            one.process.terminate()
    if stop.signum:
        raise Interrupted(stop.signum)
    for one in supervised:
        if one.error is not None:
            raise one.error


@dataclass(eq=False)
class _Supervised:
    """One device and the process that serves it now.

    Attributes:
        error: what ended the work on this device for good.
        fault: what the process said about its end, None if nothing.
        crashes: when its processes crashed, on the monotonic clock.
    """

    options: WorkerOptions
    device: str
    n_threads: int
    error: MhistTuneError | None = None
    fault: MhistTuneError | None = None
    crashes: list[float] = field(default_factory=list)

    def start(self) -> None:
        self.fault = None
        self.connection, theirs = _SERVER.Pipe(duplex=False)
        self.process: ForkServerProcess = _SERVER.Process(
            target=_child, args=(self.options, self.device, self.n_threads, theirs)
        )
        self.process.start()
        theirs.close()

    def ended(self, emit: Emit, is_stopping: bool) -> bool:
        """Take note of the process's end; return whether another one was started."""
        self.connection.close()
        self.process.join()
        code = self.process.exitcode
        if is_stopping or (self.fault is None and code in (0, 128 + signal.SIGTERM)):
            return False
        if self.fault is not None and not isinstance(self.fault, DeviceError):
            self.error = self.fault
            return False
        reason = str(self.fault) if self.fault else _in_words(code)
        now = time.monotonic()
        self.crashes = [at for at in self.crashes if now - at < CRASHES_S] + [now]
        if len(self.crashes) < N_CRASHES:
            emit("crashed", device=self.device, reason=reason)
            self.start()
            return True
        self.error = MhistTuneError(
            f"the worker on {self.device} crashed {N_CRASHES} times within {CRASHES_S / 60:.0f} minutes, "
            f"the last time because it {reason}"
            if self.fault is None
            else f"{reason}, {N_CRASHES} times",
            hint="its slot is taken over by others; the newest files in the folder logs beside the storage tell more",
        )
        return False


def _in_words(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _listen(supervised: Sequence[_Supervised], emit: Emit, stop: StopRequest) -> None:
    """Hand on the events of the processes until all have ended for good."""
    by_connection = {one.connection: one for one in supervised}
    is_told = False
    while by_connection:
        if stop.signum and not is_told:
            is_told = True
            for one in supervised:
                one.process.terminate()
        for connection in multiprocessing.connection.wait(list(by_connection), timeout=_LISTEN_S):
            assert isinstance(connection, multiprocessing.connection.Connection)
            one = by_connection[connection]
            try:
                event, fields = connection.recv()
            except (EOFError, OSError):  # OSError: killed in the middle of an event
                del by_connection[connection]
                if one.ended(emit, is_stopping=bool(stop.signum)):
                    by_connection[one.connection] = one
                continue
            if event == "failed":
                one.fault = fields["error"]
            else:
                emit(event, **fields)


def _child(
    options: WorkerOptions, device: str, n_threads: int, connection: multiprocessing.connection.Connection
) -> None:
    from mhist_tune.preload import serve  # loaded before the fork

    os.setsid()  # Ctrl-C in a terminal reaches the parent alone, which then asks every child once
    lock = threading.Lock()
    with stop_on_signals() as stop:

        def emit(event: str, /, **fields: Any) -> None:
            with lock:
                try:
                    connection.send((event, fields))
                except BrokenPipeError:  # the parent is gone: end as if it had asked to
                    stop.set(signal.SIGTERM)

        try:
            serve(options, device, n_threads, emit, stop)
        except Interrupted:
            raise SystemExit(128 + stop.signum) from None
        except MhistTuneError as error:
            emit("failed", error=error)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Yield a request that SIGTERM and SIGINT set; a second signal ends the process at once."""
    stop = StopRequest()

    def handle(signum: int, _: object) -> None:
        if stop.signum:
            os._exit(128 + signum)
        stop.set(signum)

    before = {signum: signal.signal(signum, handle) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
