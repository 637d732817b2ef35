"""A real command that is killed at one place, in a process of its own."""

import importlib
import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["mhist_tune.worker.loop"])  # torch is imported once for all of them


def run_killed(place: str, n: int, arguments: Sequence[str], prepare: Callable[[], None] | None = None) -> int | None:
    """Run mhist-tune with SIGKILL in place of the Nth call of MODULE:NAME, and return the exit code.

    `prepare` is called in the new process before; it is a function of a module. With n = 0 nothing is killed.
    """
    process = _SERVER.Process(target=_run, args=(place, n, list(arguments), Path.cwd(), prepare))
    process.start()
    process.join()
    return process.exitcode


def _run(place: str, n: int, arguments: list[str], folder: Path, prepare: Callable[[], None] | None) -> None:
    from mhist_tune.cli import main

    os.chdir(folder)
    if prepare is not None:
        prepare()
    _kill_in(place, n)
    main(arguments)


def _kill_in(place: str, n: int) -> None:
    module_name, _, path = place.partition(":")
    *owners, name = path.split(".")
    holder: Any = importlib.import_module(module_name)
    for owner in owners:
        holder = getattr(holder, owner)
    original, calls = getattr(holder, name), itertools.count(1)

    def instead(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(holder, name, instead)
