"""How an idle worker waits: it asks ever less often, and an announcement of new work wakes it.

The times are random, so that a thousand idle workers do not ask at the same moment.
"""

import random
import time

from mhist_tune.events import StopRequest
from mhist_tune.storage.announcements import Listener
from mhist_tune.storage.database import Storage

_FIRST_S, _GROWTH = 1.0, 1.5
_LONGEST_S = {"postgresql": 20.0, "sqlite": 5.0}
_PER_LEASE, _PER_LATE_LEASE = 3, 12  # a takeover needs several observations in the length of a lease
_FIRST_REACTION_S, _LONGEST_REACTION_S = 0.25, 4.0


class Idle:
    """The waits of a worker from its last slot to its next.

    Args:
        storage: the database of the slots.
        stop: the request to stop.
        max_idle_s: the time after which `is_over`; None for never.
    """

    def __init__(self, storage: Storage, stop: StopRequest, max_idle_s: float | None) -> None:
        self._dialect, self._stop, self._max_idle_s = storage.dialect, stop, max_idle_s
        self._listener = Listener(storage, stop)
        self._random = random.Random()  # training owns the global generator
        self._since = time.monotonic()
        self._n_waits = 0
        self._reaction_s = _FIRST_REACTION_S

    @property
    def is_over(self) -> bool:
        """Whether the worker has been idle for its longest time."""
        return self._max_idle_s is not None and time.monotonic() - self._since >= self._max_idle_s

    def wait(self, study_uuid: str | None, lease_s: float | None, *, is_any_late: bool) -> None:
        """Wait until it is worth asking again.

        Args:
            study_uuid: the only study that the worker serves; None for all.
            lease_s: the length of the shortest lease that others hold; None if they hold none.
            is_any_late: whether a lease was not renewed in time.

        Raises:
            Interrupted: a stop was requested.
        """
        delay_s = min(_LONGEST_S[self._dialect], _FIRST_S * _GROWTH**self._n_waits)
        if lease_s is not None:
            delay_s = min(delay_s, lease_s / (_PER_LATE_LEASE if is_any_late else _PER_LEASE))
        delay_s *= self._random.uniform(0.5, 1.0)
        if self._max_idle_s is not None:
            delay_s = min(delay_s, max(0.0, self._since + self._max_idle_s - time.monotonic()))
        if not self._listener.wait(delay_s, study_uuid):
            self._n_waits = min(self._n_waits + 1, 20)
            self._reaction_s = _FIRST_REACTION_S
            return
        # Other idle workers hear it too. One that hears often, and always comes too late, takes its time.
        self._stop.wait(self._random.uniform(0.0, self._reaction_s))
        self._reaction_s = min(2 * self._reaction_s, _LONGEST_REACTION_S)

    def end(self) -> None:
        """End the waits: the worker has a slot."""
        self._listener.end()
