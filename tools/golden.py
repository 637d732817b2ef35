"""Runs small studies of every stage through the command line and writes what they computed, as canonical JSON.

    python tools/golden.py --code ../first-release tests/first_release/golden.json     what that code computes
    python tools/golden.py /tmp/now.json && diff tests/first_release/golden.json /tmp/now.json

Two versions that compute the same write the same bytes on the same processor, with the same torch: params, decisions,
scores, losses, outcomes, the hashes of stored probabilities and of weights, and the reports' metrics. The search that
the first release left unfinished (`make_old_databases.py`) is resumed as well. Columns and JSON keys may have other
names in another version; `NAMES` says which. Texts and times are left out.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FIXED = """
[fixed]
weights = "random"
image_size = 32
precision = "fp32"
memory_format = "contiguous"
micro_batch_size = 8
"""
PROMOTED = f"""
[study]
name = "promoted"
n_trials = 8
smoothing = 2
sampler = {{ name = "tpe", seed = 1, n_startup_trials = 3 }}
pruner = {{ name = "promotion", min_resource = 1, reduction_factor = 2 }}
{FIXED}
model = "test_vit"
epochs = 5
augmentation = "flip_rotate"

[space]
learning_rate = {{ low = 1e-4, high = 1e-2, log = true }}
effective_batch_size = {{ choices = [8, 16] }}
dropout_placement = {{ choices = ["none", "head", "head+last1"] }}
weight_decay = {{ low = 1e-3, high = 1.0, log = true }}
sampling = {{ choices = ["none", "random_over", "smote"] }}

[confirm]
top = 1
n_folds = 2

[[start]]
learning_rate = 1e-3
effective_batch_size = 8
dropout_placement = "head"
weight_decay = 1e-2
sampling = "random_over"
"""
HALVED = f"""
[study]
name = "halved"
n_trials = 9
sampler = {{ name = "tpe", seed = 0, n_startup_trials = 2 }}
pruner = {{ name = "hyperband", min_resource = 1, reduction_factor = 2 }}
{FIXED}
model = "test_resnet"
epochs = 4
augmentation = "flip"

[space]
learning_rate = {{ low = 3e-3, high = 1e-1, log = true }}
drop_rate = {{ low = 0.1, high = 0.6 }}
optimizer = {{ choices = ["adamw", "sgd"] }}
"""
MEDIAN = f"""
[study]
name = "median"
n_trials = 8
sampler = {{ name = "random", seed = 3 }}
pruner = {{ name = "median", n_startup_trials = 3, n_warmup_epochs = 1 }}
{FIXED}
model = "fcnn"
sampling = "random_over"
epochs = 4
augmentation = "flip"

[space]
learning_rate = {{ low = 1e-3, high = 1e-1, log = true }}
"""
TABLE = f"""
[study]
name = "table"
n_seeds = 2
{FIXED}
model = "test_resnet"
epochs = 2

[[row]]
label = "all"
learning_rate = 1e-3
exclude_votes = []

[[row]]
label = "clear"
learning_rate = 1e-2
exclude_votes = [3, 4]
"""
STUDIES = {"promoted": PROMOTED, "halved": HALVED, "median": MEDIAN, "table": TABLE}
DATA = ("data", "synthesize", "images", "--n-images", "60", "--image-size", "32", "--seed", "0")
WORK = ("--devices", "cpu", "--per-device", "1", "--data", "images")
NAMES = {
    "n_rivals": "n_competitors",
    "search_value": "value",
}
"""Keys of the first release by what they are called later."""
REPORTED = ("metrics", "by_votes", "trial", "seeds")
DEFINED_ANEW = ("human_error_rate", "ci95")
"""Numbers of a report that have another definition since: a pathologist is compared with the other six, intervals of
grouped images come from a jackknife, and intervals near 0 or 1 are Wilson's."""
ARCHIVE = Path(__file__).parents[1] / "tests" / "first_release" / "first-release.tar.xz"
NOT_COMPARED = (
    "elapsed_s",
    "images_per_s",
    "peak_memory_bytes",
    "val_mean_f1",  # later than the first release
    "val_mean_f1_standard_error",
    "val_auroc_standard_error",
)


