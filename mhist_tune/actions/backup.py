"""Copies an SQLite storage while workers use it."""

import contextlib
import sqlite3
from pathlib import Path

from mhist_tune.errors import StorageError, UsageError
from mhist_tune.storage.database import Storage
from mhist_tune.writing import replaced

_PAGES = 1000  # between two steps of the copy workers may write


def backup(storage: Storage, path: Path) -> int:
    """Write a copy of the database as it is at one moment, and return its bytes. The copy is a storage of its own.

    Raises:
        StorageError: the file cannot be written, or the database is damaged.
        UsageError: the file exists, or the storage is not SQLite.
    """
    if storage.dialect != "sqlite":
        raise UsageError(
            "only an SQLite storage is a file", hint="copy a PostgreSQL database with pg_dump, while workers use it"
        )
    if path.exists():
        raise UsageError(f"{path} exists", hint="name a new file, such as one with the date")
    source = storage.engine.raw_connection()
    try:
        driver = source.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        with replaced(path, is_private=True) as partial:
            with contextlib.closing(sqlite3.connect(partial)) as target:
                driver.backup(target, pages=_PAGES)
                target.execute("PRAGMA journal_mode = DELETE").close()  # the copy is one file
                [verdict] = target.execute("PRAGMA integrity_check(1)").fetchone()
                if verdict != "ok":
                    raise StorageError(f"the storage {storage.url_safe} is damaged: {verdict}")
            n_bytes = partial.stat().st_size
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", hint="name a file that can be written") from error
    except sqlite3.Error as error:
        raise StorageError(f"cannot copy {storage.url_safe} to {path}: {error}", hint="is there space?") from error
    finally:
        source.close()
    return n_bytes
