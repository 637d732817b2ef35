"""The Compose stack, run for real: `make compose-test`. Needs Docker, Compose v2, some GB of disk and port 8080.

Brings the stack up from nothing under a project name of its own, searches study `demo` with two workers over
PostgreSQL, kills a worker's container and the database in between, checks the exact budget, the ten seeds and the
report, and takes everything down again, volumes included. Where something is wrong it prints the logs and fails.

Usage: python tests/support/compose_stack.py [--build]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMPOSE = ("docker", "compose", "--project-name", "mhist-tune-test", "--file", str(ROOT / "docker-compose.yml"))
N_TRIALS = 8
N_SEEDS = 10
BEGAN = time.monotonic()


def say(text: str) -> None:
    """Print a line with the seconds since the start."""
    print(f"[{time.monotonic() - BEGAN:4.0f} s] {text}", flush=True)


def compose(*arguments: str) -> str:
    """Run docker compose and return what it printed to stdout; a failure raises CalledProcessError."""
    return subprocess.run([*COMPOSE, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def tune(*arguments: str) -> str:
    """Run mhist-tune in a container of its own, which the scenario never kills."""
    return compose("run", "--rm", "--no-deps", "--no-TTY", "worker", *arguments)


def wait_for(what: str, is_so: Callable[[], bool], *, seconds: float) -> None:
    """Check every two seconds until `is_so` returns True. Raise TimeoutError after `seconds`."""
    say(f"waiting: {what}")
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not so after {seconds:.0f} s")
        time.sleep(2)


def status() -> dict[str, Any]:
    """Return the study's status."""
    document = json.loads(tune("status", "demo", "--json"))
    assert isinstance(document, dict)
    return document


def trainers() -> set[str]:
    """Return the names of the workers' containers that have reported an epoch."""
    lines = compose("logs", "--no-color", "worker").splitlines()
    return {line.split("|")[0].strip() for line in lines if "event=epoch" in line}


def containers(service: str) -> list[str]:
    """Return the ids of a service's running containers."""
    return compose("ps", "--quiet", "--status", "running", service).split()


def is_healthy() -> bool:
    """Return whether the dashboard answers."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:8080/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def scenario(*, build: bool) -> None:
    """Run a search with kills of a worker and of the database, and check its records."""
    compose("up", "--detach", "--wait", "--scale", "worker=2", *(["--build"] if build else []))
    say("up: database, schema, two workers, dashboard")
    wait_for("the dashboard answers", is_healthy, seconds=60)
    compose("exec", "--no-TTY", "worker", "mhist-tune", "create-study", "demo", "--n-trials", str(N_TRIALS))

    wait_for("two workers train", lambda: len(trainers()) == 2, seconds=120)
    victim = containers("worker")[0]
    subprocess.run(["docker", "kill", victim], check=True, stdout=subprocess.DEVNULL)
    say(f"killed the worker container {victim[:12]}")
    compose("up", "--detach", "--no-recreate", "--scale", "worker=2", "worker")
    wait_for("two workers again", lambda: len(containers("worker")) == 2, seconds=60)

    compose("kill", "db")
    say("killed the database")
    time.sleep(3)  # the outage
    compose("up", "--detach", "--wait", "--no-recreate", "db")
    wait_for("the dashboard answers again", is_healthy, seconds=60)
    wait_for("the finalists are confirmed", lambda: bool((status()["best"] or {}).get("confirm")), seconds=600)

    tune("retrain", "demo")
    report = json.loads(tune("report", "demo", "--json"))
    trials, slots = status()["trials"], status()["stages"]["search"]
    assert slots == {"done": N_TRIALS}, slots
    assert trials["COMPLETE"] + trials["PRUNED"] == N_TRIALS, trials
    assert report["n_seeds"] == N_SEEDS, report["n_seeds"]
    say(
        f"trials {trials}, test AUROC {report['metrics']['auroc']['mean']:.3f} over {N_SEEDS} seeds of generated images"
    )


def main() -> int:
    """Run the scenario on generated images and take the stack down, whatever happened."""
    with tempfile.TemporaryDirectory(prefix="mhist-tune-compose-") as folder:
        data = Path(folder) / "data"
        synthesize = ("data", "synthesize", str(data), "--n-images", "160", "--image-size", "64")
        subprocess.run([sys.executable, "-m", "mhist_tune", *synthesize], check=True, stdout=subprocess.DEVNULL)
        Path(folder).chmod(0o755)  # the containers' user is another one
        os.environ["MHIST_TUNE_DATA_DIR"] = str(data)
        compose("down", "--volumes", "--remove-orphans")
        try:
            scenario(build="--build" in sys.argv[1:])
        except BaseException:
            subprocess.run([*COMPOSE, "logs", "--no-color", "--tail", "60"], check=False)
            raise
        finally:
            compose("down", "--volumes", "--remove-orphans")
    say("passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