def main() -> None:
    """Run the studies in a folder of their own and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", type=Path, default=Path(__file__).parents[1], help="the checkout that runs")
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        document = {**machine(), **compute(options.code.resolve(), Path(folder))}
    options.output.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def machine() -> dict[str, str]:
    """Return what the last bits of a sum depend on."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().split("\n\n")[0].splitlines() if info.exists() else []
    facts = dict(line.split("\t:", 1) for line in lines if "\t:" in line)
    named = {name.strip(): value.strip() for name, value in facts.items()}
    keys = ("model name", "cpu family", "model", "stepping")
    processor = " ".join([platform.machine(), *(named[key] for key in keys if key in named)])
    return {"processor": f"{processor} {torch.backends.cpu.get_cpu_capability()}", "torch": torch.__version__}


def compute(code: Path, folder: Path) -> dict[str, Any]:
    """Run all studies with the package at `code` in an empty folder, and return what they computed."""

    def run(*arguments: str) -> str:
        return run_command(code, folder, *arguments)

    run(*DATA)
    for name, text in STUDIES.items():
        (folder / f"{name}.toml").write_text(text)
        run("create-study", f"{name}.toml", "--data", "images")
        run("worker", name, *WORK)
    reports = {}
    # The trial is named: two finalists have the same confirmed F1, and which of them is chosen is defined anew since.
    retrained = {
        "promoted": ("--trial", "2"),
        "table": ("--trial", "0", "--again", "a table of the same images"),
    }
    for name, more in retrained.items():
        run("retrain", name, "--n-seeds", "2", *more, *WORK)
        report = json.loads(run("report", name, "--json"))
        reports[name] = {key: report[key] for key in REPORTED}
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(folder / "old", filter="data")
    old = folder / "old"
    connection = sqlite3.connect(old / "storage" / "mhist-tune.db")
    with connection:  # as an upgrade of the tables does; otherwise it depends on the time which slot is claimed next
        connection.execute(
            "UPDATE mhist_slots SET state = 'free', token = token + 1, expires_at = NULL WHERE state = 'leased'"
        )
    connection.close()
    run_command(code, old, "worker", "waiting", *WORK)
    for name in ("finished", "table"):
        report = json.loads(run_command(code, old, "report", name, "--json"))
        reports[f"old {name}"] = {key: report[key] for key in REPORTED}
    return {
        "studies": canonical(folder / "storage"),
        "resumed": canonical(old / "storage")["waiting"],
        "reports": reports,
    }


