"""A study with made-up finished trials, as a long search leaves it."""

import random
import time

import sqlalchemy

from mhist_tune import tables
from mhist_tune.storage import Storage
from mhist_tune.studies import Study

N_EPOCHS = 30


def make_up(storage: Storage, study: Study, n_trials: int) -> None:
    """Finish the first slots, each a trial of N_EPOCHS epochs over learning_rate and drop_rate."""
    rng, now = random.Random(0), time.time()
    epochs, ended = [], []
    for slot in range(n_trials):
        best, rate = 0.0, 10 ** rng.uniform(-5, -2)
        for epoch in range(1, N_EPOCHS + 1):
            value = 0.8 - 0.3 / epoch + rng.gauss(0, 0.01)
            best = max(best, value)
            metrics = {"train_loss": 1 / epoch, "val_loss": 0.5 + 1 / epoch, "val_f1": value, "val_auroc": value}
            metrics |= {"learning_rate": rate, "elapsed_s": 10.0, "images_per_s": 200.0}
            row = {"study": study.uuid, "stage": "search", "slot": slot, "epoch": epoch, "token": 1}
            epochs.append({**row, "value": value, "best_value": best, "metrics": metrics, "recorded_at": now})
        outcome = {"state": "COMPLETE", "value": best, "best_value": best, "best_epoch": 20, "stopped_epoch": N_EPOCHS}
        outcome["params"] = {"learning_rate": rate, "drop_rate": 0.2}
        ended.append({"place": slot, "number": slot, "result": outcome})
    slots = tables.slots
    update = sqlalchemy.update(slots).where(
        slots.c.study == study.uuid, slots.c.stage == "search", slots.c.slot == sqlalchemy.bindparam("place")
    )
    update = update.values(
        state="done",
        token=1,
        attempts=1,
        trial_number=sqlalchemy.bindparam("number"),
        outcome=sqlalchemy.bindparam("result", type_=tables.Json),
    )
    with storage.engine.begin() as connection:
        connection.execute(sqlalchemy.insert(tables.epochs), epochs)
        connection.execute(update, ended)
