"""The dashboard behind a proxy and under a base path."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from mhist_tune.dashboard import front, stock_files
from mhist_tune.dashboard.access import Access
from mhist_tune.dashboard.server import LOOPBACK_HOSTS, app, serve
from mhist_tune.errors import UsageError
from mhist_tune.storage.database import Storage, open_storage
from tests.support import made_up
from tests.support.web import PASSWORD, Answer, Client

PROXY, CLIENT = "192.0.2.7", "198.51.100.9"
FORWARDED = {"HTTP_X_FORWARDED_FOR": CLIENT, "HTTP_X_FORWARDED_PROTO": "https", "HTTP_X_FORWARDED_HOST": "tune.example"}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """A storage with a study that has been retrained."""
    with open_storage(f"sqlite:///{tmp_path_factory.mktemp('storage')}/studies.db") as storage:
        study = made_up.create(storage, "tiny")
        made_up.open_test(storage, study)
        made_up.retrain(storage, study, n_slots=3)
        yield storage


def behind_a_proxy(storage: Storage) -> Client:
    """Return a client of a dashboard that believes `PROXY`."""
    hosts = {*LOOPBACK_HOSTS, "tune.example"}
    return Client(app(storage, Access(PASSWORD), hosts=hosts, trusted_proxy=front.read_proxy(PROXY)))


def log_in(client: Client, address: str, *, origin: str, **environ: str) -> Answer:
    """Send the right password from an address."""
    fields = {"password": PASSWORD, "next": "/"}
    return client.post("/login", fields, REMOTE_ADDR=address, HTTP_ORIGIN=origin, **environ)


def test_the_trusted_proxy_is_believed(opened: Storage) -> None:
    """Host, scheme and client come from its headers: the origin of TLS is right, and the cookie is Secure."""
    client = behind_a_proxy(opened)
    answer = log_in(client, PROXY, origin="https://tune.example", **FORWARDED)
    assert answer.status == 303
    assert "Secure" in answer.headers["set-cookie"].split("; ")
    assert client.post("/logout", REMOTE_ADDR=PROXY, HTTP_ORIGIN="http://tune.example", **FORWARDED).status == 403
    out = client.post("/logout", REMOTE_ADDR=PROXY, HTTP_ORIGIN="https://tune.example", **FORWARDED)
    assert (out.status, "Secure" in out.headers["set-cookie"].split("; ")) == (303, True)


def test_others_are_not_believed(opened: Storage) -> None:
    """The same headers from another address change neither host nor scheme."""
    client = behind_a_proxy(opened)
    assert log_in(client, CLIENT, origin="https://tune.example", **FORWARDED).status == 403
    answer = log_in(client, CLIENT, origin="http://localhost:8080", **FORWARDED)
    assert answer.status == 303
    assert "Secure" not in answer.headers["set-cookie"]


def test_guesses_are_counted_for_each_client_of_the_proxy(opened: Storage) -> None:
    """Wrong passwords of one client do not keep out another one behind the proxy; a made-up chain is no help."""
    client = behind_a_proxy(opened)

    def ask(password: str, chain: str) -> Answer:
        environ = {**FORWARDED, "HTTP_X_FORWARDED_FOR": chain, "HTTP_ORIGIN": "https://tune.example"}
        return client.post("/login", {"password": password, "next": "/"}, REMOTE_ADDR=PROXY, **environ)

    assert {ask("wrong", f"203.0.113.{number}, {CLIENT}").status for number in range(10)} == {401}
    refused = ask(PASSWORD, CLIENT)
    assert (refused.status, refused.headers["retry-after"]) == (429, "60")
    assert "Too many wrong passwords; wait " in refused.body
    assert ask(PASSWORD, "198.51.100.10").status == 303


@pytest.mark.parametrize("origin", ["https://localhost:8080", "ftp://localhost:8080", "localhost:8080"])
def test_the_scheme_of_an_origin_counts(opened: Storage, origin: str) -> None:
    """A page of the same host and port, but of another scheme, is another site."""
    client = Client(app(opened, Access(PASSWORD)))
    assert log_in(client, CLIENT, origin=origin).status == 403


def test_an_own_default_port_may_be_named(opened: Storage) -> None:
    """Some proxies write the port of the scheme into the host."""
    client = behind_a_proxy(opened)
    environ = {**FORWARDED, "HTTP_X_FORWARDED_HOST": "tune.example:443"}
    assert log_in(client, PROXY, origin="https://tune.example", **environ).status == 303


@pytest.mark.parametrize("is_stripped", [False, True], ids=["kept", "removed"])
def test_every_url_is_under_the_base_path(opened: Storage, is_stripped: bool) -> None:
    """All links, forms, files and redirects of all pages begin with it, and answer, if a proxy removes it too."""
    client = Client(app(opened, Access(PASSWORD), base_path="/tune"))

    def get(url: str) -> Answer:
        return client.get(url.removeprefix("/tune") if is_stripped else url, HTTP_ACCEPT="text/html")

    assert get("/tune/study/tiny").headers["location"] == "/tune/login?next=/study/tiny"
    assert 'action="/tune/login"' in get("/tune/login").body
    path = "/login" if is_stripped else "/tune/login"
    answer = client.post(path, {"password": PASSWORD, "next": "/study/tiny"})
    assert answer.headers["location"] == "/tune/study/tiny"
    assert "Path=/tune" in answer.headers["set-cookie"].split("; ")

    pages, seen = ["/tune/", "/tune/study/nothing"], set()
    while pages:
        url = pages.pop()
        path = urlsplit(url)._replace(fragment="").geturl()
        if path in seen:
            continue
        seen.add(path)
        answer = get(path)
        assert answer.status == (404 if "nothing" in path else 200), path
        if answer.headers["content-type"].startswith("text/html") and not path.endswith("/report"):
            found = re.findall(r'(?:href|src|action)="([^"]*)"', answer.body)
            assert all(url.startswith(("/tune/", "data:")) for url in found), found
            pages += re.findall(r'(?:href|src)="(/[^"]*)"', answer.body.replace("&amp;", "&"))
    assert {"/tune/study/tiny/report", "/tune/assets/live.js", "/tune/static/bundle.js", "/tune/dashboard"} <= seen
    changed = client.post("/study/tiny/pause" if is_stripped else "/tune/study/tiny/pause")
    assert changed.headers["location"] == "/tune/study/tiny"
    assert client.post("/tune/study/tiny/continue").status == 303


def test_optuna_dashboard_is_under_the_base_path(opened: Storage) -> None:
    """Its page, script, API and redirects too. The script is packed, and is not sent again unchanged."""
    client = Client(app(opened, base_path="/tune"))
    script = client.get("/tune/static/bundle.js").body
    for old, n, _ in stock_files.BUNDLE:
        assert script.count(old.format()) in (0, n) and old.format() not in script
    assert 'url_prefix:"/tune/dashboard"' in script
    packed = client.get("/tune/static/bundle.js", HTTP_ACCEPT_ENCODING="gzip, br")
    assert packed.headers["content-encoding"] == "gzip"
    etag = packed.headers["etag"]
    again = client.get("/tune/static/bundle.js", HTTP_ACCEPT_ENCODING="gzip, br", HTTP_IF_NONE_MATCH=etag)
    assert (again.status, again.body) == (304, "")
    page = client.get("/tune/dashboard/studies/1/trials")
    assert 'src="/tune/static/bundle.js"' in page.body
    assert "unsafe-eval" in page.headers["content-security-policy"]
    assert client.get("/tune/api/meta").json["jupyterlab_extension_context"] == {"base_url": "/tune"}
    table = client.get("/tune/dashboard/studies/1/trialTable").headers["location"]
    assert table == "/tune/dashboard/studies/1/trials"
    assert client.get("/tune/incompatible-rdb-schema").headers["location"] == "/tune/dashboard"


def test_the_unchanged_script_has_the_known_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of optuna-dashboard with other paths is refused under a base path."""
    monkeypatch.setattr(stock_files, "PAGE", (('src="/static/', 2, ""),))
    with pytest.raises(UsageError, match="cannot be served under a base path"):
        stock_files.page("/other")


@pytest.mark.parametrize("text", ["tune", "//tune", "/tu ne", "/..", "/a/../b", '/"', "/a//b", "/%2e"])
def test_a_wrong_base_path_is_refused(text: str) -> None:
    """What is no path, or has a part that a browser would change, is refused."""
    with pytest.raises(UsageError, match="--base-path"):
        front.read_base_path(text)
    assert [front.read_base_path(good) for good in ("", "/", "/tune/", "/user/a@b.example/proxy/8080")] == [
        *("", "", "/tune", "/user/a@b.example/proxy/8080")
    ]


def test_a_wrong_proxy_is_refused(opened: Storage) -> None:
    """A name is no address; and a proxy without a password would let everybody in."""
    with pytest.raises(UsageError, match="--trusted-proxy"):
        front.read_proxy("proxy.example")
    with pytest.raises(UsageError, match="no password"):
        serve(f"sqlite:///{opened.root}/studies.db", "127.0.0.1", 8080, trusted_proxy=PROXY)
