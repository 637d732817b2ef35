"""docker-compose.yml and its services, as far as they can be checked without an engine."""

import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "storage" / "postgres" / "make-credentials.sh"
OURS = ("credentials", "schema", "worker", "worker-gpu", "dashboard")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The parsed file, merge keys resolved."""
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert isinstance(document, dict)
    return document


def make_credentials(folder: Path) -> tuple[str, str]:
    """Run the start-up script and return what it wrote: the pgpass line and the password."""
    subprocess.run(["sh", SCRIPT, folder], check=True)
    return (folder / "pgpass").read_text(), (folder / "password").read_text()


def test_services(compose: dict[str, Any]) -> None:
    """The stack is the database and five services of our own image, which one of them builds."""
    services = compose["services"]
    assert set(services) == {"db", *OURS}
    assert services["db"]["image"] == "postgres:17"
    assert {services[name]["image"] for name in OURS} == {"mhist-tune"}
    assert [name for name in services if "build" in services[name]] == ["credentials"]


def test_order_of_start(compose: dict[str, Any]) -> None:
    """Every service waits for the one-shot service that makes the tables, and that one waits for the database."""
    services = compose["services"]
    done = "service_completed_successfully"
    assert services["db"]["depends_on"] == {"credentials": {"condition": done}}
    assert services["schema"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    assert services["worker"]["depends_on"] == services["dashboard"]["depends_on"] == {"schema": {"condition": done}}
    assert services["credentials"]["restart"] == services["schema"]["restart"] == "no"
    # The server of the first initialization listens on a local socket only, so a check over TCP is the true one.
    assert "--host=127.0.0.1" in services["db"]["healthcheck"]["test"]


def test_only_the_dashboard_is_published_on_loopback(compose: dict[str, Any]) -> None:
    """Ports are published on this machine only; the dashboard, which listens on all addresses, has a password."""
    ports = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert ports == {"dashboard": ["127.0.0.1:8080:8080"]}
    dashboard = compose["services"]["dashboard"]
    assert dashboard["command"][:3] == ["dashboard", "--host", "0.0.0.0"]
    assert dashboard["environment"]["MHIST_TUNE_DASHBOARD_PASSWORD_FILE"] == "/run/credentials/dashboard-password"


@pytest.mark.parametrize("name", OURS)
def test_our_containers_are_confined(compose: dict[str, Any], name: str) -> None:
    """Ours run under an init that passes signals on, without capabilities, on a read-only root, and not as root."""
    service = compose["services"][name]
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert not service.get("privileged", False)
    assert "user" not in service  # the image's own


def test_worker_has_time_to_save(compose: dict[str, Any]) -> None:
    """Workers wait for slots, and a stop leaves them at least a minute for a checkpoint."""
    worker = compose["services"]["worker"]
    assert worker["command"] == ["worker", "--wait"]
    minutes = re.fullmatch(r"(\d+)m", worker["stop_grace_period"])
    assert minutes is not None
    assert int(minutes[1]) >= 1


def test_the_database_is_confined(compose: dict[str, Any]) -> None:
    """The server keeps the capabilities that its entrypoint gives up root with, and writes to its volume and memory."""
    db = compose["services"]["db"]
    assert db["read_only"] is True
    assert db["tmpfs"] == ["/tmp", "/var/run/postgresql"]
    assert db["cap_drop"] == ["ALL"]
    assert set(db["cap_add"]) == {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
    assert db["security_opt"] == ["no-new-privileges:true"]


def test_gpus_are_a_profile(compose: dict[str, Any]) -> None:
    """The GPU worker is the worker with every GPU reserved, started only with its profile."""
    services = compose["services"]
    gpu = services["worker-gpu"]
    assert gpu["profiles"] == ["gpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert {key: gpu[key] for key in services["worker"]} == services["worker"]


def test_volumes(compose: dict[str, Any]) -> None:
    """The data set is read-only, studies and checkpoints are in named volumes, one service alone writes secrets."""
    services = compose["services"]
    data = services["worker"]["volumes"][0]
    assert data["source"].startswith("${MHIST_TUNE_DATA_DIR:?")
    assert data["read_only"] is True
    assert services["worker"]["environment"]["MHIST_TUNE_DATA"] == data["target"]
    assert "storage:/srv/mhist/storage" in services["worker"]["volumes"]
    assert "database:/var/lib/postgresql/data" in services["db"]["volumes"]
    assert set(compose["volumes"]) == {"database", "storage", "credentials"}
    for name in ("db", "schema", "worker", "dashboard"):
        assert "credentials:/run/credentials:ro" in services[name]["volumes"]


def test_the_password_stands_in_files_only(compose: dict[str, Any]) -> None:
    """Server and clients read the password from files; no environment and no URL holds one."""
    services = compose["services"]
    assert services["db"]["environment"]["POSTGRES_PASSWORD_FILE"] == "/run/credentials/password"
    for name in ("schema", "worker", "dashboard"):
        environment = services[name]["environment"]
        assert environment["PGPASSFILE"] == "/run/credentials/pgpass"
        assert environment["MHIST_TUNE_STORAGE"] == "postgresql://mhist@db/mhist"
    variables = {key for service in services.values() for key in service.get("environment", {})}
    assert all(key.endswith("_FILE") for key in variables if "PASSWORD" in key)


def test_credentials(tmp_path: Path) -> None:
    """The first start makes a password of 192 bits in the form that libpq accepts; later starts keep it."""
    line, password = make_credentials(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{48}\n", password)
    assert line == f"db:5432:mhist:mhist:{password}"
    assert stat.S_IMODE((tmp_path / "pgpass").stat().st_mode) == 0o600
    assert make_credentials(tmp_path) == (line, password)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dashboard-password", "password", "pgpass"]


def test_credentials_after_a_kill(tmp_path: Path) -> None:
    """A start that was cut off between the two files is completed with the same password; two stacks differ."""
    line, password = make_credentials(tmp_path)
    (tmp_path / "password").unlink()
    assert make_credentials(tmp_path) == (line, password)
    other = tmp_path / "other"
    other.mkdir()
    assert make_credentials(other)[1] != password


def test_image() -> None:
    """The image is built by any builder, does not run as root, and owns the folders that volumes are mounted on."""
    text = (ROOT / "Dockerfile").read_text()
    assert "# syntax=" not in text
    assert "<<" not in text
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["1000"]
    assert re.search(r"chown mhist: .*\bstorage\b.* /run/credentials", text)
    assert 'ARG TORCH_INDEX_URL=""' in text
    for source in re.findall(r"^COPY (\S+)", text, re.MULTILINE):
        assert f"!{source}\n" in (ROOT / ".dockerignore").read_text(), f"{source} does not get into the build context"
