"""Delays after wrong passwords, for each address and for all together, which grow with every further one."""

import ipaddress
import time
from dataclasses import dataclass, field

_N_FREE, _N_FREE_OVERALL = 10, 100
_FIRST_S, _LONGEST_S = 60.0, 3600.0
_FIRST_OVERALL_S, _LONGEST_OVERALL_S = 1.0, 60.0
_FORGET_S = 24 * 3600.0
_N_KEPT = 10_000


@dataclass
class _Failures:
    """Wrong passwords, and the end of the delay that the last one brought, on the monotonic clock."""

    n: int = 0
    last: float = 0.0
    until: float = 0.0

    def add(self, now: float, *, n_free: int, first_s: float, longest_s: float) -> None:
        self.n, self.last = self.n + 1, now
        if self.n >= n_free:
            self.until = now + min(first_s * 2.0 ** min(self.n - n_free, 30), longest_s)


@dataclass
class Attempts:
    """Wrong passwords of the last day, by address.

    Ten from an address make it wait a minute, and each further one twice as long, up to an hour. A hundred from all
    addresses make all wait a second, and each further one twice as long, up to a minute. The wait of all does not hold
    for an address from which the right password has come. Not thread-safe: `Access` has the lock.
    """

    _by_address: dict[str, _Failures] = field(default_factory=dict)
    _overall: _Failures = field(default_factory=_Failures)
    _known: dict[str, None] = field(default_factory=dict)

    def wait_s(self, address: str) -> float:
        """Return how many seconds an address must wait before its next password is looked at."""
        now, key = time.monotonic(), _key(address)
        own = self._by_address.get(key, _Failures())
        return max(0.0, own.until - now, 0.0 if key in self._known else self._overall.until - now)

    def fail(self, address: str) -> None:
        """Count a wrong password."""
        now, key = time.monotonic(), _key(address)
        if now - self._overall.last > _LONGEST_S:
            self._overall = _Failures()
        self._overall.add(now, n_free=_N_FREE_OVERALL, first_s=_FIRST_OVERALL_S, longest_s=_LONGEST_OVERALL_S)
        own = self._by_address.pop(key, _Failures())  # the dictionary is in the order of the last failures
        own.add(now, n_free=_N_FREE, first_s=_FIRST_S, longest_s=_LONGEST_S)
        self._by_address[key] = own
        for old in list(self._by_address):
            if len(self._by_address) <= _N_KEPT and now - self._by_address[old].last <= _FORGET_S:
                break
            del self._by_address[old]

    def succeed(self, address: str) -> None:
        """Forget the failures of an address, and remember that it knows the password."""
        key = _key(address)
        self._by_address.pop(key, None)
        self._known.pop(key, None)
        self._known[key] = None
        if len(self._known) > _N_KEPT:
            del self._known[next(iter(self._known))]


def _key(address: str) -> str:
    """Return the address, or the /64 network of an IPv6 address: one client has all of its addresses."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
