"""``python -m mhist_tune``."""

from mhist_tune.cli import main

main()
