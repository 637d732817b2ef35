"""The files in deploy/, as far as they can be checked without a cluster."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
SBATCH = ROOT / "deploy" / "worker.sbatch"
JOB = ROOT / "deploy" / "worker-job.yaml"
COMPOSE = ROOT / "deploy" / "workers.compose.yml"
KUBERNETES = ("1.31", "1.34", "1.37")  # podReplacementPolicy and backoffLimitPerIndex have been there since 1.29
SBATCH_OPTIONS = {
    *("job-name", "array", "ntasks", "gres", "cpus-per-task", "mem", "time", "requeue", "open-mode", "output", "signal")
}


@pytest.fixture
def job() -> dict[str, Any]:
    """The Kubernetes Job, parsed."""
    document = yaml.safe_load(JOB.read_text())
    assert isinstance(document, dict)
    return document


@pytest.fixture
def worker(job: dict[str, Any]) -> dict[str, Any]:
    """Its one container."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


@pytest.mark.parametrize("version", KUBERNETES)
def test_the_job_fits_the_schema(job: dict[str, Any], version: str) -> None:
    """Kubernetes knows every field of the Job; one that it does not know is found."""
    kubernetes_validate.validate(job, version, strict=True)
    job["spec"]["backoffLimitPerIndices"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, version, strict=True)


def test_the_job_is_indexed(job: dict[str, Any], worker: dict[str, Any]) -> None:
    """Each worker is an index that is started again by itself; what the schema cannot say about that holds as well."""
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] >= spec["parallelism"] > 0
    assert spec["backoffLimitPerIndex"] > 0
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # a failure policy needs it
    rules = [rule["onExitCodes"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert [(rule["containerName"], rule["values"]) for rule in rules] == [(worker["name"], [2, 3])]


def test_the_job_mounts_what_it_names(job: dict[str, Any], worker: dict[str, Any]) -> None:
    """Volumes and mounts agree, the data set is read-only, no password is written down, nothing runs as root."""
    pod = job["spec"]["template"]["spec"]
    assert {mount["name"] for mount in worker["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in worker["volumeMounts"]}
    environment = {variable["name"]: variable for variable in worker["env"]}
    assert mounts[environment["MHIST_TUNE_DATA"]["value"]]["readOnly"] is True
    assert {name for name, variable in environment.items() if "valueFrom" in variable} == {
        "MHIST_TUNE_STORAGE",
        "PGPASSWORD",
    }
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["terminationGracePeriodSeconds"] >= 60


def test_compose_scales(tmp_path: Path) -> None:
    """The one service can be started many times (no fixed name, no port), and its file fits the specification."""
    document = yaml.safe_load(COMPOSE.read_text())
    assert list(document["services"]) == ["worker"]
    service = document["services"]["worker"]
    assert not {"container_name", "ports"} & service.keys()
    assert service["init"] is True
    assert all(volume["bind"] == {"create_host_path": False} for volume in service["volumes"])
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    assert subprocess.run([*check, COMPOSE], capture_output=True).returncode == 0
    wrong = tmp_path / "compose.yml"
    wrong.write_text(COMPOSE.read_text().replace("restart:", "restarts:"))
    assert subprocess.run([*check, wrong], capture_output=True).returncode == 1


def test_all_start_nothing_but_workers(worker: dict[str, Any]) -> None:
    """Every engine runs `mhist-tune worker` and nothing else."""
    compose = yaml.safe_load(COMPOSE.read_text())["services"]["worker"]["command"]
    (slurm,) = re.findall(r"^srun (.*) \|\|", SBATCH.read_text(), re.MULTILINE)
    assert worker["args"] == ["worker", "vit"]
    assert compose == ["worker", "--wait"]
    assert slurm == 'mhist-tune worker "$1"'


def test_sbatch_directives() -> None:
    """Slurm reads its directives up to the first command; all of them stand before it, in the form that it takes."""
    lines = SBATCH.read_text().splitlines()
    first = next(index for index, line in enumerate(lines) if line and not line.startswith("#"))
    found = [line for line in lines if line.startswith("#SBATCH")]
    assert found == [line for line in lines[:first] if line.startswith("#SBATCH")]
    options = dict(re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line).groups() for line in found)  # type: ignore[union-attr]
    assert options.keys() == SBATCH_OPTIONS
    assert re.fullmatch(r"\d+-\d+", options["array"])
    assert re.fullmatch(r"(B:)?TERM@\d+", options["signal"])
    subprocess.run(["bash", "-n", SBATCH], check=True)


def test_every_shell_script_and_the_dockerfile_are_checked(tmp_path: Path) -> None:
    """`make check` names every shell script that there is, and finds what is wrong in a script and in a Dockerfile."""
    scripts = {path for folder in (".ci", "deploy", "storage") for path in (ROOT / folder).rglob("*") if path.is_file()}
    shell = {str(path.relative_to(ROOT)) for path in scripts if re.match(rb"#!.*\b(ba)?sh\n", path.read_bytes())}
    (named,) = re.findall(r"^\t\$\(BIN\)/shellcheck (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(named.split()) == shell
    programs = Path(sys.executable).parent
    wrong = {"shellcheck": "#!/bin/sh\nrm -r $1\n", "hadolint": "FROM python:latest\nRUN cd /srv\n"}
    for program, text in wrong.items():
        (tmp_path / program).write_text(text)
        assert subprocess.run([programs / program, tmp_path / program], capture_output=True).returncode == 1


def sbatch(folder: Path, code: int, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the script with stand-ins for Slurm's commands; return its exit code, their arguments, and stderr."""
    said = folder / "said"
    for name, end in (("srun", code), ("scontrol", 0), ("mhist-tune", 0)):
        command = folder / name
        command.write_text(f'#!/bin/sh\necho {name} "$@" >> {said}\nexit {end}\n')
        command.chmod(0o755)
    run = subprocess.run(
        ["bash", SBATCH, *arguments],
        env={"PATH": f"{folder}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
    )
    return run.returncode, said.read_text() if said.exists() else "", run.stderr


SET = {
    "MHIST_TUNE_STORAGE": "postgresql://h/d",
    "MHIST_TUNE_DATA": "/d",
    "MHIST_TUNE_CHECKPOINTS": "/c",
    "SLURM_JOB_ID": "12",
    "SLURM_ARRAY_JOB_ID": "9",
    "SLURM_ARRAY_TASK_ID": "3",
}


@pytest.mark.parametrize(
    ("code", "n_restarts", "is_requeued"),
    [(0, "0", False), (1, "0", False), (143, "99", True), (4, "0", True), (4, "9", True), (4, "10", False)],
)
def test_a_stopped_task_queues_up_again(tmp_path: Path, code: int, n_restarts: str, is_requeued: bool) -> None:
    """A task that was stopped to save is queued again, and one that found no database up to ten times."""
    more = "scontrol requeue 9_3\n" if is_requeued else ""
    said = sbatch(tmp_path, code, "vit", **SET, SLURM_RESTART_COUNT=n_restarts)
    assert said[:2] == (code, f"srun mhist-tune worker vit\n{more}")


@pytest.mark.parametrize("missing", ["study", "MHIST_TUNE_STORAGE", "MHIST_TUNE_DATA", "MHIST_TUNE_CHECKPOINTS"])
def test_what_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    """Without study, storage, data or place for checkpoints nothing starts, and the message names the missing one."""
    arguments = () if missing == "study" else ("vit",)
    code, said, errors = sbatch(
        tmp_path, 0, *arguments, **{name: value for name, value in SET.items() if name != missing}
    )
    assert code != 0
    assert said == ""
    assert missing in errors.lower() or missing in errors
