"""The dashboard's guard, without a browser: who may read, who may write, and what stays inside."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from mhist_tune.dashboard.access import Access
from mhist_tune.dashboard.forms import ACTIONS
from mhist_tune.dashboard.server import app, serve
from mhist_tune.errors import StorageError, UsageError
from mhist_tune.storage.database import Storage, open_storage
from tests.support.web import ORIGIN, PASSWORD, Client

WRITES = [
    ("POST", "/api/studies"),
    ("DELETE", "/api/studies/1"),
    ("POST", "/api/studies/1/rename"),
    ("POST", "/api/trials/0/tell"),
    ("POST", "/api/trials/1/user-attrs"),
    ("PUT", "/api/studies/1/note"),
    ("PUT", "/api/studies/1/1/note"),
    ("POST", "/api/artifacts/1"),
    ("DELETE", "/api/artifacts/1/1/abc"),
    ("POST", "/incompatible-rdb-schema"),
    ("PATCH", "/api/studies/1"),
    ("OPTIONS", "/api/studies"),
    ("POST", "/healthz"),
    *(("POST", f"/study/shown/{action}") for action in ACTIONS),
]
ALLOWED = {"/api/studies/1/note", "/api/studies/1/1/note", "/api/artifacts/1", "/api/artifacts/1/1/abc"}
PAGES = ["/", "/study/shown", "/study/shown/report", "/dashboard", "/api/studies", "/static/bundle.js", "/csv/1"]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A storage with one Optuna study of one trial. The tests share it, since none may change it."""
    url = f"sqlite:///{tmp_path_factory.mktemp('storage')}/studies.db"
    with open_storage(url) as storage:
        study = optuna.create_study(storage=storage.optuna, study_name="shown", direction="maximize")
        study.add_trial(optuna.create_trial(value=0.5))
    return url


@pytest.fixture(scope="module")
def opened(url: str) -> Iterator[Storage]:
    """That storage, open."""
    with open_storage(url, create=False) as storage:
        yield storage


@pytest.fixture
def anyone(opened: Storage) -> Client:
    """A browser at a dashboard without a password."""
    return Client(app(opened))


@pytest.fixture
def stranger(opened: Storage) -> Client:
    """A browser without a login."""
    return Client(app(opened, Access(PASSWORD)))


@pytest.fixture
def user(stranger: Client) -> Client:
    """A browser with a login."""
    assert stranger.log_in().status == 303
    return stranger


def is_untouched(storage: Storage) -> bool:
    """Return whether the storage holds this one study, unchanged."""
    [study] = storage.optuna.get_all_studies()
    return (study.study_name, study.system_attrs, study.user_attrs) == ("shown", {}, {})


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


@pytest.mark.parametrize("path", ["/dashboard", "/favicon.ico", "/static/bundle.js", "/assets/style.css", "/"])
def test_pages_are_served(anyone: Client, path: str) -> None:
    """The pages and their files arrive, also at a client that sends no Accept-Encoding, and cannot be framed."""
    answer = anyone.get(path)

    assert (answer.status, len(answer.body) > 0) == (200, True)
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_optuna_dashboard_shows_its_studies(anyone: Client) -> None:
    """The API lists the study of the storage, and its trial; the blank table page leads to the one that works."""
    assert '"shown"' in anyone.get("/api/studies").body
    assert '"Complete"' in anyone.get("/api/studies/1").body
    assert anyone.get("/dashboard/studies/1/trialTable").headers["location"] == "/dashboard/studies/1/trials"


@pytest.mark.parametrize(("method", "path"), WRITES)
@pytest.mark.parametrize("mode", ["no password", "read-only"])
def test_read_only_refuses_every_write(opened: Storage, mode: str, method: str, path: str) -> None:
    """Every other method than GET and HEAD gets 403, with a login too, and changes nothing."""
    client = Client(app(opened) if mode == "no password" else app(opened, Access(PASSWORD, is_read_only=True)))
    if mode == "read-only":
        assert client.log_in().status == 303
    answer = client.ask(method, path, b"{}", HTTP_ORIGIN=ORIGIN, CONTENT_TYPE="application/json")

    assert (answer.status, answer.json["reason"]) == (403, "this dashboard is read-only")
    assert is_untouched(opened)


