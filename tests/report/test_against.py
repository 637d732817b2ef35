"""A table beside its reported numbers: recomputed from stored probabilities, refused where there are none."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from mhist_tune.definition import study_file
from mhist_tune.errors import UsageError
from mhist_tune.report import against
from mhist_tune.storage import ledger, studies
from mhist_tune.storage.database import Storage, open_storage
from mhist_tune.storage.epochs import record_epoch
from mhist_tune.storage.leases import LeaseObserver
from mhist_tune.storage.outcome import EndState, Outcome

TABLE = """
[study]
name = "table"
n_seeds = 2

[[row]]
label = "plain"
augmentation = "none"
reported = { best_epoch = 5, val_f1 = 0.593, val_loss_sum = 6.2, test_auroc = 0.798, retrained_auroc = 0.9 }

[[row]]
label = "flipped"
augmentation = "flip"
reported = { val_f1 = 0.658 }
"""
LABELS = np.array([0, 1, 0, 1, 1, 0])
IMAGES = [[f"{index}.png", int(label), 7 * int(label), None] for index, label in enumerate(LABELS)]
PROBABILITIES = np.random.default_rng(0).random((4, 6))


@pytest.fixture
def storage(tmp_path: Path):
    with open_storage(f"sqlite:///{tmp_path}/table.db") as opened:
        yield opened


def train(storage: Storage, *, n_slots: int = 4, text: str = TABLE) -> studies.Study:
    """Create the table and finish its first slots with made-up validation probabilities."""
    study = studies.create_study(
        storage,
        study_file.parse(text, "x"),
        dataset={"fingerprint": "f"},
        image_sets={"train": IMAGES, "val": IMAGES},
    )
    observer = LeaseObserver()
    for _ in range(n_slots):
        claim = ledger.claim(storage, study, ["search"], worker="w", observer=observer)
        assert claim is not None
        ledger.attach_trial(storage, claim, 100 + claim.slot, claim.slot)
        row = PROBABILITIES[claim.slot]
        record_epoch(storage, claim, epoch=1, score=0.5, value=0.5, metrics={}, predictions=row)
        outcome = Outcome(
            state=EndState.COMPLETE,
            value=0.5,
            best_epoch=claim.slot + 1,
            stopped_epoch=9,
            params=claim.payload.params,
        )
        ledger.decide(storage, claim, outcome)
        ledger.finish(storage, claim)
    return study


def test_ours_are_recomputed_and_stand_beside_the_reported(storage: Storage, tmp_path: Path) -> None:
    """F1 and AUROC of each seed are scikit-learn's own; only validation is shown as nothing was tested."""
    train(storage)
    document = against.write(storage, "table", tmp_path / "out")
    plain, flipped = document.rows

    assert document.columns == ["val_f1", "val_auroc", "best_epoch"]
    for row, slots in ((plain, (0, 2)), (flipped, (1, 3))):
        chosen = PROBABILITIES[list(slots)]
        f1 = [f1_score(LABELS, one > 0.5) for one in chosen]
        assert row.ours["val_f1"].per_seed == pytest.approx(f1)
        assert row.ours["val_f1"].mean == pytest.approx(np.mean(f1))
        assert row.ours["val_f1"].std == pytest.approx(np.std(f1, ddof=1))
        auroc = [roc_auc_score(LABELS, one) for one in chosen]
        assert row.ours["val_auroc"].per_seed == pytest.approx(auroc)
    assert plain.ours["best_epoch"].per_seed == [1, 3]
    assert plain.reported["val_loss_sum"] == 6.2
    text = (tmp_path / "out" / "reported.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| plain"))
    assert f"{plain.ours['val_f1'].mean:.3f} +- " in line
    assert "|    0.593 |" in line
    assert line.count(" - ") == 1  # no AUROC on validation is reported
    assert (tmp_path / "out" / "reported.json").exists()


def test_a_row_that_is_not_trained_yet_is_shown_as_such(storage: Storage) -> None:
    """One finished slot: the first row has a mean without a spread, the second has none."""
    train(storage, n_slots=1)
    document = against.build(storage, "table")

    assert [row.n_seeds for row in document.rows] == [1, 0]
    assert document.rows[0].ours["val_f1"].std is None
    assert document.rows[1].ours == {}


def test_what_cannot_be_shown_is_refused(storage: Storage) -> None:
    """A table without a finished training, one that reports nothing, and a search end in one clear line."""
    train(storage, n_slots=0)
    train(storage, n_slots=0, text='[study]\nname = "bare"\n[[row]]\nlabel = "a"\n')
    train(storage, n_slots=0, text='[study]\nname = "search"\nn_trials = 1\n')

    with pytest.raises(UsageError, match="no trial of table is complete"):
        against.build(storage, "table")
    for name in ("bare", "search"):
        with pytest.raises(UsageError, match=f"{name} has no reported numbers"):
            against.build(storage, name)
