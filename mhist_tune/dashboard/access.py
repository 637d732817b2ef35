"""Who may read and write: one password for all users, and the sessions, in the memory of this process."""

import hmac
import secrets
import threading
import time
from dataclasses import dataclass, field

from mhist_tune.dashboard.attempts import Attempts

COOKIE = "mhist_tune_session"
_SESSION_S = 12 * 3600


class TooManyFailuresError(Exception):
    """Too many wrong passwords have been sent.

    Attributes:
        wait_s: the seconds until the next password is looked at.
    """

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


@dataclass(frozen=True)
class User:
    """The sender of a request.

    Attributes:
        is_known: whether the user has logged in.
        may_write: whether the user may change studies.
    """

    is_known: bool = False
    may_write: bool = False


@dataclass
class Access:
    """The password, if there is one, and the open sessions.

    Without a password everybody may read and nobody may write. `serve` allows that on loopback addresses only.

    Attributes:
        password: the password, never shown; None for none.
        is_read_only: whether every write is refused, also after a login.
    """

    password: str | None = field(default=None, repr=False)
    is_read_only: bool = False
    _sessions: dict[str, float] = field(
        default_factory=dict, repr=False
    )  # the end of each token on the monotonic clock
    _attempts: Attempts = field(default_factory=Attempts, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def is_guarded(self) -> bool:
        """Whether users must log in."""
        return self.password is not None

    def user(self, token: str | None) -> User:
        """Return the user of a session token."""
        is_known = self.knows(token)
        return User(is_known, may_write=self.is_guarded and not self.is_read_only and is_known)

    def knows(self, token: str | None) -> bool:
        """Return whether a session token is valid."""
        with self._lock:
            ends = self._sessions.get(token or "")
            return ends is not None and time.monotonic() < ends

    def log_in(self, guess: str, address: str) -> str | None:
        """Return a new session token for the right password, None for a wrong one. Compare in constant time.

        Raises:
            TooManyFailuresError: the address must wait. The guess was not looked at.
        """
        is_right = self.password is not None and hmac.compare_digest(guess.encode(), self.password.encode())
        now = time.monotonic()
        with self._lock:
            wait_s = self._attempts.wait_s(address)
            if wait_s > 0:
                raise TooManyFailuresError(wait_s)
            if not is_right:
                self._attempts.fail(address)
                return None
            self._attempts.succeed(address)
            self._sessions = {token: ends for token, ends in self._sessions.items() if ends > now}
            token = secrets.token_urlsafe(32)
            self._sessions[token] = now + _SESSION_S
            return token

    def log_out(self, token: str | None) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(token or "", None)
