"""The worker processes of one machine: start, events, restart after a crash, stop."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkServerProcess
from typing import Any

from mhist_tune.errors import DeviceError, MhistTuneError, UnexpectedError
from mhist_tune.events import Emit, Interrupted, StopRequest
from mhist_tune.tracebacks import unexpected
from mhist_tune.worker.devices import n_cores
from mhist_tune.worker.options import WorkerOptions

N_CRASHES = 3
"""The number of crashes within `CRASHES_S` seconds after which a device gets no more processes."""

CRASHES_S = 600.0

_LISTEN_S = 0.2
# One process imports everything, uses no device, and is forked for each worker. Workers share its memory, and a restart
# after a crash takes no time.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["mhist_tune.worker.preload"])


def run_workers(options: WorkerOptions, devices: Sequence[str], emit: Emit, stop: StopRequest) -> None:
    """Run one worker process for each entry of `devices`. A single worker on the CPU runs in this process.

    The processes share the cores. Each has a log file below `logs/` in the storage folder. A process that crashes is
    restarted up to `N_CRASHES` - 1 times within `CRASHES_S` seconds, and the others go on. An error that nobody foresaw
    is a crash.

    Raises:
        Interrupted: a signal asked to stop; every slot is free.
        MhistTuneError: the error that ended a worker process.
    """
    n_threads = max(1, n_cores() // len(devices))
    if list(devices) == ["cpu"]:
        from mhist_tune.worker.preload import serve

        serve(options, "cpu", n_threads, emit, stop)
        return
    shares = _shares(options.limits.count, len(devices))
    workers = [
        _Worker(_limited(options, share), device, n_threads)
        for device, share in zip(devices, shares, strict=True)
        if share != 0
    ]
    for worker in workers:
        worker.start()
    try:
        _listen(workers, emit, stop)
    finally:
        for worker in workers:
            worker.process.terminate()
    if stop.signum:
        raise Interrupted(stop.signum)
    for worker in workers:
        if worker.error is not None:
            raise worker.error


def _shares(count: int | None, n_workers: int) -> Sequence[int | None]:
    """Return how many of `count` slots each worker begins."""
    if count is None:
        return [None] * n_workers
    return [(count + index) // n_workers for index in range(n_workers)][::-1]


def _limited(options: WorkerOptions, count: int | None) -> WorkerOptions:
    return replace(options, limits=replace(options.limits, count=count))


@dataclass(eq=False)
class _Worker:
    """One device and its worker process.

    Attributes:
        error: the error that ended the work on this device; None while it goes on.
        fault: the error that the process reported before it ended; None if it reported none.
        crashes: the times of its crashes, in seconds of the monotonic clock.
        n_begun: the number of slots that its processes have begun.
    """

    options: WorkerOptions
    device: str
    n_threads: int
    error: MhistTuneError | None = None
    fault: MhistTuneError | None = None
    crashes: list[float] = field(default_factory=list)
    n_begun: int = 0

    def start(self) -> None:
        self.fault = None
        count = self.options.limits.count
        options = self.options if count is None else _limited(self.options, count - self.n_begun)
        self.connection, child_end = _SERVER.Pipe(duplex=False)
        self.process: ForkServerProcess = _SERVER.Process(
            target=_child, args=(options, self.device, self.n_threads, child_end)
        )
        self.process.start()
        child_end.close()

    def handle_end(self, emit: Emit, is_stopping: bool) -> bool:
        """Handle the end of the process, and return whether another process was started."""
        self.connection.close()
        self.process.join()
        code = self.process.exitcode
        if is_stopping or (self.fault is None and code in (0, 128 + signal.SIGTERM)):
            return False
        if self.fault is not None and not isinstance(self.fault, DeviceError | UnexpectedError):
            self.error = self.fault
            return False
        reason = str(self.fault) if self.fault else _exit_in_words(code)
        hint = self.fault.hint if isinstance(self.fault, UnexpectedError) else None  # names the traceback
        now = time.monotonic()
        self.crashes = [crash for crash in self.crashes if now - crash < CRASHES_S] + [now]
        if len(self.crashes) < N_CRASHES:
            emit("crashed", device=self.device, reason=reason, hint=hint)
            self.start()
            return True
        self.error = MhistTuneError(
            f"the worker on {self.device} crashed {N_CRASHES} times within {CRASHES_S / 60:.0f} minutes, "
            f"the last time because it {reason}"
            if self.fault is None
            else f"{reason}, {N_CRASHES} times",
            hint=hint or "other workers take over its slot; see the newest files in the folder logs beside the storage",
        )
        return False


def _exit_in_words(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _listen(workers: Sequence[_Worker], emit: Emit, stop: StopRequest) -> None:
    """Pass on the events of the processes until all have ended."""
    by_connection = {worker.connection: worker for worker in workers}
    is_stop_sent = False
    while by_connection:
        if stop.signum and not is_stop_sent:
            is_stop_sent = True
            for worker in workers:
                worker.process.terminate()
        for connection in multiprocessing.connection.wait(list(by_connection), timeout=_LISTEN_S):
            assert isinstance(connection, multiprocessing.connection.Connection)
            worker = by_connection[connection]
            try:
                event, fields = connection.recv()
            except (EOFError, OSError):  # OSError: the process was killed while it sent an event
                del by_connection[connection]
                if worker.handle_end(emit, is_stopping=bool(stop.signum)):
                    by_connection[worker.connection] = worker
                continue
            if event == "failed":
                worker.fault = fields["error"]
            else:
                worker.n_begun += event == "trial"
                emit(event, **fields)


def _child(
    options: WorkerOptions, device: str, n_threads: int, connection: multiprocessing.connection.Connection
) -> None:
    os.setsid()  # Ctrl-C then reaches only the parent, which terminates each child
    lock = threading.Lock()
    with stop_on_signals(at_once=None) as stop:

        def emit(event: str, /, **fields: Any) -> None:
            with lock:
                try:
                    connection.send((event, fields))
                except BrokenPipeError:  # the parent has ended
                    stop.set(signal.SIGTERM)

        try:
            from mhist_tune.worker.preload import serve  # loaded before the fork

            serve(options, device, n_threads, emit, stop)
        except Interrupted:
            raise SystemExit(128 + stop.signum) from None
        except MhistTuneError as error:
            emit("failed", error=error)
        except Exception as error:
            emit("failed", error=unexpected(error))


@contextlib.contextmanager
def stop_on_signals(*, at_once: signal.Signals | None = signal.SIGINT) -> Iterator[StopRequest]:
    """Yield a request that SIGTERM, SIGINT and SIGHUP set.

    SIGHUP says that the terminal is gone. It stays ignored where it is, as under nohup.

    Args:
        at_once: the signal that ends the process at once if it comes after a request. Every other one is then ignored,
            because a cluster's engine signals each process of a job, and parents pass the signal on to their children.
            None ignores all: a device process frees its slot, and only SIGKILL cuts that short.
    """
    stop = StopRequest()

    def handle(signum: int, _: object) -> None:
        if not stop.signum:
            stop.set(signum)
        elif signum == at_once:
            os._exit(128 + signum)

    signals = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    before = {signum: signal.signal(signum, handle) for signum in signals}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