def run_command(code: Path, folder: Path, *arguments: str) -> str:
    """Run one command with one thread on one core, and return what it printed."""
    core = min(os.sched_getaffinity(0))
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mhist_tune", *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if done.returncode:
        raise SystemExit(f"{arguments} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def canonical(storage: Path) -> dict[str, Any]:
    """Return what the studies of a storage folder computed, whichever version wrote it."""
    connection = sqlite3.connect(storage / "mhist-tune.db")
    connection.row_factory = sqlite3.Row
    try:
        studies = connection.execute("SELECT uuid, name FROM mhist_studies ORDER BY name").fetchall()
        return {study["name"]: _study(connection, study, storage) for study in studies}
    finally:
        connection.close()


def flat(document: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of a document by their paths, so that a difference is named."""
    if not isinstance(document, (dict, list)):
        return {path: document}
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    return {where: leaf for key, value in pairs for where, leaf in flat(value, f"{path}/{key}").items()}


def _study(connection: sqlite3.Connection, study: sqlite3.Row, storage: Path) -> dict[str, Any]:
    def rows(table: str, order: str) -> list[dict[str, Any]]:
        query = f"SELECT * FROM {table} WHERE study = ? ORDER BY {order}"
        return [dict(row) for row in connection.execute(query, (study["uuid"],))]

    events = rows("mhist_events", "id")
    return {
        "image_sets": {row["image_set"]: digest(row["rows"].encode()) for row in rows("mhist_image_sets", "image_set")},
        "slots": {_key(row): _slot(row) for row in rows("mhist_slots", "stage, slot")},
        "epochs": {f"{_key(row)} {row['epoch']:03}": _epoch(row) for row in rows("mhist_epochs", "stage, slot, epoch")},
        "probabilities": {
            f"{_key(row)} {row['image_set']}": [row["epoch"], digest(row["probabilities"])]
            for row in rows("mhist_predictions", "stage, slot, image_set")
        },
        "suggestions": {
            str(row["slot"]): json.loads(row["detail"])["params"] for row in events if row["kind"] == "suggestion"
        },
        "rungs": [[row["slot"], decision_of(row["detail"])] for row in events if row["kind"] == "rung"],
        "optuna": _optuna(connection, study["name"]),
        "weights": _weights(storage, study["uuid"]),
    }


def _key(row: Mapping[str, Any]) -> str:
    return f"{row['stage']} {row['slot']:03}"


def _slot(row: Mapping[str, Any]) -> dict[str, Any]:
    state = {"paused": "waiting"}.get(row["state"], row["state"])
    outcome, unless = _outcome(row["outcome"]), _outcome(row.get("if_not_promoted"))
    if "if_not_promoted" not in row and state == "waiting":  # one column for both, in the first release
        outcome, unless = None, outcome
    n_claims = row["attempts" if "attempts" in row else "n_claims"]
    kept = {"trial_number": row["trial_number"], "priority": row["priority"], "attempts": n_claims}
    payload = {name: value for name, value in _named(row["payload"]).items() if value is not None}
    return {**kept, "state": state, "payload": payload, "outcome": outcome, "if_not_promoted": unless}


def _outcome(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    record = _named(text)
    if "best_value" in record:
        record["best_score"] = record.pop("best_value")
    if record["state"] == "PRUNED":
        # the first release had scores under the name of values here, and the other way round; both are in the epochs
        record.pop("value", None)
        record.pop("best_score", None)
    for name in ("reason", "decision", "is_trivial"):  # the last is later than the first release
        record.pop(name, None)
    return {name: value for name, value in record.items() if value is not None}


def _epoch(row: Mapping[str, Any]) -> dict[str, Any]:
    metrics = {name: value for name, value in json.loads(row["metrics"]).items() if name not in NOT_COMPARED}
    is_first = "best_value" in row
    score, value = ("value", "best_value") if is_first else ("score", "value")
    return {"score": row[score], "value": row[value], "metrics": metrics, "decision": decision_of(row["decision"])}


def decision_of(text: str | None) -> dict[str, Any] | None:
    """Return a stored decision under today's names, without its words."""
    if text is None:
        return None
    record = _named(text)
    if "prune" in record:
        record["verdict"] = "prune" if record["prune"] else "wait" if record["pause"] else "go on"
    names = ("verdict", "epoch", "value", "threshold", "n_competitors", "audited")
    return {name: record.get(name) for name in names}


def _named(text: str) -> dict[str, Any]:
    return {NAMES.get(name, name): value for name, value in json.loads(text).items()}


def _optuna(connection: sqlite3.Connection, study: str) -> dict[str, Any]:
    trials = connection.execute(
        "SELECT study_name, trial_id, number, state, value FROM trials JOIN studies USING (study_id) "
        "LEFT JOIN trial_values USING (trial_id) WHERE study_name = ? OR study_name LIKE ? ORDER BY 1, 3",
        (study, f"{study}.%"),
    ).fetchall()
    found = {}
    for trial in trials:
        params = _pairs(connection, "param_name, param_value FROM trial_params", trial["trial_id"])
        curve = _pairs(connection, "step, intermediate_value FROM trial_intermediate_values", trial["trial_id"])
        # of a pruned trial Optuna's value depends on what the outcome calls its value
        value = trial["value"] if trial["state"] == "COMPLETE" else None
        found[f"{trial['study_name']} {trial['number']:03}"] = [trial["state"], value, params, curve]
    return found


def _pairs(connection: sqlite3.Connection, source: str, trial_id: int) -> dict[str, Any]:
    query = f"SELECT {source} WHERE trial_id = ? ORDER BY 1"
    return {str(name): value for name, value in connection.execute(query, (trial_id,))}


def _weights(storage: Path, uuid: str) -> dict[str, str]:
    """Return a hash of the tensors in each file of kept weights, and in the last checkpoint of each trial."""
    files = sorted(path for path in storage.rglob("*.safetensors") if uuid[:8] in str(path.relative_to(storage)))
    last = {path.parent if "checkpoints" in path.parts else path: path for path in files}
    hashes = {}
    for key, path in last.items():
        name = path.name if key == path else f"{key.name}/{path.name}"
        hashes[re.sub(r"\.token-\d+", "", name)] = _tensors(path)  # an upgrade of the tables raises tokens
    return hashes


def _tensors(path: Path) -> str:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    body = data[8 + length :]
    return digest(
        part for tensor in sorted(header) for part in (tensor.encode(), body[slice(*header[tensor]["data_offsets"])])
    )


def digest(parts: bytes | Iterable[bytes]) -> str:
    """Return the first digits of the SHA-256 of bytes."""
    whole = hashlib.sha256()
    for part in [parts] if isinstance(parts, bytes) else parts:
        whole.update(part)
    return whole.hexdigest()[:16]


if __name__ == "__main__":
    main()
