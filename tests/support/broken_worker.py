"""The real command, in which an error that nobody foresaw ends every training."""

import sys

from mhist_tune.cli import main
from mhist_tune.worker import loop


def fail(*_: object) -> None:
    """Raise such an error, with a password in its text."""
    raise KeyError("postgresql://u:SECRET@h/d")


# The process that forks the workers imports this module too, as multiprocessing does for their main module.
loop.run_slot = fail

if __name__ == "__main__":
    main(sys.argv[1:])
