"""Delays after wrong passwords."""

import pytest

from mhist_tune.dashboard import attempts
from mhist_tune.dashboard.access import Access, TooManyFailuresError
from mhist_tune.dashboard.attempts import Attempts
from tests.support.web import PASSWORD

HOUR = 3600.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock of the delays; a test moves it."""
    now = [1000.0]
    monkeypatch.setattr(attempts.time, "monotonic", lambda: now[0])
    return now


def wait_s(access: Access, address: str, password: str = "wrong") -> float:
    """Send a password and return the seconds to wait, 0 if it was looked at."""
    try:
        access.log_in(password, address)
    except TooManyFailuresError as error:
        return error.wait_s
    return 0.0


def test_the_delay_of_an_address_grows(clock: list[float]) -> None:
    """Ten failures bring a minute, each further one twice as long, up to an hour; the right password ends it."""
    access = Access(PASSWORD)
    assert [wait_s(access, "192.0.2.1") for _ in range(10)] == [0.0] * 10
    delays = []
    for _ in range(9):
        delays.append(wait_s(access, "192.0.2.1", PASSWORD))
        clock[0] += delays[-1]
        assert wait_s(access, "192.0.2.1") == 0.0
    assert delays == [60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, HOUR, HOUR, HOUR]
    assert wait_s(access, "192.0.2.2") == 0.0

    clock[0] += HOUR
    assert access.log_in(PASSWORD, "192.0.2.1") is not None
    assert [wait_s(access, "192.0.2.1") for _ in range(10)] == [0.0] * 10


def test_many_addresses_together_wait(clock: list[float]) -> None:
    """A hundred failures from as many addresses delay all but those that know the password, for a minute at most."""
    access = Access(PASSWORD)
    assert access.log_in(PASSWORD, "198.51.100.1") is not None
    assert [wait_s(access, f"192.0.2.{number}") for number in range(100)] == [0.0] * 100
    assert wait_s(access, "203.0.113.1", PASSWORD) == 1.0
    for number in range(10):
        clock[0] += wait_s(access, "203.0.113.1", PASSWORD)
        assert wait_s(access, f"203.0.113.{number + 2}") == 0.0
    assert wait_s(access, "203.0.113.1", PASSWORD) == 60.0
    assert access.log_in(PASSWORD, "198.51.100.1") is not None
    clock[0] += 2 * HOUR
    assert [wait_s(access, f"192.0.2.{number}") for number in range(100, 150)] == [0.0] * 50


def test_the_addresses_of_one_client_are_one(clock: list[float]) -> None:
    """The /64 network of an IPv6 address counts as one address, and so does an IPv4 address written in IPv6."""
    access = Access(PASSWORD)
    assert [wait_s(access, f"2001:db8::{number}") for number in range(10)] == [0.0] * 10
    assert wait_s(access, "2001:db8::ffff") == 60.0
    assert wait_s(access, "2001:db8:0:1::1") == 0.0
    assert [wait_s(access, "192.0.2.1") for _ in range(10)] == [0.0] * 10
    assert wait_s(access, "::ffff:192.0.2.1") == 60.0


def test_old_failures_are_dropped(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures of a day ago are forgotten, and no more than a fixed number of addresses is kept."""
    monkeypatch.setattr(attempts, "_N_KEPT", 20)
    kept = Attempts()
    for number in range(50):
        kept.fail(f"192.0.2.{number}")
        kept.succeed(f"198.51.100.{number}")
    assert list(kept._by_address) == [f"192.0.2.{number}" for number in range(30, 50)]
    assert len(kept._known) == 20
    clock[0] += 25 * HOUR
    kept.fail("203.0.113.1")
    assert list(kept._by_address) == ["203.0.113.1"]
