"""Sorts database errors: worth another try, disk full, refused. Every other error is a defect of this program."""

import sqlite3

from sqlalchemy.exc import DatabaseError, DBAPIError, IntegrityError, InterfaceError, OperationalError

_SQLITE_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_CONTENTION = ("40001", "40P01", "55P03", "57014")  # serialization, deadlock, lock time-out, statement time-out
_SQLSTATE_FULL = "53100"
_SQLSTATE_NO_CONNECTION = "53300"
_NO_CONNECTION = (
    "too many",
    "remaining connection slots",
    "no more connections allowed",
)  # of the server, of PgBouncer
_SQLSTATE_READ_ONLY = "25006"
_SQLSTATE_NO_RIGHT = "42501"
_SQLSTATE_NO_SCHEMA = "3F000"
_REFUSED = (_SQLSTATE_NO_RIGHT, _SQLSTATE_READ_ONLY, _SQLSTATE_NO_SCHEMA)
_NO_SUCH_NAME = ("42703", "42P01")  # column, table
_NO_LOGIN = (  # of psycopg, which knows no state while a connection is made
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "no password supplied",
    "not permitted to log in",
)
_UNREACHABLE = ("08", "53", "57", "25P03")  # connection, resources, operator intervention, idle in a transaction


def is_contention(error: DBAPIError) -> bool:
    """Return whether another transaction blocks this one for a moment, or has just created the same table."""
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        is_race = isinstance(error, IntegrityError) or "already exists" in str(error.orig)
        return code in _SQLITE_BUSY or is_race
    return getattr(error.orig, "sqlstate", None) in _CONTENTION


def is_transient(error: DBAPIError) -> bool:
    """Return whether the same statement may work later: after contention, or while the database is unreachable."""
    if error.connection_invalidated:  # a lost connection; drivers raise various errors for it
        return True
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _SQLITE_BUSY
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # psycopg: the server refused the connection, or it broke without a message
        return isinstance(error, (OperationalError, InterfaceError))
    return state in _CONTENTION or state.startswith(_UNREACHABLE)


def is_unreachable(error: DBAPIError) -> bool:
    """Return whether the server does not answer, is starting or is shutting down; it may answer later."""
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        is_refused = any(words in str(error.orig) for words in _NO_LOGIN)
        return isinstance(error, (OperationalError, InterfaceError)) and not is_refused
    return str(state).startswith(("08", "57P"))


def is_full(error: DBAPIError) -> bool:
    """Return whether the database's disk is full."""
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return getattr(error.orig, "sqlstate", None) == _SQLSTATE_FULL


def has_no_connection_left(error: DBAPIError) -> bool:
    """Return whether the server has as many connections as it accepts."""
    if isinstance(error.orig, sqlite3.Error):
        return False
    state = getattr(error.orig, "sqlstate", None)  # None while a connection is made
    return state == _SQLSTATE_NO_CONNECTION or (
        state in (None, "08P01") and any(words in str(error.orig) for words in _NO_CONNECTION)
    )


def is_read_only(error: DBAPIError) -> bool:
    """Return whether a server accepts no writes: a standby, or a primary in the midst of a failover."""
    return getattr(error.orig, "sqlstate", None) == _SQLSTATE_READ_ONLY


def is_blocked(error: DBAPIError) -> bool:
    """Return whether somebody must make room on the server or let it write; a worker can wait for that."""
    return is_full(error) or has_no_connection_left(error) or is_read_only(error)


def lacks_right(error: DBAPIError) -> bool:
    """Return whether the user may not do this in a PostgreSQL database."""
    return getattr(error.orig, "sqlstate", None) == _SQLSTATE_NO_RIGHT


def has_no_schema(error: DBAPIError) -> bool:
    """Return whether the connection's `search_path` names no schema that exists."""
    return getattr(error.orig, "sqlstate", None) == _SQLSTATE_NO_SCHEMA


def is_no_such_name(error: DBAPIError) -> bool:
    """Return whether the statement names a column or a table that the database does not have."""
    if isinstance(error.orig, sqlite3.Error):
        return str(error.orig).startswith(("no such column", "no such table"))
    return getattr(error.orig, "sqlstate", None) in _NO_SUCH_NAME


def is_refusal(error: DBAPIError) -> bool:
    """Return whether the user must act, for example because of a missing right or a damaged file."""
    if getattr(error.orig, "sqlstate", None) in _REFUSED:
        return True
    # SQLite raises the base class for a damaged file; most subclasses mean a wrong statement.
    return isinstance(error, (OperationalError, InterfaceError)) or type(error) is DatabaseError
