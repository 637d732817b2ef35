"""The dashboard's server, with real sockets: slow clients do not hold up others, and each of them has an end."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mhist_tune.dashboard.http_server import Limits, Server
from mhist_tune.storage.database import open_storage

N_SLOW = 24
_FORM = "Content-Type: application/x-www-form-urlencoded\r\n"
SLOW = {
    "header": "GET / HTTP/1.1\r\nX-Slow: a",
    "body": f"POST /login HTTP/1.1\r\nHost: localhost\r\n{_FORM}Content-Length: 1000\r\n\r\np",
    "chunks": f"POST /login HTTP/1.1\r\nHost: localhost\r\n{_FORM}Transfer-Encoding: chunked\r\n\r\n5\r\npa",
    "reader": "GET /static/bundle.js HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: identity\r\n\r\n",
}
"""The beginning of a request, after which the client sends and reads nothing more for a long time."""


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def healthz(port: int) -> float:
    """Return the seconds until `/healthz` has answered."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/healthz", headers={"Host": "localhost"})
    answer = connection.getresponse()
    assert (answer.status, answer.read()[:1]) == (200, b"{")
    connection.close()
    return time.monotonic() - began


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a dashboard in a process of its own."""
    folder = tmp_path_factory.mktemp("served")
    url = f"sqlite:///{folder}/studies.db"
    open_storage(url).close()
    number = free_port()
    environment = {**os.environ, "MHIST_TUNE_STORAGE": url, "MHIST_TUNE_DASHBOARD_PASSWORD": "correct horse"}
    command = [sys.executable, "-m", "mhist_tune", "dashboard", "--port", str(number)]
    with subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    healthz(number)
                    break
                except OSError:
                    assert process.poll() is None
                    assert time.monotonic() < deadline
            yield number
        finally:
            process.kill()


@pytest.mark.parametrize("kind", SLOW)
def test_slow_clients_do_not_hold_up_others(port: int, kind: str) -> None:
    """While many clients have sent a part of a request, or do not read its answer, others are answered in a second."""
    slow = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(N_SLOW)]
    try:
        for client in slow:
            client.sendall(SLOW[kind].encode())
        assert min(healthz(port) for _ in range(3)) < 1
    finally:
        for client in slow:
            client.close()


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with the number of bytes of the body."""
    n_bytes = len(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(n_bytes).encode()] if environ["PATH_INFO"] != "/large" else [bytes(50 * 2**20)]


@pytest.fixture
def served() -> Iterator[Server]:
    """A server in this process, with short limits; only the cookie `known` may send files."""
    listener = socket.create_server(("127.0.0.1", 0))
    limits = Limits(header_s=0.5, body_s=0.5, response_s=0.5, idle_s=0.5, n_connections=4)
    server = Server(application, listener, may_send_files=lambda cookies: cookies == "known", limits=limits)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server
    server.task_dispatcher.shutdown()
    parts = list(server._map.values())
    for part in parts:
        part.del_channel()  # without a channel the loop ends
    server.pull_trigger()
    thread.join(timeout=10)
    for channel in [part for part in parts if part not in (server, server.trigger)]:
        channel.close()  # its client may have kept it open
    server.close()
    assert not thread.is_alive()


def answer_to(port: int, head: str, body: bytes = b"") -> bytes:
    """Send a whole request and return the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(f"{head}\r\nConnection: close\r\n\r\n".encode() + body)
        received = b""
        with contextlib.suppress(ConnectionResetError):  # a refused body was not read to its end
            while part := client.recv(65536):
                received += part
        return received


@pytest.mark.parametrize("kind", ["nothing", "header", "body", "chunks"])
def test_a_byte_now_and_then_keeps_no_connection(served: Server, kind: str) -> None:
    """A client that goes on sending slowly, or sends nothing, is disconnected after the time for the step it is in."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", served.port), timeout=0.1) as client:
        client.sendall(SLOW.get(kind, "").encode())
        end = b"-"
        while end and time.monotonic() - began < 20:
            try:
                if kind != "nothing":
                    client.send(b"a")
                end = client.recv(1)
            except TimeoutError:
                continue
            except OSError:
                break
    assert time.monotonic() - began < 10


def test_a_client_that_reads_nothing_is_disconnected(served: Server) -> None:
    """A response that is not taken in time is given up."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        client.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        received = len(client.recv(1))
        deadline = time.monotonic() + 20
        while served.active_channels:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with contextlib.suppress(ConnectionResetError):
            received += sum(len(part) for part in iter(lambda: client.recv(65536), b""))
    assert received < 50 * 2**20


def test_a_new_client_replaces_the_one_that_waits_longest(served: Server) -> None:
    """More connections than there may be do not keep a further one out."""
    idle = [socket.create_connection(("127.0.0.1", served.port), timeout=10) for _ in range(12)]
    assert answer_to(served.port, "GET / HTTP/1.1").startswith(b"HTTP/1.1 200")
    for client in idle:
        client.close()


@pytest.mark.parametrize("length", ["chunked", "stated"])
def test_a_long_body_is_for_those_who_may_send_files(served: Server, length: str) -> None:
    """64 KiB are read from anybody, 64 MiB from a known sender; more is refused, in chunks too."""

    def ask(n_bytes: int, cookie: str) -> tuple[bytes, bytes]:
        head = f"POST / HTTP/1.1\r\nCookie: {cookie}"
        if length == "stated":
            answer = answer_to(served.port, f"{head}\r\nContent-Length: {n_bytes}", b"a" * n_bytes)
        else:
            body = f"{n_bytes:x}\r\n".encode() + b"a" * n_bytes + b"\r\n0\r\n\r\n"
            answer = answer_to(served.port, f"{head}\r\nTransfer-Encoding: chunked", body)
        return answer[9:12], answer.rpartition(b"\r\n")[2]

    assert ask(65_000, "") == (b"200", b"65000")
    assert ask(200_000, "known") == (b"200", b"200000")
    assert ask(200_000, "")[0] in (b"413", b"")


def test_a_body_that_would_be_too_long_is_refused_at_once(served: Server) -> None:
    """A stated length of more than 64 MiB gets 413 before the body is sent, also for a known sender."""
    head = f"POST / HTTP/1.1\r\nCookie: known\r\nContent-Length: {64 * 2**20 + 1}"
    assert answer_to(served.port, head).startswith(b"HTTP/1.1 413")
