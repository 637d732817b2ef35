"""Writes the storage that tests open as one of the first release: studies of every stage, made by that release itself.

    git worktree add --detach ../first-release 2d4b420
    python tools/make_old_databases.py ../first-release tests/first_release/first-release.tar.xz

The archive holds the images, the SQLite file and the checkpoints of three studies:

- `waiting`, a search with the pruner `promotion` whose only worker was killed: trials that are complete, pruned,
  waiting at a rung, held by the killed worker, and slots that nobody has begun;
- `finished`, a search with its confirmation and a retraining of three seeds;
- `table`, chosen rows with two seeds, one of them retrained.
"""

import io
import os
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FIXED = """
[fixed]
model = "fcnn"
weights = "random"
image_size = 8
epochs = 4
precision = "fp32"
memory_format = "contiguous"
augmentation = "flip"
freeze = "all_but_head"
micro_batch_size = 8
effective_batch_size = 8
"""
SPACE = """
[space]
learning_rate = { low = 1e-3, high = 1.0, log = true }
sampling = { choices = ["none", "random_over"] }

[[start]]
learning_rate = 1e-2
sampling = "none"
"""
WAITING = f"""
[study]
name = "waiting"
n_trials = 9
smoothing = 2
sampler = {{ name = "tpe", seed = 1, n_startup_trials = 3 }}
pruner = {{ name = "promotion", min_resource = 1, reduction_factor = 2 }}
lease_s = 1.0
{FIXED}{SPACE}"""
FINISHED = f"""
[study]
name = "finished"
n_trials = 4
sampler = {{ name = "random", seed = 3 }}
pruner = {{ name = "median", n_startup_trials = 2, n_warmup_epochs = 1 }}
{FIXED}{SPACE}
[confirm]
top = 1
n_folds = 2
"""
TABLE = f"""
[study]
name = "table"
n_seeds = 2
{FIXED}
[[row]]
label = "all"
learning_rate = 3e-2
exclude_votes = []

[[row]]
label = "clear"
learning_rate = 1e-1
exclude_votes = [3, 4]
"""
KILLED_AT = ("mhist_tune.records:record_epoch", 15)
RUN = """
import socket, sys
socket.gethostname = lambda: "first-release"
from mhist_tune.cli import main
from tests.support.killed_worker import _kill_in
if len(sys.argv[1]):
    place, _, n = sys.argv[1].rpartition("@")
    _kill_in(place, int(n))
main(sys.argv[2:])
"""


def main(checkout: Path, archive: Path) -> None:
    """Run the first release, and pack what it wrote."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def run(*arguments: str, killed_at: tuple[str, int] | None = None) -> None:
            environment = {
                **os.environ,
                "PYTHONPATH": str(checkout.resolve()),
                "OMP_NUM_THREADS": "1",
                "LOGNAME": "somebody",
            }
            place = "@".join(map(str, killed_at)) if killed_at else ""
            done = subprocess.run(
                [sys.executable, "-c", RUN, place, *arguments], env=environment, cwd=folder, check=False
            )
            expected = -9 if killed_at else 0
            if done.returncode != expected:
                raise SystemExit(f"{arguments} ended with {done.returncode}")

        data, work = ("--data", "images"), ("--devices", "cpu", "--per-device", "1")
        run("data", "synthesize", "images", "--n-images", "48", "--image-size", "32", "--seed", "0")
        for study, text in (("waiting", WAITING), ("finished", FINISHED), ("table", TABLE)):
            (folder / f"{study}.toml").write_text(text)
            run("create-study", f"{study}.toml", *data)
        run("worker", "waiting", *work, *data, killed_at=KILLED_AT)
        run("worker", "finished", *work, *data)
        run("retrain", "finished", "--n-seeds", "3", *work, *data)
        run("worker", "table", *work, *data)
        run("retrain", "table", "--trial", "0", "--n-seeds", "2", *work, *data)
        _pack(folder, archive)


def _pack(folder: Path, archive: Path) -> None:
    database = folder / "storage" / "mhist-tune.db"
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("VACUUM")
        rows = connection.execute(
            "SELECT stage, slot FROM mhist_slots JOIN mhist_studies ON uuid = study "
            "WHERE name = 'waiting' AND mhist_slots.state <> 'done' AND trial_id IS NOT NULL"
        ).fetchall()
    connection.close()
    kept = [database]
    for stage, slot in rows:  # the newest checkpoint of each trial that goes on
        kept.append(max((folder / "storage" / "checkpoints").glob(f"waiting-*/{stage}-{slot:05}/*.safetensors")))
    kept += [folder / "images" / "annotations.csv", *sorted((folder / "images" / "images").iterdir())]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as packed:
        for path in kept:
            packed.add(path, path.relative_to(folder), filter=_anonymous)
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.write_bytes(buffer.getvalue())


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
