"""Which errors of a database pass by themselves, which are for the user, and which (the rest) are ours."""

import sqlite3

from sqlalchemy.exc import DatabaseError, DBAPIError, IntegrityError, InterfaceError, OperationalError

_SQLITE_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_CONTENTION = ("40001", "40P01", "55P03", "57014")  # serialization, deadlock, lock time-out, statement time-out
_SQLSTATE_FULL = "53100"
_AWAY = ("08", "53", "57", "25P03")  # connection, resources, operator intervention, idle in a transaction


def is_contention(error: DBAPIError) -> bool:
    """Tell whether others are in the way, who will be gone; includes losing the race to make a table."""
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        is_race = isinstance(error, IntegrityError) or "already exists" in str(error.orig)
        return code in _SQLITE_BUSY or is_race
    return getattr(error.orig, "sqlstate", None) in _CONTENTION


def is_transient(error: DBAPIError) -> bool:
    """Tell whether the same statement may work later: contention, or the database is away for a while."""
    if error.connection_invalidated:  # the connection is gone, whatever the driver says of it
        return True
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _SQLITE_BUSY
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # psycopg: the connection was refused, or was lost without a word from the server
        return isinstance(error, (OperationalError, InterfaceError))
    return state in _CONTENTION or state.startswith(_AWAY)


def is_full(error: DBAPIError) -> bool:
    """Tell whether the database's disk has no space left; somebody may make some."""
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return getattr(error.orig, "sqlstate", None) == _SQLSTATE_FULL


def is_refusal(error: DBAPIError) -> bool:
    """Tell whether the database cannot do what is asked, as with a missing right or a damaged file."""
    # SQLite raises the bare class for a damaged file; its subclasses are mostly mistakes in a statement
    return isinstance(error, (OperationalError, InterfaceError)) or type(error) is DatabaseError