@pytest.mark.parametrize("path", PAGES)
def test_without_a_login_there_is_nothing(stranger: Client, path: str) -> None:
    """Each page leads to the login, each other request gets 401, and neither says anything about the studies."""
    page, other = stranger.get(path, HTTP_ACCEPT="text/html"), stranger.get(path, HTTP_ACCEPT="*/*")

    assert page.status == 303
    assert page.headers["location"].startswith("/login?next=")
    assert other.status == 401
    assert "shown" not in page.body + other.body
    assert stranger.get("/healthz").status == 200


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_without_a_login_nothing_is_written(stranger: Client, opened: Storage, method: str, path: str) -> None:
    """Every write gets 401, without a session and with an invented one."""
    for cookie in ("", "mhist_tune_session=made-up"):
        assert stranger.ask(method, path, b"{}", HTTP_ORIGIN=ORIGIN, HTTP_COOKIE=cookie).status == 401
    assert is_untouched(opened)


def test_the_password_opens_and_logging_out_closes(stranger: Client) -> None:
    """A wrong password gets 401 and no cookie; the right one gets a cookie, which is invalid after the logout."""
    assert stranger.log_in("wrong").status == 401
    assert stranger.cookies == {}
    answer = stranger.log_in()
    assert answer.headers["location"] == "/"
    assert {"HttpOnly", "SameSite=Lax"} <= set(answer.headers["set-cookie"].split("; "))
    assert stranger.get("/api/studies").status == 200
    kept = dict(stranger.cookies)
    stranger.post("/logout")
    stranger.cookies = kept
    assert stranger.get("/api/studies").status == 401


def test_guessing_is_slowed(stranger: Client) -> None:
    """After ten wrong passwords within a minute an address is refused, with the right one too."""
    assert {stranger.log_in(str(guess)).status for guess in range(10)} == {401}
    assert stranger.log_in().status == 429


@pytest.mark.parametrize(
    "wanted", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"]
)
def test_the_login_leads_nowhere_else(stranger: Client, wanted: str) -> None:
    """A link to the login cannot lead on to another site."""
    answer = stranger.post("/login", {"password": PASSWORD, "next": wanted})

    assert answer.headers["location"] == "/"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://localhost:9999", "http://[", None])
@pytest.mark.parametrize("path", ["/study/shown/pause", "/api/studies/1/note", "/login", "/logout"])
def test_a_cross_site_form_is_refused(user: Client, opened: Storage, origin: str | None, path: str) -> None:
    """A write from another origin, or from none, gets 403 in spite of the session cookie."""
    origins = {} if origin is None else {"HTTP_ORIGIN": origin}
    answer = user.ask("POST", path, b"n_trials=5", CONTENT_TYPE="application/x-www-form-urlencoded", **origins)

    assert answer.status == 403
    assert "another site" in answer.body
    assert is_untouched(opened)
    assert user.get("/api/studies").status == 200


@pytest.mark.parametrize(("method", "path"), [write for write in WRITES if write[1] not in ALLOWED][:7])
def test_nothing_goes_past_the_ledger(user: Client, opened: Storage, method: str, path: str) -> None:
    """With a login too, optuna-dashboard deletes, renames, creates and ends nothing."""
    answer = user.ask(method, path, b"{}", HTTP_ORIGIN=ORIGIN, CONTENT_TYPE="application/json")

    assert answer.status in (403, 405)
    assert is_untouched(opened)


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[::2]:8080", ":8080", ""),
        *("localhost@evil.example", "evil.example@localhost", "localhost:8080:1", "localhost/x", "[::1", "localhost "),
    ],
)
@pytest.mark.parametrize("path", ["/api/studies", "/healthz", "/login"])
def test_a_foreign_host_is_refused(anyone: Client, host: str, path: str) -> None:
    """A name that is not this machine's gets 421 and no data, against DNS rebinding."""
    answer = anyone.get(path, HTTP_HOST=host)

    assert answer.status == 421
    assert "shown" not in answer.body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "[::1]:8080"])
def test_names_of_this_machine_are_served(anyone: Client, host: str) -> None:
    """Every way to write the loopback address works, with and without a port."""
    assert anyone.get("/healthz", HTTP_HOST=host).status == 200


LONG = "a" * 10_000


@pytest.mark.parametrize(
    "path",
    [f"/{LONG}", f"/study/{LONG}", f"/study/shown?state={LONG}", f"/study/{LONG}/report", f"/artifacts/1/{LONG}"],
)
def test_long_addresses_are_refused(user: Client, path: str) -> None:
    """Ten thousand characters get 414 and a short answer."""
    answer = user.get(path)

    assert answer.status == 414
    assert len(answer.body) < 500


