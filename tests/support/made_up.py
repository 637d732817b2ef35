"""Studies with made-up results in a real storage, with the records of a search and a retraining."""

import random
import time

import numpy as np
import sqlalchemy

from mhist_tune.definition.study_file import parse
from mhist_tune.storage import ledger, studies, tables
from mhist_tune.storage.epochs import record_epoch
from mhist_tune.storage.leases import LeaseObserver
from mhist_tune.storage.openings import record_opening, record_reading
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.payloads import RetrainPayload
from mhist_tune.storage.predictions import record_predictions, save_image_set

DEFINITION = """
[study]
name = "{name}"
n_trials = 1

[fixed]
model = "fcnn"
weights = "random"
image_size = 8

[space]
learning_rate = {{ low = 1e-4, high = 1e-2, log = true }}
"""
VOTES = np.arange(40) % 8
LABELS = (VOTES >= 4).astype(int)
EPOCHS = [
    {"train_loss": 0.7, "elapsed_s": 2.0, "images_per_s": 50.0, "peak_memory_bytes": 1000.0},
    {"train_loss": 0.6, "elapsed_s": 1.0, "images_per_s": 80.0, "peak_memory_bytes": 3000.0},
]


def create(storage, name="tiny"):
    """Store a study with one training and eight validation images."""
    train, val = [["train.png", 0, 1, None]], [[f"val{n}.png", int(n >= 4), n, None] for n in range(8)]
    return studies.create_study(
        storage,
        parse(DEFINITION.format(name=name), name),
        dataset={"fingerprint": "f" * 64, "test_rows_sha256": "d" * 64},
        image_sets={"train": train, "val": val},
    )


def search(storage, study, *, n_trials, n_epochs=30):
    """Finish the first search slots, written at once: a trial each, over learning_rate and drop_rate."""
    rng, now = random.Random(0), time.time()
    epochs, ended = [], []
    for slot in range(n_trials):
        best, rate = 0.0, 10 ** rng.uniform(-5, -2)
        for epoch in range(1, n_epochs + 1):
            value = 0.8 - 0.3 / epoch + rng.gauss(0, 0.01)
            best = max(best, value)
            metrics = {"train_loss": 1 / epoch, "val_loss": 0.5 + 1 / epoch, "val_f1": value, "val_auroc": value}
            metrics |= {"learning_rate": rate, "elapsed_s": 10.0, "images_per_s": 200.0}
            row = {"study": study.uuid, "stage": "search", "slot": slot, "epoch": epoch, "token": 1}
            epochs.append({**row, "score": value, "value": best, "metrics": metrics, "recorded_at": now})
        outcome = Outcome(
            state=EndState.COMPLETE,
            value=best,
            best_score=best,
            best_epoch=20,
            stopped_epoch=n_epochs,
            params={"learning_rate": rate, "drop_rate": 0.2},
        )
        ended.append({"place": slot, "number": slot, "result": outcome})
    slots = tables.slots
    update = sqlalchemy.update(slots).where(
        slots.c.study == study.uuid, slots.c.stage == "search", slots.c.slot == sqlalchemy.bindparam("place")
    )
    update = update.values(
        state="done",
        token=1,
        n_claims=1,
        trial_number=sqlalchemy.bindparam("number"),
        outcome=sqlalchemy.bindparam("result", type_=tables.Record(Outcome)),
    )
    with storage.engine.begin() as connection:
        connection.execute(sqlalchemy.insert(tables.epochs), epochs)
        connection.execute(update, ended)


def open_test(storage, study, *, trial=3, seeds=(0, 1, 2), reason="first opening", fingerprint="e" * 64, params=None):
    """Record an opening with one slot per seed, as retrain does."""
    slots = [
        RetrainPayload(
            trial=trial,
            params=params or {"learning_rate": 1e-3},
            seed=seed,
            stop_epoch=2,
            best_epoch=2,
            stopped_epoch=4,
            configured_epochs=9,
        )
        for seed in seeds
    ]
    opening = record_opening(
        storage,
        study,
        by="test",
        code_version="0.1.0",
        reason=lambda earlier: reason,
        payload={"trial": trial, "seeds": list(seeds)},
        test_rows="d" * 64,
    )
    record_reading(storage, study, opening.id, fingerprint=fingerprint, slots=slots)
    return opening.id


def retrain(storage, study, *, n_slots, groups=None, epochs=EPOCHS, votes=VOTES, noise=0.3):
    """Finish slots with made-up predictions, and return these, by seed."""
    rows = [
        [f"{index:02}.png", int(n_votes >= 4), int(n_votes), None if groups is None else groups[index]]
        for index, n_votes in enumerate(votes)
    ]
    save_image_set(storage, study, "test", rows)
    made_up = {}
    for _ in range(n_slots):
        claim = ledger.claim(storage, study, ["retrain"], worker="w", observer=LeaseObserver())
        for epoch, metrics in enumerate(epochs, start=1):
            record_epoch(storage, claim, epoch=epoch, score=0.5, value=None, metrics=metrics)
        rng = np.random.default_rng(claim.slot)
        probabilities = np.clip(np.asarray(votes) / 7 + noise * rng.normal(size=len(votes)), 0.01, 0.99)
        record_predictions(storage, claim, "test", probabilities)
        ledger.decide(storage, claim, Outcome(state=EndState.COMPLETE))
        assert ledger.finish(storage, claim)
        made_up[claim.payload.seed] = probabilities
    return made_up
