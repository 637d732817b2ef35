"""docker-compose.yml and its services, as far as they can be checked without an engine."""

import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from mhist_tune.actions.delete import delete
from mhist_tune.storage.database import open_storage
from tests.support import made_up
from tests.support.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "storage" / "postgres" / "make-credentials.sh"
OURS = ("credentials", "schema", "worker", "worker-gpu", "dashboard")
SECRETS = {
    "db": {"password"},
    "roles": {"pgpass", "worker-password", "dashboard-password"},
    "schema": {"pgpass"},
    "worker": {"pgpass"},
    "dashboard": {"pgpass", "dashboard-password"},
}
"""The files that each service needs."""


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The parsed file, merge keys resolved."""
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert isinstance(document, dict)
    return document


def make_credentials(folder: Path) -> dict[str, dict[str, str]]:
    """Run the start-up script and return what it wrote for each service: file names and contents."""
    for service in SECRETS:
        (folder / "for" / service).mkdir(parents=True, exist_ok=True)
    (folder / "all").mkdir(exist_ok=True)
    subprocess.run(["sh", SCRIPT, folder / "all", folder / "for"], check=True)
    return {
        service: {path.name: path.read_text() for path in (folder / "for" / service).iterdir()} for service in SECRETS
    }


def test_services(compose: dict[str, Any]) -> None:
    """The stack is the database, its roles, and five services of our own image, which one of them builds."""
    services = compose["services"]
    assert set(services) == {"db", "roles", *OURS}
    assert services["db"]["image"] == services["roles"]["image"]
    assert re.fullmatch(r"\$\{MHIST_TUNE_POSTGRES_IMAGE:-postgres:17\.\d+-[a-z]+\}", services["db"]["image"])
    assert {services[name]["image"] for name in OURS} == {"mhist-tune"}
    assert [name for name in services if "build" in services[name]] == ["credentials"]


def test_order_of_start(compose: dict[str, Any]) -> None:
    """Every service waits for the one-shot service that makes the tables, and that one waits for the database."""
    services = compose["services"]
    done = "service_completed_successfully"
    assert services["db"]["depends_on"] == {"credentials": {"condition": done}}
    assert services["roles"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    assert services["schema"]["depends_on"] == {"roles": {"condition": done}}
    assert services["worker"]["depends_on"] == services["dashboard"]["depends_on"] == {"schema": {"condition": done}}
    assert {services[name]["restart"] for name in ("credentials", "roles", "schema")} == {"no"}
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
    worker = services["worker"]
    assert {key: gpu[key] for key in worker if key != "deploy"} == {
        key: worker[key] for key in worker if key != "deploy"
    }
    assert gpu["deploy"]["resources"]["limits"] == worker["deploy"]["resources"]["limits"]


def test_volumes(compose: dict[str, Any]) -> None:
    """The data set is read-only, studies and checkpoints are in named volumes, one service alone writes secrets."""
    services = compose["services"]
    data = services["worker"]["volumes"][0]
    assert data["source"].startswith("${MHIST_TUNE_DATA_DIR:?")
    assert data["read_only"] is True
    assert services["worker"]["environment"]["MHIST_TUNE_DATA"] == data["target"]
    assert "storage:/srv/mhist/storage" in services["worker"]["volumes"]
    assert "database:/var/lib/postgresql/data" in services["db"]["volumes"]
    assert set(compose["volumes"]) == {
        "database",
        "storage",
        "credentials",
        *(f"credentials-{name}" for name in SECRETS),
    }


def test_each_service_sees_its_own_secrets(compose: dict[str, Any], tmp_path: Path) -> None:
    """One service makes all credentials; every other one mounts a volume with what it needs, to be read only."""
    services = compose["services"]
    for name, service in services.items():
        found = [volume for volume in service["volumes"] if str(volume).startswith("credentials")]
        if name == "credentials":
            assert found[0] == "credentials:/run/credentials"
            assert set(found[1:]) == {f"credentials-{one}:/run/credentials-for/{one}" for one in SECRETS}
        else:
            assert found == [f"credentials-{name.removesuffix('-gpu')}:/run/credentials:ro"]
    made = make_credentials(tmp_path)
    assert {name: set(files) for name, files in made.items()} == SECRETS
    secrets = {re.split(":", text.strip())[-1] for files in made.values() for text in files.values()}
    assert len(secrets) == 4  # of the owner, of two roles, of the web pages
    assert made["worker"]["pgpass"] == f"db:5432:mhist:mhist_worker:{made['roles']['worker-password']}\n"
    assert made["dashboard"]["pgpass"] == f"db:5432:mhist:mhist_dashboard:{made['roles']['dashboard-password']}\n"


def test_memory_and_processes_are_limited(compose: dict[str, Any]) -> None:
    """No service can take the machine's memory or process ids."""
    for service in compose["services"].values():
        assert set(service["deploy"]["resources"]["limits"]) == {"memory", "pids"}


