"""The real command with three seconds instead of ten minutes for a database that is unreachable."""

import sys

from mhist_tune.cli import main
from mhist_tune.storage.retries import Waiting

if __name__ == "__main__":
    Waiting.__init__.__kwdefaults__["retry_s"] = 3.0
    main(sys.argv[1:])
