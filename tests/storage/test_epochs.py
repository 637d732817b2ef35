from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sqlalchemy

from mhist_tune.errors import DataError
from mhist_tune.storage import ledger, tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.decision import Decision, Verdict
from mhist_tune.storage.epochs import epochs_of, record_epoch
from mhist_tune.storage.heartbeats import heartbeat, load_workers
from mhist_tune.storage.leases import Claim, LeaseObserver, StaleTokenError
from mhist_tune.storage.predictions import image_rows, predictions_of, record_predictions, save_image_set
from mhist_tune.storage.studies import Study

MakeStudy = Callable[..., Study]

GO_ON = Decision(verdict=Verdict.GO_ON, epoch=1, value=0.5, reason="made up")


def claim_of(storage: Storage, study: Study) -> Claim:
    """Claim a search slot."""
    claim = ledger.claim(storage, study, ["search"], worker="w", observer=LeaseObserver())
    assert claim is not None
    return claim


@pytest.fixture
def study(make_study: MakeStudy) -> Study:
    """A study with two slots and three validation images."""
    return make_study(n_trials=2, lease_s=60)


@pytest.fixture
def claim(storage: Storage, study: Study) -> Claim:
    """A claim of its slot 0."""
    return claim_of(storage, study)


@pytest.fixture
def stale(storage: Storage, study: Study) -> Claim:
    """A stale claim of its slot 0, which was released and claimed again."""
    old = claim_of(storage, study)
    ledger.release(storage, old)
    assert claim_of(storage, study).token == 2
    return old


def record(storage: Storage, claim: Claim, epoch: int, value: float, **options: Any) -> bool:
    """Record an epoch whose value is its best."""
    recorded = record_epoch(
        storage, claim, epoch=epoch, score=value, value=value, **{"metrics": {"val_f1": value}, **options}
    )
    return recorded.is_new


def n_rows(storage: Storage, table: sqlalchemy.Table) -> int:
    """Count the rows of a table."""
    query = sqlalchemy.select(sqlalchemy.func.count()).select_from(table)
    return storage.read(lambda connection: connection.execute(query).scalar_one())


def test_an_epoch_is_stored_with_all_that_was_measured(storage: Storage, study: Study, claim: Claim) -> None:
    """Score, value, metrics and predictions are read back exactly. Metrics that are not finite become null."""
    probabilities = np.array([0.1, 1 / 3, 1.0])
    metrics = {"val_f1": 0.1 + 0.2, "val_auroc": float("nan"), "train_loss": float("inf"), "memory": None}

    recorded = record_epoch(
        storage, claim, epoch=1, score=0.1 + 0.2, value=0.7, metrics=metrics, predictions=probabilities
    )

    assert recorded.is_new
    (row,) = epochs_of(storage, study, "search", 0)
    assert (row.epoch, row.token, row.score, row.value, row.decision) == (1, 1, 0.1 + 0.2, 0.7, None)
    assert row.metrics == {"val_f1": 0.1 + 0.2, "val_auroc": None, "train_loss": None, "memory": None}
    assert abs(row.recorded_at - storage.now()) < 60
    stored = predictions_of(storage, study, "search", "val")
    assert list(stored) == [0]
    assert stored[0].dtype == np.float64
    np.testing.assert_array_equal(stored[0], probabilities)


def test_the_first_record_of_an_epoch_is_final(storage: Storage, study: Study, claim: Claim) -> None:
    """The same epoch again, as after a resume, changes neither its row nor its predictions."""
    assert record(storage, claim, 1, 0.5, predictions=[0.1, 0.2, 0.3])

    assert not record(storage, claim, 1, 0.9, predictions=[0.9, 0.9, 0.9])

    assert [row.score for row in epochs_of(storage, study, "search", 0)] == [0.5]
    assert predictions_of(storage, study, "search", "val")[0].tolist() == [0.1, 0.2, 0.3]


def test_predictions_are_those_of_the_newest_best_epoch(storage: Storage, study: Study, claim: Claim) -> None:
    """A later best epoch replaces them; an epoch without any, or an earlier one recorded late, does not."""
    record(storage, claim, 2, 0.5, predictions=[0.2, 0.2, 0.2])
    record(storage, claim, 3, 0.6, predictions=[0.3, 0.3, 0.3])
    record(storage, claim, 4, 0.4)
    record(storage, claim, 1, 0.3, predictions=[0.1, 0.1, 0.1])

    assert predictions_of(storage, study, "search", "val")[0].tolist() == [0.3, 0.3, 0.3]


def test_a_stale_token_records_nothing(storage: Storage, study: Study, stale: Claim) -> None:
    """Epochs, decisions and predictions of a worker that lost its slot are refused."""
    with pytest.raises(StaleTokenError):
        record(storage, stale, 1, 0.5, predictions=[0.1, 0.2, 0.3])
    with pytest.raises(StaleTokenError):
        record(storage, stale, 1, 0.5, lease_s=60.0)
    with pytest.raises(StaleTokenError):
        record_predictions(storage, stale, "val", [0.1, 0.2, 0.3])

    assert n_rows(storage, tables.epochs) == 0
    assert n_rows(storage, tables.predictions) == 0


