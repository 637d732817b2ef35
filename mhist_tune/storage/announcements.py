"""Announces new work and listens for it: NOTIFY and LISTEN of PostgreSQL.

SQLite has neither, and no connection behind a pooler can listen, since the next transaction may get another one. Idle
workers then ask at intervals. With announcements they ask too, only less often is needed: a lost announcement costs
time and nothing else.
"""

import contextlib
import time

import sqlalchemy
from sqlalchemy import Connection

from mhist_tune.events import StopRequest
from mhist_tune.storage import database_url
from mhist_tune.storage.database import Storage

_CHANNEL = "mhist_tune_work"
_LISTENS = "mhist-tune: listens"
_STOP_S = 0.25  # a stop is noticed after this time


def announce(connection: Connection, study_uuid: str) -> None:
    """Wake idle workers once the transaction is committed: a slot of the study is free, or its state has changed."""
    if connection.dialect.name == "postgresql":
        connection.execute(sqlalchemy.select(sqlalchemy.func.pg_notify(_CHANNEL, study_uuid)))


class Listener:
    """Waits for announcements, on the connection that the pool keeps.

    Args:
        storage: the database.
        stop: a request to stop ends a wait.
    """

    def __init__(self, storage: Storage, stop: StopRequest) -> None:
        self._storage, self._stop = storage, stop

    def wait(self, timeout_s: float, study_uuid: str | None) -> bool:
        """Wait for an announcement of a study, or of any if it is None. Return False after `timeout_s` seconds without.

        A connection that did not listen before returns True at once: work may have appeared meanwhile.

        Raises:
            Interrupted: a stop was requested.
        """
        deadline = time.monotonic() + timeout_s
        if self._storage.dialect == "postgresql":
            with contextlib.suppress(self._storage.engine.dialect.loaded_dbapi.Error, sqlalchemy.exc.DBAPIError):
                heard = self._listen(deadline, study_uuid)
                if heard is not None:
                    return heard
        self._stop.wait(max(0.0, deadline - time.monotonic()))  # also while the server is unreachable
        return False

    def end(self) -> None:
        """Listen no longer, so that announcements do not disturb a worker that trains."""
        if self._storage.dialect != "postgresql":
            return
        with contextlib.suppress(sqlalchemy.exc.DBAPIError), self._storage.engine.connect() as connection:
            if connection.info.pop(_LISTENS, False):
                connection.exec_driver_sql(f"UNLISTEN {_CHANNEL}")
                connection.commit()

    def _listen(self, deadline: float, study_uuid: str | None) -> bool | None:
        """Return what `wait` does; None if the connection cannot listen."""
        with self._storage.engine.connect() as connection:
            if database_url.is_pooled(connection):
                return None
            if not connection.info.get(_LISTENS):
                connection.exec_driver_sql(f"LISTEN {_CHANNEL}")
                connection.commit()
                connection.info[_LISTENS] = True
                return True
            driver = connection.connection.driver_connection
            assert driver is not None
            try:
                while (left_s := deadline - time.monotonic()) > 0:
                    self._stop.check()
                    notes = list(driver.notifies(timeout=min(left_s, _STOP_S), stop_after=1))
                    if any(study_uuid in (None, note.payload) for note in notes):
                        return True
            except self._storage.engine.dialect.loaded_dbapi.Error:
                connection.invalidate()
                raise
        return False
