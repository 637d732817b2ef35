"""The real command with three seconds instead of ten minutes for a database that is away."""

import sys

from mhist_tune.cli import main
from mhist_tune.storage import Storage

if __name__ == "__main__":
    for operation in (Storage.transaction, Storage.read, Storage.retrying):
        operation.__kwdefaults__["retry_s"] = 3.0
    main(sys.argv[1:])
