"""Events of a study."""

from collections.abc import Callable

import pytest

from mhist_tune.storage import event_log
from mhist_tune.storage.database import Storage
from mhist_tune.storage.studies import Study

MakeStudy = Callable[..., Study]


@pytest.fixture
def study(make_study: MakeStudy) -> Study:
    return make_study(n_trials=2)


def test_events_are_kept_in_their_order_and_found_by_kind_and_place(storage: Storage, study: Study) -> None:
    """Each filter narrows the list."""
    event_log.event(storage, study, kind="error", stage="search", slot=0, detail={"error": "a"})
    event_log.event(storage, study, kind="note")
    event_log.event(storage, study, kind="error", stage="search", slot=1, detail={"error": "b"})

    assert [event.detail for event in event_log.events(storage, study)] == [{"error": "a"}, {}, {"error": "b"}]
    assert [event.slot for event in event_log.events(storage, study, kind="error")] == [0, 1]
    (event,) = event_log.events(storage, study, kind="error", stage="search", slot=1)
    assert event.detail == {"error": "b"}