def test_the_password_stands_in_files_only(compose: dict[str, Any]) -> None:
    """Server and clients read the password from files; no environment and no URL holds one."""
    services = compose["services"]
    assert services["db"]["environment"]["POSTGRES_PASSWORD_FILE"] == "/run/credentials/password"
    for name, role in (("schema", "mhist"), ("worker", "mhist_worker"), ("dashboard", "mhist_dashboard")):
        environment = services[name]["environment"]
        assert environment["PGPASSFILE"] == "/run/credentials/pgpass"
        assert environment["MHIST_TUNE_STORAGE"] == f"postgresql://{role}@db/mhist"
    variables = {key for service in services.values() for key in service.get("environment", {})}
    assert all(key.endswith("_FILE") for key in variables if "PASSWORD" in key)


def test_credentials(tmp_path: Path) -> None:
    """The first start makes passwords of 192 bits in the form that libpq accepts; later starts keep them."""
    made = make_credentials(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{48}\n", made["db"]["password"])
    assert made["schema"]["pgpass"] == f"db:5432:mhist:mhist:{made['db']['password']}"
    for service in ("roles", "schema", "worker", "dashboard"):
        assert stat.S_IMODE((tmp_path / "for" / service / "pgpass").stat().st_mode) == 0o600
    assert make_credentials(tmp_path) == made


def test_credentials_of_an_older_stack(tmp_path: Path) -> None:
    """A database that was made with one password for all services keeps it as its owner's."""
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "pgpass").write_text("db:5432:mhist:mhist:old\n")
    (tmp_path / "all" / "dashboard-password").write_text("kept")
    made = make_credentials(tmp_path)
    assert made["schema"]["pgpass"] == "db:5432:mhist:mhist:old\n"
    assert (made["db"]["password"], made["dashboard"]["dashboard-password"]) == ("old\n", "kept")


def test_credentials_after_a_kill(tmp_path: Path) -> None:
    """A start that was cut off is completed with the same passwords; two stacks differ."""
    made = make_credentials(tmp_path)
    (tmp_path / "for" / "db" / "password").unlink()
    (tmp_path / "all" / "pgpass").unlink()
    assert make_credentials(tmp_path) == made
    other = tmp_path / "other"
    other.mkdir()
    assert make_credentials(other)["db"] != made["db"]


def test_roles_have_the_rights_they_need_and_no_others(postgres: PostgresServer, tmp_path: Path) -> None:
    """With roles.sql, run before or after the tables are made, a role records a study and changes no table."""
    url = postgres.new_database()
    for name in ("worker", "dashboard"):
        (tmp_path / name).write_text(f"secret-{name}")
    files = [f"--set={name}_file={tmp_path / name}" for name in ("worker", "dashboard")]
    psql = [postgres.binaries / "psql", "--no-psqlrc", *files, f"--file={SCRIPT.with_name('roles.sql')}", url]

    def make_roles() -> None:
        done = subprocess.run(psql, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert "secret" not in done.stdout

    server, user = url.rpartition("/")[0].rpartition("@")[2], url.rpartition("/")[2]
    make_roles()
    open_storage(url).close()
    make_roles()
    for role in ("worker", "dashboard"):
        with open_storage(f"postgresql://mhist_{role}:secret-{role}@{server}/{user}") as storage:
            study = made_up.create(storage, role)
            made_up.open_test(storage, study)
            made_up.retrain(storage, study, n_slots=2)
            delete(storage, study)
        with psycopg.connect(f"postgresql://mhist_{role}:secret-{role}@{server}/{user}", autocommit=True) as connection:
            for refused in (
                "DROP TABLE mhist_slots",
                "CREATE TABLE mine (n int)",
                "TRUNCATE mhist_openings",
                "CREATE ROLE r",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(refused)


def test_image() -> None:
    """The image is built by any builder, does not run as root, and owns the folders that volumes are mounted on."""
    text = (ROOT / "Dockerfile").read_text()
    assert "# syntax=" not in text
    assert "<<" not in text
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["1000"]
    assert re.search(r"chown -R mhist: storage /run/credentials /run/credentials-for$", text, re.MULTILINE)
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.12\.\d+-slim-[a-z]+$", text, re.MULTILINE)
    assert len(re.findall("pip install", text)) == len(re.findall("pip install .*--no-deps", text)) == 4
    assert 'ARG TORCH_INDEX_URL=""' in text
    for source in re.findall(r"^COPY (\S+)", text, re.MULTILINE):
        assert f"!{source}\n" in (ROOT / ".dockerignore").read_text(), f"{source} does not get into the build context"
