"""optuna-dashboard's page and script, changed so that they work under a base path.

Version 0.21 has absolute paths in them. `PAGE` and `BUNDLE` list each with its number of occurrences. Another number
means another version, whose paths must be looked at.
"""

import functools
import gzip
from pathlib import Path

import optuna_dashboard

from mhist_tune.errors import UsageError

_FOLDER = Path(optuna_dashboard.__file__).parent
BUNDLE_PATH = "/static/bundle.js"
PAGE = (('src="/static/', 1, 'src="{base}/static/'),)
BUNDLE = (
    ('url_prefix:"/dashboard"', 1, 'url_prefix:"{base}/dashboard"'),
    ('(null!=e?e:"")}}handleResponse', 1, '(null!=e?e:"{base}")}}handleResponse'),
    ("`/artifacts/${{", 2, "`{base}/artifacts/${{"),
    ("](/artifacts/", 1, "]({base}/artifacts/"),
    ("`/csv/${{", 2, "`{base}/csv/${{"),
)
"""Text, number of occurrences, and replacement."""


@functools.cache
def page(base_path: str) -> bytes:
    """Return the page of all views."""
    return _based("index.html", PAGE, base_path)


@functools.cache
def bundle(base_path: str) -> bytes:
    """Return the script, compressed with gzip.

    Raises:
        UsageError: the installed version has other paths.
    """
    return gzip.compress(_based("public/bundle.js", BUNDLE, base_path), 6, mtime=0)


def _based(name: str, replacements: tuple[tuple[str, int, str], ...], base_path: str) -> bytes:
    text = (_FOLDER / name).read_text("utf-8")
    for old, n, new in replacements:
        plain = old.format()
        if text.count(plain) != n:
            raise UsageError(
                f"optuna-dashboard {optuna_dashboard.__version__} cannot be served under a base path",
                hint='pip install "optuna-dashboard==0.21.0", or leave --base-path out',
            )
        text = text.replace(plain, new.format(base=base_path))
    return text.encode()