def test_long_inputs_are_refused(user: Client, stranger: Client) -> None:
    """A password, a form, a cookie and a body that are too long end in an error, not in a crash."""
    assert user.log_in(LONG).status == 401
    assert user.post("/login", {"password": LONG * 10}).status == 400
    assert user.get("/", HTTP_COOKIE=f"mhist_tune_session={LONG}").status == 431
    assert user.post("/study/shown/veto", CONTENT_LENGTH=str(10**9)).status == 413
    assert user.post("/study/shown/veto", CONTENT_LENGTH="-1").status == 413


def test_only_a_form_is_read(stranger: Client) -> None:
    """A body of another type, and one without a length, get 400, whatever they hold."""
    body = json.dumps({"password": PASSWORD}).encode()
    other = stranger.ask("POST", "/login", body, HTTP_ORIGIN=ORIGIN, CONTENT_TYPE="application/json")
    endless = stranger.post("/login", {"password": PASSWORD}, CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked")

    assert (other.status, other.json["reason"]) == (400, "expected a form")
    assert (endless.status, endless.json["reason"]) == (400, "the form has no Content-Length")
    assert stranger.cookies == {}


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../storage.db",
        "/assets/..%2fpage.py",
        "/assets/base.html",
        "/static/../_app.py",
        "/static/..%2f_app.py",
        "/artifacts/1/../../studies.db",
        "/artifacts/1/..%2f..%2fstudies.db",
        "/study/../../studies.db",
    ],
)
def test_no_path_leads_out(user: Client, path: str) -> None:
    """Neither files of the package nor those beside the artifacts can be read."""
    answer = user.get(path)

    assert answer.status in (400, 403, 404)
    assert "SQLite format" not in answer.body
    assert "def " not in answer.body


def test_an_html_artifact_is_sandboxed(user: Client, opened: Storage, tmp_path: Path) -> None:
    """A page that was stored as an artifact has no origin and no script, and no other site may read it."""
    page = tmp_path / "page.html"
    page.write_text("<script>fetch('/api/studies')</script>")
    study = optuna.create_study()
    trial = study.ask()
    store = optuna.artifacts.FileSystemArtifactStore(opened.root / "artifacts")
    artifact = optuna.artifacts.upload_artifact(artifact_store=store, file_path=str(page), study_or_trial=trial)
    key, meta = next(iter(study._storage.get_trial_system_attrs(trial._trial_id).items()))
    opened.optuna.set_study_system_attr(1, key, meta)
    try:
        answer = user.get(f"/artifacts/1/{artifact}")
    finally:
        opened.optuna.set_study_system_attr(1, key, "null")
        with opened.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM study_system_attributes")

    assert answer.status == 200
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/login", "/study/none"])
def test_our_pages_run_only_our_script(user: Client, path: str) -> None:
    """The policy of our pages allows no inline script and no other site."""
    policy = user.get(path).headers["content-security-policy"]

    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy


def test_an_unreachable_database_is_one_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says so with 503, without the storage's address."""
    with open_storage(url, create=False) as storage:
        client = Client(app(storage))

        def unreachable(*_: object, **__: object) -> None:
            raise StorageError(f"cannot use the storage {storage.url_safe}")

        monkeypatch.setattr(storage, "read", unreachable)
        answer = client.get("/")
    assert answer.status == 503
    assert "the database does not answer" in answer.body
    assert "sqlite" not in answer.body


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_beyond_loopback_needs_permission(url: str, host: str) -> None:
    """An address that others can reach is refused without a password, read-only or not, and with a short one."""
    with pytest.raises(UsageError, match="other machines") as refused:
        serve(url, host, 8080, is_read_only=True)
    assert refused.value.exit_code == 2
    with pytest.raises(UsageError, match="fewer than 8"):
        serve(url, host, 8080, password="short")


def test_a_missing_storage_is_one_error(tmp_path: Path) -> None:
    """Without a storage no server starts, and no storage is created."""
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
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment |= {"MHIST_TUNE_DASHBOARD_PASSWORD_FILE": str(tmp_path / "password"), "MHIST_TUNE_STORAGE": url}
    command = [sys.executable, "-m", "mhist_tune", "dashboard", "--host", host, "--port", str(port)]
    with subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 60
            status = 0
            while status == 0 and time.monotonic() < deadline:
                try:
                    status, _ = ask(port, "GET", "/healthz")
                except OSError:
                    assert process.poll() is None
            assert status == 200
            assert ask(port, "GET", "/api/studies")[0] == 401
            assert ask(port, "GET", "/healthz", host="evil.example")[0] == 421
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
            assert process.stderr is not None
            assert PASSWORD.encode() not in process.stderr.read()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