def test_a_stale_token_is_refused_even_for_a_recorded_epoch(storage: Storage, study: Study) -> None:
    """The old holder gets the error even if the new holder has recorded the same epoch."""
    old = claim_of(storage, study)
    ledger.release(storage, old)
    record(storage, claim_of(storage, study), 1, 0.5)

    with pytest.raises(StaleTokenError):
        record(storage, old, 1, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"predictions": [0.1, 0.2]}, "2 predictions .* 3 images"),
        ({"predictions": [0.1, 0.2, 0.3], "image_set": "nowhere"}, "None images"),
        ({"predictions": [0.1, 0.2, 1.5]}, "from 0 to 1"),
        ({"predictions": [0.1, 0.2, float("nan")]}, "from 0 to 1"),
        ({"predictions": [[0.1, 0.2, 0.3]]}, "shape"),
        ({"epoch": 0}, "at least 1"),
        ({"value": float("nan")}, "finite"),
    ],
)
def test_invalid_values_record_nothing(
    storage: Storage, study: Study, claim: Claim, options: dict[str, Any], message: str
) -> None:
    """Wrong predictions or values are an error, and the epoch is not recorded without them either."""
    with pytest.raises(ValueError, match=message):
        record(storage, claim, **{"epoch": 1, "value": 0.5, **options})

    assert n_rows(storage, tables.epochs) == 0


def test_the_first_decision_is_final(storage: Storage, study: Study, claim: Claim) -> None:
    """An epoch that is recorded again with another decision keeps and returns its first one."""
    for decision in (GO_ON, replace(GO_ON, verdict=Verdict.PRUNE)):
        recorded = record_epoch(storage, claim, epoch=1, score=0.5, value=0.5, metrics={}, decision=decision)
        assert recorded.decision == GO_ON

    assert [row.decision for row in epochs_of(storage, study, "search", 0)] == [GO_ON]


def test_an_epoch_renews_the_lease_and_takes_one_transaction(storage: Storage, study: Study, claim: Claim) -> None:
    """Record, predictions, decision, lease and the worker's row are one commit, or nothing where one of them fails."""
    before = ledger.slots(storage, study, "search")[0].expires_at
    everything = {
        "decision": GO_ON,
        "predictions": [0.1, 0.2, 0.3],
        "lease_s": 600.0,
        "alongside": heartbeat(storage, "w", study=study.uuid, device="cpu", state="training"),
    }
    n_commits = 0

    def count(_: object) -> None:
        nonlocal n_commits
        n_commits += 1

    sqlalchemy.event.listen(storage.engine, "commit", count)
    with pytest.raises(ValueError, match="2 predictions"):
        record(storage, claim, 1, 0.5, **{**everything, "predictions": [0.1, 0.2]})
    assert ledger.slots(storage, study, "search")[0].expires_at == before
    assert load_workers(storage, study) == []
    n_commits = 0
    assert record(storage, claim, 1, 0.5, **everything)
    assert n_commits == 1

    after = ledger.slots(storage, study, "search")[0].expires_at
    assert before is not None and after is not None and after > before + 300
    assert [row["worker"] for row in load_workers(storage, study)] == ["w"]


def test_final_predictions_are_stored_once(storage: Storage, study: Study, claim: Claim) -> None:
    """A slot's predictions of a set stay as they were first stored; each set has its own."""
    save_image_set(storage, study, "test", [["t.png", 1, 6, None]])

    assert record_predictions(storage, claim, "test", np.array([0.25], dtype=np.float32))
    assert not record_predictions(storage, claim, "test", [0.5])
    with pytest.raises(ValueError, match="1 images"):
        record_predictions(storage, claim, "test", [0.5, 0.5])

    assert predictions_of(storage, study, "search", "test")[0].tolist() == [0.25]
    assert predictions_of(storage, study, "search", "val") == {}


def test_an_image_set_is_kept_in_its_order(storage: Storage, study: Study) -> None:
    """Names, labels, votes and groups come back; without a group for each image there are no groups."""
    val = image_rows(storage, study, "val")
    save_image_set(storage, study, "test", [["t.png", 1, 6, None], ["s.png", 0, 1, "p"]])

    assert val.names == ("c.png", "d.png", "e.png")
    assert (val.labels.tolist(), val.votes.tolist(), val.groups) == ([0, 1, 0], [2, 5, 3], ("p3", "p4", "p4"))
    assert image_rows(storage, study, "test").names == ("t.png", "s.png")
    assert image_rows(storage, study, "test").groups is None
    with pytest.raises(KeyError, match="nowhere"):
        image_rows(storage, study, "nowhere")


def test_other_images_under_the_same_name_are_refused(storage: Storage, study: Study) -> None:
    """Only an equal image set can be saved again."""
    rows = [["t.png", 1, 6, None]]
    save_image_set(storage, study, "test", rows)
    save_image_set(storage, study, "test", rows)

    with pytest.raises(DataError, match="test"):
        save_image_set(storage, study, "test", [["t.png", 0, 1, None]])

    assert image_rows(storage, study, "test").labels.tolist() == [1]
