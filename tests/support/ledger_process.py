"""Processes for the tests of the storage: `python ledger_process.py VERB URL [ARGUMENTS]`.

Each prints `{"event": "ready"}`, waits for a line on its input so that several start at once, and prints what it does
as JSON lines.
"""

import json
import os
import random
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import sqlalchemy

from mhist_tune.definition import study_file
from mhist_tune.search.pruning import rungs
from mhist_tune.search.rungs import RungBook
from mhist_tune.storage import ledger, revisions, studies, tables
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.decision import Verdict
from mhist_tune.storage.epochs import epochs_of, record_epoch
from mhist_tune.storage.leases import Claim, LeaseKeeper, LeaseObserver, StaleTokenError
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.stages import OPEN
from mhist_tune.storage.studies import Study

N_EPOCHS = 4
N_CLIMBED = 9
EPOCH_S = 0.01
POLL_S = 0.05


def say(event: str, **fields: Any) -> None:
    """Print one JSON line and flush it."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def open_tables(*urls: str) -> None:
    """Open one storage after the other, which makes the tables; wait for the others before each."""
    for index, url in enumerate(urls):
        if index:
            say("ready")
            sys.stdin.readline()
        open_storage(url).close()


def upgrade(url: str, folder: str, version: str) -> None:
    """Open a storage as a process of another version, whose revisions are in `folder`."""
    revisions.MIGRATIONS, tables.SCHEMA_VERSION = Path(folder), int(version)
    open_storage(url).close()


def create(url: str, path: str, image_sets: str, kill_before: str) -> None:
    """Create a study, and be killed before the first statement that contains `kill_before`."""

    def watch(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if kill_before in statement:
            os.kill(os.getpid(), signal.SIGKILL)

    with open_storage(url) as storage:
        sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", watch)
        definition = study_file.parse(Path(path).read_text(), "test")
        studies.create_study(storage, definition, dataset={"fingerprint": "f"}, image_sets=json.loads(image_sets))


def claim_all(url: str, name: str) -> None:
    """Claim slots until none is free, and print each."""
    with open_storage(url) as storage:
        study, observer = studies.load_study(storage, name), LeaseObserver()
        while claim := ledger.claim(storage, study, ["search"], worker=str(os.getpid()), observer=observer):
            say("claimed", slot=claim.slot)


def work(url: str, name: str) -> None:
    """Work as a worker does until no slot is left, and print each recorded epoch."""
    with open_storage(url) as storage:
        study, observer = studies.load_study(storage, name), LeaseObserver()
        while _is_pending(storage, study):
            claim = ledger.claim(storage, study, ["search"], worker=str(os.getpid()), observer=observer)
            if claim is None:
                threading.Event().wait(POLL_S)
                continue
            try:
                with LeaseKeeper(storage, claim, study.definition.lease_s):
                    _run(storage, study, claim)
            except StaleTokenError:
                say("lost", slot=claim.slot)


def _run(storage: Storage, study: Study, claim: Claim) -> None:
    trial_id = claim.trial_id or 1000 + claim.slot
    if not ledger.attach_trial(storage, claim, trial_id, claim.slot):
        raise StaleTokenError(claim)
    n_done = len(epochs_of(storage, study, "search", claim.slot))
    for epoch in range(n_done + 1, N_EPOCHS + 1):
        threading.Event().wait(EPOCH_S)  # an epoch takes a while, so that several are under way
        value = claim.slot + epoch / 10
        probabilities = [0.1 * epoch] * 3
        recorded = record_epoch(
            storage, claim, epoch=epoch, score=value, value=value, metrics={}, predictions=probabilities
        )
        if recorded.is_new:
            say("epoch", slot=claim.slot, epoch=epoch, token=claim.token)
    value = claim.slot + N_EPOCHS / 10
    ledger.decide(storage, claim, Outcome(state=EndState.COMPLETE, value=value))
    ledger.finish(storage, claim)


def climb(url: str, name: str, folder: str) -> None:
    """Work on a search that waits at rungs, with made-up curves; a checkpoint is a file with the last epoch."""
    with open_storage(url) as storage:
        study, observer = studies.load_study(storage, name), LeaseObserver()
        book = RungBook(storage, study, "search")
        while _is_pending(storage, study):
            claim = ledger.claim(storage, study, ["search"], worker=str(os.getpid()), observer=observer)
            if claim is None:
                book.close()
                threading.Event().wait(POLL_S)
                continue
            try:
                with LeaseKeeper(storage, claim, study.definition.lease_s):
                    _climb(storage, study, book, claim, Path(folder) / str(claim.slot))
            except StaleTokenError:
                say("lost", slot=claim.slot)


def score(slot: int, epoch: int) -> float:
    """Return a made-up score in [0, 1): curves cross, and each slot has its own."""
    return random.Random(f"{slot}").random() * 0.7 + random.Random(f"{slot} {epoch}").random() * 0.3


def _climb(storage: Storage, study: Study, book: RungBook, claim: Claim, checkpoint: Path) -> None:
    outcome = claim.outcome or Outcome(state=EndState.COMPLETE)
    pruned = Outcome(state=EndState.PRUNED)
    n_saved = int(checkpoint.read_text()) if checkpoint.exists() else 0
    ledger.attach_trial(storage, claim, 1000 + claim.slot, claim.slot)
    for epoch in range(1, (0 if claim.outcome else N_CLIMBED) + 1):
        value, best = score(claim.slot, epoch), max(score(claim.slot, earlier) for earlier in range(1, epoch + 1))
        if epoch > n_saved:
            threading.Event().wait(EPOCH_S)
            partial = checkpoint.with_suffix(f".{claim.token}")
            partial.write_text(str(epoch))
            partial.replace(checkpoint)
            say("saved", slot=claim.slot, epoch=epoch)
        record_epoch(storage, claim, epoch=epoch, score=value, value=best, metrics={})
        if epoch in rungs(study.definition.pruner, N_CLIMBED):
            decision = book.arrive(claim, epoch=epoch, value=best, if_not_promoted=pruned)
            if decision.verdict is Verdict.WAIT:
                return
            if decision.verdict is Verdict.PRUNE:
                outcome = pruned
                break
    if not ledger.decide(storage, claim, outcome):
        raise StaleTokenError(claim)
    checkpoint.unlink(missing_ok=True)
    ledger.finish(storage, claim)


def _is_pending(storage: Storage, study: Study) -> bool:
    counts = ledger.counts(storage, study, "search")
    return any(counts.get(state, 0) for state in OPEN)


if __name__ == "__main__":
    verbs = {"open": open_tables, "upgrade": upgrade, "create": create, "claim": claim_all, "work": work}
    verb = {**verbs, "climb": climb}[sys.argv[1]]
    say("ready")
    sys.stdin.readline()
    verb(*sys.argv[2:])
    say("end")
