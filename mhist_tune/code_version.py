"""The version of the code that runs: the release, and a hash of the package's source files."""

import functools
import hashlib
from pathlib import Path

from mhist_tune import __version__

_N_DIGITS = 12


@functools.cache
def code_version() -> str:
    """Return the release and the first digits of the SHA-256 of all source files, such as `0.1.0+3f29c1d07a55`.

    Two checkouts of one release differ in the hash if a source file of the package differs.
    """
    package = Path(__file__).parent
    whole = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.relative_to(package).as_posix()} {content}\n".encode())
    return f"{__version__}+{whole.hexdigest()[:_N_DIGITS]}"
