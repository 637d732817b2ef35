"""The values of competitors, on both databases."""

import pytest
import sqlalchemy

from mhist_tune.search.values import ValueBook, is_trivial, objective
from mhist_tune.storage import ledger, tables
from mhist_tune.storage.database import Storage
from mhist_tune.storage.epochs import record_epoch
from mhist_tune.storage.leases import Claim, LeaseObserver
from mhist_tune.storage.studies import Study
from tests.conftest import MakeStudy


@pytest.fixture
def study(make_study: MakeStudy) -> Study:
    return make_study(n_trials=4)


def claim_of(storage: Storage, study: Study) -> Claim:
    claim = ledger.claim(storage, study, ["search"], worker="w", observer=LeaseObserver())
    assert claim is not None
    return claim


def record(storage: Storage, claim: Claim, epoch: int, best: float) -> None:
    record_epoch(storage, claim, epoch=epoch, score=0.1, value=best, metrics={})


def test_scores_are_the_best_so_far_by_slot(storage: Storage, study: Study) -> None:
    """Only slots of the stage that recorded exactly this epoch count."""
    first, second = claim_of(storage, study), claim_of(storage, study)
    for claim, epoch, best in ((first, 1, 0.5), (first, 2, 0.7), (second, 1, 0.4)):
        record(storage, claim, epoch, best)

    assert ValueBook(storage, study, "search").at(1) == {0: 0.5, 1: 0.4}
    assert ValueBook(storage, study, "search").at(2) == {0: 0.7}
    assert ValueBook(storage, study, "retrain").at(1) == {}


def test_a_book_reads_what_is_recorded_later(storage: Storage, study: Study) -> None:
    """Slots finish in any order. Every value recorded between two calls is in the result of the second."""
    book, claims = ValueBook(storage, study, "search"), [claim_of(storage, study) for _ in range(4)]
    record(storage, claims[1], 1, 0.1)
    ledger.finish(storage, claims[1])
    assert book.at(1) == {1: 0.1}
    record(storage, claims[0], 1, 0.0)
    ledger.finish(storage, claims[0])
    assert book.at(1) == {0: 0.0, 1: 0.1}
    record(storage, claims[2], 1, 0.2)
    record(storage, claims[3], 1, 0.3)
    ledger.finish(storage, claims[3])
    assert book.at(1) == {0: 0.0, 1: 0.1, 2: 0.2, 3: 0.3}
    assert book.at(2) == {}


def test_what_is_final_is_read_once(storage: Storage, study: Study) -> None:
    """Values of slots below the first that may still record one are not read again: a change is not noticed."""
    book, claims = ValueBook(storage, study, "search"), [claim_of(storage, study) for _ in range(4)]
    for claim in (claims[0], claims[1], claims[3]):
        record(storage, claim, 1, 0.5)
    ledger.finish(storage, claims[0])
    assert book.at(1) == {0: 0.5, 1: 0.5, 3: 0.5}
    change = sqlalchemy.update(tables.epochs).values(value=0.9)
    storage.transaction(lambda connection: connection.execute(change))
    assert book.at(1) == {0: 0.5, 1: 0.5, 3: 0.9}
    record(storage, claims[2], 1, 0.7)
    assert book.at(1) == {0: 0.5, 1: 0.5, 2: 0.7, 3: 0.9}


def test_a_smoothed_value_is_the_mean_up_to_the_kept_epoch() -> None:
    """Later epochs do not count. Near the beginning the mean is over fewer epochs."""
    curve = [0.2, 0.4, 0.9, 0.1]
    assert objective(curve, 3, 1) == 0.9
    assert objective(curve, 3, 2) == pytest.approx(0.65)
    assert objective(curve, 1, 3) == pytest.approx(0.2)
    assert objective(curve, 3, 50) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("recall", "specificity", "expected"),
    [(1.0, 0.0, True), (0.0, 1.0, True), (1.0, 0.1, False), (1.0, 1.0, False), (0.0, 0.0, False), (None, None, False)],
)
def test_a_model_that_calls_all_images_one_class_is_trivial(
    recall: float | None, specificity: float | None, *, expected: bool
) -> None:
    """Recall 1 and specificity 0, or the reverse. Without validation there is nothing to call."""
    assert is_trivial({"val_recall": recall, "val_specificity": specificity}) is expected
    assert not is_trivial({"train_loss": 0.5})
