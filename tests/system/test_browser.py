"""The dashboard in a real browser, on both databases, while two workers train. `make test-browser` runs it.

Screenshots go to `build/screenshots`, to be looked at.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mhist_tune.actions import create
from mhist_tune.definition import study_file
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import open_storage
from mhist_tune.storage.epochs import epochs_of
from tests.support import made_up
from tests.support.postgres import PostgresServer
from tests.support.web import PASSWORD

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
STUDY = """
[study]
name = "live"
n_trials = 400
pruner = { name = "median", n_warmup_epochs = 2, n_startup_trials = 2 }

[fixed]
model = "fcnn"
weights = "random"
image_size = 32
epochs = 40
patience = 40

[space]
learning_rate = { low = 1e-5, high = 1e-2, log = true }
drop_rate = { low = 0.1, high = 0.5 }
sampling = { choices = ["none", "random_over"] }
"""
_TIMEOUT_S = 120.0


class Served(NamedTuple):
    """A storage, and the address of its dashboard, which asks for a password."""

    url: str
    address: str


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium: the machine's own, or the one that Playwright installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright; `make test-browser` installs it")
    with playwright.sync_playwright() as running:
        own = running.chromium.executable_path
        path = next((one for one in (shutil.which("chromium"), own) if one and Path(one).exists()), None)
        if path is None:
            pytest.skip("no Chromium; `make test-browser` installs one")
        launched = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


def start(arguments: list[str], folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start the command line in a process of its own; workers get a low priority, so that pages stay fast."""
    log = (folder / f"{arguments[0]}.log").open("ab")
    politely = ["nice", "-n", "19"] if arguments[0] == "worker" else []
    with log:
        return subprocess.Popen(
            [*politely, sys.executable, "-m", "mhist_tune", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
            cwd=folder,
            stderr=log,
            stdout=log,
        )


def serve(folder: Path, url: str, *options: str, **environment: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start a dashboard on a free port; return it and its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = start(["dashboard", "--port", str(port), *options], folder, MHIST_TUNE_STORAGE=url, **environment)
    return process, f"http://127.0.0.1:{port}"


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """End processes as an engine does: SIGTERM, and after a minute SIGKILL."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_alive(process: subprocess.Popen[bytes], address: str) -> None:
    """Wait until a dashboard answers."""
    deadline = time.monotonic() + 5 * _TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(f"{address}/healthz", timeout=5):
                return
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)


def wait_for_an_epoch(url: str, worker: subprocess.Popen[bytes]) -> None:
    """Wait until the workers have loaded their libraries and trained for an epoch."""
    deadline = time.monotonic() + 5 * _TIMEOUT_S
    with open_storage(url) as storage:
        study = studies.load_study(storage, "live")
        while not epochs_of(storage, study, "search", 0):
            assert worker.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, generated: Path
) -> Iterator[Served]:
    """A dashboard over a storage with a study that two workers train and one that is retrained."""
    folder = tmp_path_factory.mktemp("served")
    server: PostgresServer | None = None
    url = f"sqlite:///{folder}/storage/studies.db"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        url = server.new_database()
    with open_storage(url) as storage:
        create.create(storage, study_file.parse(STUDY, "live"), generated)
        tiny = made_up.create(storage, "tiny")
        made_up.open_test(storage, tiny)
        made_up.retrain(storage, tiny, n_slots=3)
    arguments = ["worker", "live", "--devices", "cpu", "--per-device", "2", "--data", str(generated)]
    processes = [start(arguments, folder, MHIST_TUNE_STORAGE=url)]
    try:
        dashboard, address = serve(folder, url, MHIST_TUNE_DASHBOARD_PASSWORD=PASSWORD)
        processes.append(dashboard)
        wait_until_alive(dashboard, address)
        wait_for_an_epoch(url, processes[0])
        yield Served(url, address)
    finally:
        stop(processes)
        if server is not None:
            server.drop_database(url)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Served]:
    """A dashboard without a password."""
    url = f"sqlite:///{tmp_path}/storage/studies.db"
    with open_storage(url) as storage:
        made_up.create(storage, "tiny")
    process, address = serve(tmp_path, url)
    try:
        wait_until_alive(process, address)
        yield Served(url, address)
    finally:
        stop([process])


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of a desktop; no script of ours may fail on it, and nothing may break the policy."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    opened = context.new_page()
    opened.set_default_timeout(_TIMEOUT_S * 1000)
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    yield opened
    assert wrong == []
    context.close()


def log_in(page: Any, served: Served, path: str = "/") -> None:
    """Open a page by way of the login."""
    page.goto(f"{served.address}{path}")
    page.fill("input[name=password]", PASSWORD)
    page.click("button")
    page.wait_for_url(f"**{path}")


def picture(page: Any, served: Served, name: str) -> None:
    """Keep a screenshot to be looked at."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    kind = served.url.partition(":")[0]
    page.screenshot(path=SCREENSHOTS / f"{name}-{page.viewport_size['width']}-{kind}.png", full_page=True)


def test_a_value_appears_without_reload(page: Any, served: Served) -> None:
    """Behind the login the overview leads to the live page, which shows new epochs by itself as workers train."""
    page.goto(f"{served.address}/")
    picture(page, served, "login")
    log_in(page, served)
    picture(page, served, "overview")
    page.click("text=live")
    page.wait_for_url("**/study/live")
    page.wait_for_selector("table.workers td:has-text('cpu')")
    page.evaluate("window.untouched = true")
    before = page.inner_text("[data-live]")
    # Locators, not `wait_for_function`, which evaluates text again and again: the page's policy forbids that.
    expect = pytest.importorskip("playwright.sync_api").expect
    live = page.locator("[data-live]")
    expect(live).not_to_have_text(before, use_inner_text=True, timeout=_TIMEOUT_S * 1000)
    page.wait_for_selector(".trials .pill.complete, .trials .pill.pruned")
    page.locator(".panels path.c0").nth(4).wait_for(state="attached")
    picture(page, served, "study")

    assert page.evaluate("window.untouched") is True


def test_buttons_steer_the_study(page: Any, served: Served) -> None:
    """Pause and continue, a larger budget and a configuration of one's own: all of it is in the ledger afterwards."""
    log_in(page, served, "/study/live")
    page.click("text=Pause")
    page.wait_for_selector(".pill.paused")
    page.click("button:has-text('Continue')")
    page.wait_for_selector(".head .pill.active")
    page.fill("input[name=n_trials]", "7")
    page.click("text=Extend the budget")
    page.wait_for_selector("text=of 407")
    page.click("text=Enqueue a configuration")
    page.fill("input[name='param.learning_rate']", "0.00321")
    page.click("button:has-text('Enqueue')")
    page.wait_for_selector("td:has-text('0.00321')")
    with open_storage(served.url, create=False) as storage:
        study = studies.load_study(storage, "live")
        slots = ledger.slots(storage, study, "search")
    assert study.state == "active"
    assert len(slots) == 408
    assert slots[-1].payload.params["learning_rate"] == 0.00321


def test_without_a_password_there_is_nothing_to_press(page: Any, read_only: Served) -> None:
    """The read-only dashboard has no control, and a form made by hand is refused."""
    page.goto(f"{read_only.address}/study/tiny")
    assert page.locator("form").count() == 0
    assert page.locator("text=read-only").count() == 1
    status = page.evaluate("fetch('/study/tiny/stop', {method: 'POST'}).then(answer => answer.status)")
    assert status == 403
    with open_storage(read_only.url, create=False) as storage:
        assert studies.load_study(storage, "tiny").state == "active"


def test_the_report_and_a_trial_are_pages(page: Any, served: Served) -> None:
    """The retrained study's report opens from the overview; a trial has its curves on a page of its own."""
    log_in(page, served)
    page.click("a[href='/study/tiny/report']")
    page.wait_for_selector("text=Metrics on the test partition")
    assert page.locator("figure svg").count() >= 4
    picture(page, served, "report")
    page.goto(f"{served.address}/study/live")
    page.click(".trials tbody a >> nth=0")
    page.wait_for_selector("h1:has-text('Trial')")
    picture(page, served, "trial")


def test_optuna_dashboard_works_beside_it(page: Any, served: Served) -> None:
    """Its study list and its page of a study are drawn, behind the same login."""
    log_in(page, served, "/dashboard")
    page.click("text=live")
    page.wait_for_selector(".js-plotly-plot, .plotly")
    page.wait_for_selector("text=Hyperparameter Importance")
    picture(page, served, "optuna-dashboard")


def test_all_pages_work_under_a_base_path(page: Any, tmp_path: Path) -> None:
    """Our pages lead to each other and to optuna-dashboard's, and these draw a study, below `/tune`."""
    url = f"sqlite:///{tmp_path}/storage/studies.db"
    with open_storage(url) as storage:
        made_up.create(storage, "tiny")
    process, address = serve(tmp_path, url, "--base-path", "/tune")
    try:
        wait_until_alive(process, address)
        page.goto(f"{address}/tune/")
        page.click("text=tiny")
        page.wait_for_url("**/tune/study/tiny")
        page.click("text=in optuna-dashboard")
        page.wait_for_url("**/tune/dashboard/studies/*")
        page.wait_for_selector("text=Hyperparameter Importance")
        page.goto(f"{address}/tune/dashboard")
        page.click("text=tiny")
        page.wait_for_url("**/tune/dashboard/studies/*")
    finally:
        stop([process])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone(browser: Any, served: Served, scheme: str) -> None:
    """At 390 px nothing but tables scrolls sideways, in light and dark, and buttons are large enough for a thumb."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
    page = context.new_page()
    page.set_default_timeout(_TIMEOUT_S * 1000)
    log_in(page, served)
    for name, path in (("overview", "/"), ("study", "/study/live"), ("report", "/study/tiny/report")):
        page.goto(f"{served.address}{path}")
        picture(page, served, f"{name}-{scheme}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        heights = page.eval_on_selector_all(".controls button", "all => all.map(one => one.offsetHeight)")
        assert all(height >= 40 for height in heights)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    context.close()
