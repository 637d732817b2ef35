"""A real command that is killed at one place: `python killed_worker.py MODULE:NAME N ARGUMENTS...`.

The function of that name is replaced by one that sends SIGKILL to its own process when it is called for the Nth time;
the arguments are mhist-tune's.
"""

import importlib
import itertools
import os
import signal
import sys
from typing import Any

from mhist_tune.cli import main


def kill_in(place: str, n: int) -> None:
    """Let the Nth call of a function or method be the end of this process."""
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


if __name__ == "__main__":
    kill_in(sys.argv[1], int(sys.argv[2]))
    main(sys.argv[3:])
