"""The process that workers are forked from."""

import subprocess
import sys


def test_what_is_loaded_is_never_collected() -> None:
    """A worker's modules are frozen, and its own objects are collected."""
    code = "import gc, mhist_tune.worker.preload\nprint(gc.isenabled(), gc.get_freeze_count() > len(gc.get_objects()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "True True\n"
