"""Events of a study."""

from collections.abc import Callable

import pytest

from mhist_tune import journal
from mhist_tune.storage import Storage
from mhist_tune.studies import Study

MakeStudy = Callable[..., Study]


@pytest.fixture
def study(make_study: MakeStudy) -> Study:
    return make_study(n_trials=2)


def test_events_are_kept_in_their_order_and_found_by_kind_and_place(storage: Storage, study: Study) -> None:
    """Each filter narrows the list."""
    journal.event(storage, study, kind="error", stage="search", slot=0, detail={"error": "a"})
    journal.event(storage, study, kind="note")
    journal.event(storage, study, kind="error", stage="search", slot=1, detail={"error": "b"})

    assert [event.detail for event in journal.events(storage, study)] == [{"error": "a"}, {}, {"error": "b"}]
    assert [event.slot for event in journal.events(storage, study, kind="error")] == [0, 1]
    (event,) = journal.events(storage, study, kind="error", stage="search", slot=1)
    assert event.detail == {"error": "b"}
