"""The keys of every JSON document that a command prints for users: programs read them, so they stay.

`json_keys.json` holds the tree of keys of each document. A key that is added is added there too; none may go.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from mhist_tune.definition import study_file
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.epochs import record_epoch
from mhist_tune.storage.heartbeats import heartbeat
from mhist_tune.storage.leases import LeaseObserver, renew
from mhist_tune.storage.outcome import EndState, Outcome
from tests.conftest import IMAGE_SETS, Run
from tests.report import test_gain
from tests.support import made_up

TABLE = """
[study]
name = "table"
n_seeds = 2

[[row]]
label = "plain"
augmentation = "none"
reported = { best_epoch = 5, val_f1 = 0.593 }
"""
UNDER_WAY = (
    '[study]\nname = "under-way"\nn_trials = 4\n[space]\nlearning_rate = { low = 1e-5, high = 1e-1, log = true }\n'
)
FROZEN = json.loads((Path(__file__).parent / "json_keys.json").read_text(encoding="utf-8"))
COMMANDS = {
    "report, confirmed": ("report", "small"),
    "report, with a search": ("report", "one"),
    "report, against": ("report", "table", "--against", "method-report"),
    "compare": ("compare", "one", "other"),
    "ensemble": ("ensemble", "one", "other"),
    "status": ("status", "under-way"),
    "status, confirmed": ("status", "small"),
    "best-trial": ("best-trial", "under-way"),
    "best-trial, confirmed": ("best-trial", "small"),
    "best-trial, table": ("best-trial", "table"),
    "studies": ("studies",),
    "openings": ("openings",),
}


def keys(document: Any) -> Any:
    """Return the tree of keys: of a list that of all its entries together, of anything without keys None."""
    if isinstance(document, dict):
        return {name: keys(value) for name, value in document.items()} or None
    if isinstance(document, list):
        trees = [tree for tree in map(keys, document) if tree is not None]
        return {name: value for tree in trees for name, value in tree.items()} or None
    return None


def searched_study(storage: Storage, name: str, noise: float) -> None:
    """Store a study whose only search trial was retrained with six seeds."""
    study = made_up.create(storage, name)
    train(storage, study, params={"learning_rate": 1e-3}, predictions=[0.1, 0.2, 0.3, 0.6, 0.4, 0.7, 0.8, 0.9])
    made_up.open_test(storage, study, trial=0, seeds=range(6))
    made_up.retrain(storage, study, n_slots=6, noise=noise)


def train(storage: Storage, study: studies.Study, params: dict[str, Any], predictions: list[float]) -> None:
    """Finish the next search slot as a complete trial of one epoch."""
    claim = ledger.claim(storage, study, ["search"], worker="w", observer=LeaseObserver())
    assert claim is not None
    metrics = {"train_loss": 0.6, "val_loss": 0.5, "val_f1": 0.8, "elapsed_s": 3.0}
    record_epoch(storage, claim, epoch=1, score=0.8, value=0.8, metrics=metrics, predictions=predictions)
    ledger.attach_trial(storage, claim, 100 + claim.slot, claim.slot)
    end = {"value": 0.8, "best_epoch": 1, "stopped_epoch": 1, "standard_error": 0.03}
    ledger.decide(storage, claim, Outcome(state=EndState.COMPLETE, params=params, **end))
    assert ledger.finish(storage, claim)


@pytest.fixture
def printed(storage_url_sqlite: str, run: Run) -> dict[str, Any]:
    """What every command prints with --json, of studies in every stage."""
    with open_storage(storage_url_sqlite) as storage:
        test_gain.open_test(storage, test_gain.confirmed_study(storage), trial=1, default=0)
        searched_study(storage, "one", 0.3)
        searched_study(storage, "other", 0.6)
        images = {"train": IMAGE_SETS["train"], "val": IMAGE_SETS["val"]}
        made = {
            text: studies.create_study(
                storage, study_file.parse(text, "test"), dataset={"fingerprint": "f"}, image_sets=images
            )
            for text in (TABLE, UNDER_WAY)
        }
        train(storage, made[TABLE], params={"augmentation": "none"}, predictions=[0.1, 0.7, 0.2])
        train(storage, made[UNDER_WAY], params={"learning_rate": 1e-3}, predictions=[0.1, 0.7, 0.2])
        claim = ledger.claim(storage, made[UNDER_WAY], ["search"], worker="host-1-abc", observer=LeaseObserver())
        gone = ledger.claim(storage, made[UNDER_WAY], ["search"], worker="gone-1-abc", observer=LeaseObserver())
        assert claim is not None
        assert gone is not None
        assert renew(storage, gone, -1.0)
        progress = {"stage": "search", "slot": claim.slot, "epoch": 1, "images_per_s": 321.0, "memory_bytes": 10**9}
        beat = heartbeat(storage, "host-1-abc", study=made[UNDER_WAY].uuid, device="cpu", state="training", **progress)
        storage.transaction(lambda connection: connection.execute(beat))
    found = {}
    for title, command in COMMANDS.items():
        code, out, err = run(*command, "--json")
        assert code == 0, err
        found[title] = json.loads(out)
    return found


def test_every_json_document_keeps_its_keys(printed: dict[str, Any]) -> None:
    """The tree of keys of each document, their order included, is the frozen one."""
    for title, document in printed.items():
        assert json.dumps(keys(document), indent=1) == json.dumps(FROZEN[title], indent=1), title


def test_json_is_strict_and_what_is_written_is_what_is_printed(printed: dict[str, Any], tmp_path: Path) -> None:
    """The file beside a report holds the printed document, and neither has a number that JSON does not know."""
    written = tmp_path / "storage" / "reports" / "small" / "report.json"
    assert json.loads(written.read_text(encoding="utf-8")) == printed["report, confirmed"]
    for document in printed.values():
        json.dumps(document, allow_nan=False)
