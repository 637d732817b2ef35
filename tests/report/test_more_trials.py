"""The advice on more trials in `status`, and when there is none."""

import json

import numpy as np

from mhist_tune.definition import study_file
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.epochs import record_epoch
from mhist_tune.storage.leases import LeaseObserver
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.stages import Stage
from tests.conftest import Run

LABELS = np.arange(60) % 3 == 0


def searched(storage: Storage, name: str, n_complete: int, n_pruned: int) -> None:
    """Store a search by mean F1 whose complete trials predict sixty images the better, the higher their value."""
    text = f'[study]\nname = "{name}"\nn_trials = 40\nscore = "mean_f1"\nat = "last"\n[space]\n'
    images = [[f"{n}.png", int(label), 7 * int(label), None] for n, label in enumerate(LABELS)]
    study = studies.create_study(
        storage,
        study_file.parse(f"{text}learning_rate = {{ low = 1e-5, high = 1e-1, log = true }}\n", "test"),
        dataset={"fingerprint": "f"},
        image_sets={"train": images, "val": images},
    )
    rng = np.random.default_rng(0)
    for number in range(n_complete + n_pruned):
        claim = ledger.claim(storage, study, [Stage.SEARCH], worker="w", observer=LeaseObserver())
        assert claim is not None
        logits = 2 * (2 * LABELS - 1) * rng.uniform(0.2, 1) + rng.normal(size=60)
        value, is_complete = 0.6 + 0.05 * float(rng.normal()), number < n_complete
        predictions = (1 / (1 + np.exp(-logits))).tolist()
        record_epoch(storage, claim, epoch=1, score=value, value=value, metrics={}, predictions=predictions)
        ledger.attach_trial(storage, claim, number, number)
        state = EndState.COMPLETE if is_complete else EndState.PRUNED
        outcome = Outcome(state=state, value=value, best_epoch=1, params={"learning_rate": 1e-3}, stopped_epoch=1)
        ledger.decide(storage, claim, outcome)
        ledger.finish(storage, claim)


def test_status_says_what_twenty_more_trials_may_bring(run: Run, storage_url_sqlite: str) -> None:
    """One sentence and the same numbers as JSON. Pruned trials are counted. With few trials JSON has the reason."""
    with open_storage(storage_url_sqlite) as storage:
        searched(storage, "long", 12, 13)
        searched(storage, "short", 5, 3)
    documents = {name: json.loads(run("status", name, "--json")[1])["more_trials"] for name in ("long", "short")}
    text = {name: run("status", name)[1] for name in ("long", "short")}

    found = documents["long"]
    low, high = found["ci90"]
    assert (found["n_more"], found["n_ended"], found["n_complete"], found["missing"]) == (20, 25, 12, None)
    assert low <= found["expected_gain"] <= high
    assert (
        f"20 more trials are expected to raise the true mean F1 of the choice by {found['expected_gain']:.3f} "
        f"(90%: {low:.3f} to {high:.3f}); this validation split cannot tell differences below "
        f"{found['visible_on_split']:.3f} apart (from 12 complete trials; 13 others count as worse)"
    ) in text["long"]
    assert documents["short"]["missing"] == "8 trials have ended, 5 of them complete; 20 and 4 are needed"
    assert documents["short"]["expected_gain"] is None
    assert "more trials" not in text["short"]
