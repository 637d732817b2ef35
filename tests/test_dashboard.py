"""The web UI, asked over HTTP on a free loopback port."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import optuna
import pytest

from mhist_tune.dashboard import app, serve
from mhist_tune.errors import StorageError, UsageError
from mhist_tune.storage import open_storage


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A storage with one study of one trial; shared, since nothing here may change it."""
    url = f"sqlite:///{tmp_path_factory.mktemp('storage')}/studies.db"
    with open_storage(url) as storage:
        study = optuna.create_study(storage=storage.optuna, study_name="shown", direction="maximize")
        study.add_trial(optuna.create_trial(value=0.5))
    return url


@pytest.fixture(scope="module")
def port(url: str) -> Iterator[int]:
    """The port of a server of that storage."""
    with (
        open_storage(url, create=False) as storage,
        make_server("127.0.0.1", 0, app(storage), handler_class=Quiet) as server,
    ):
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def ask(port: int, method: str, path: str, *, host: str | None = None) -> tuple[int, bytes]:
    """Send one request, without an Accept-Encoding header, and return the status and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", host or f"127.0.0.1:{port}")
    connection.endheaders()
    response = connection.getresponse()
    status, body = response.status, response.read()
    connection.close()
    return status, body


@pytest.mark.parametrize("path", ["/dashboard", "/favicon.ico", "/static/bundle.js"])
def test_pages_are_served(port: int, path: str) -> None:
    """The page and its files arrive, also at a client that sends no Accept-Encoding."""
    status, body = ask(port, "GET", path)
    assert (status, len(body) > 0) == (200, True)


def test_studies_are_shown(port: int) -> None:
    """The API lists the study of the storage, and its trial."""
    status, body = ask(port, "GET", "/api/studies")
    assert status == 200
    assert b'"shown"' in body
    status, body = ask(port, "GET", "/api/studies/1")
    assert status == 200
    assert b'"Complete"' in body


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/studies"),
        ("DELETE", "/api/studies/1"),
        ("POST", "/api/studies/1/rename"),
        ("POST", "/api/trials/1/tell"),
        ("PUT", "/api/studies/1/note"),
        ("POST", "/incompatible-rdb-schema"),
        ("PATCH", "/api/studies/1"),
        ("OPTIONS", "/api/studies"),
        ("POST", "/healthz"),
    ],
)
def test_every_change_is_refused(port: int, url: str, method: str, path: str) -> None:
    """What is not GET or HEAD gets 403, and the study is still there."""
    status, body = ask(port, method, path)
    assert status == 403
    assert b"read-only" in body
    with open_storage(url, create=False) as storage:
        assert [study.study_name for study in storage.optuna.get_all_studies()] == ["shown"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[::2]:8080", ":8080"])
@pytest.mark.parametrize("path", ["/api/studies", "/healthz"])
def test_a_foreign_host_is_refused(port: int, host: str, path: str) -> None:
    """A name that is not this machine's gets 421 and no data, against DNS rebinding."""
    status, body = ask(port, "GET", path, host=host)
    assert status == 421
    assert b"shown" not in body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "[::1]:8080"])
def test_names_of_this_machine_are_served(port: int, host: str) -> None:
    """Every way to write the loopback address works, with and without a port."""
    assert ask(port, "GET", "/healthz", host=host)[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_beyond_loopback_needs_permission(url: str, host: str) -> None:
    """An address that others can reach is refused unless the caller allows it."""
    with pytest.raises(UsageError, match="other machines"):
        serve(url, host, 8080)


def test_a_missing_storage_is_one_error(tmp_path: Path) -> None:
    """Without a storage no server starts, and none is made."""
    with pytest.raises(StorageError):
        serve(f"sqlite:///{tmp_path}/none.db", "127.0.0.1", 8080)
    assert not (tmp_path / "none.db").exists()


def test_a_taken_port_is_one_error(url: str) -> None:
    """A port in use is named at once."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError, match="cannot listen"):
        serve(url, "127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_server_answers_and_stops(url: str, tmp_path: Path, host: str) -> None:
    """Gunicorn serves the application, still refuses foreign names on every address, and leaves at SIGTERM."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    code = f"from mhist_tune.dashboard import serve; serve({url!r}, {host!r}, {port}, allow_remote=True)"
    environment = {**os.environ, "HOME": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True) as process:
        try:
            deadline = time.monotonic() + 60
            status = 0
            while status == 0 and time.monotonic() < deadline:
                try:
                    status, _ = ask(port, "GET", "/healthz")
                except OSError:
                    assert process.poll() is None
            assert status == 200
            assert ask(port, "GET", "/api/studies")[0] == 200
            assert ask(port, "GET", "/api/studies", host="evil.example")[0] == 421
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
