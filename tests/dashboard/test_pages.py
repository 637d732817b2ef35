"""The dashboard's own pages on both databases: what they show, and what their forms do."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from mhist_tune.dashboard.access import Access
from mhist_tune.dashboard.server import app
from mhist_tune.search.rungs import RungBook
from mhist_tune.storage import event_log, ledger, studies
from mhist_tune.storage.database import Storage
from mhist_tune.storage.epochs import record_epoch
from mhist_tune.storage.heartbeats import heartbeat
from mhist_tune.storage.leases import Claim, LeaseObserver
from mhist_tune.storage.outcome import EndState, Outcome
from mhist_tune.storage.payloads import SearchPayload
from mhist_tune.storage.stages import SlotState, Stage
from mhist_tune.storage.studies import Study
from tests.conftest import MakeStudy
from tests.support import made_up
from tests.support.web import PASSWORD, Client

REASON = "0.400 is not among the best 1 of 3 at rung 1 <from 0.5>"


@pytest.fixture
def user(storage: Storage) -> Client:
    """A browser with a login."""
    client = Client(app(storage, Access(PASSWORD)))
    client.log_in()
    return client


def claim(storage: Storage, study: Study, number: int) -> Claim:
    """Begin the next trial."""
    found = ledger.claim(storage, study, ["search"], worker=f"host-{number}", observer=LeaseObserver())
    assert found is not None
    ledger.attach_trial(storage, found, 100 + number, number)
    return found


def train(storage: Storage, claimed: Claim, *values: float) -> None:
    """Record epochs with these scores."""
    for epoch, value in enumerate(values, 1):
        metrics = {"train_loss": 1 - value, "val_loss": 1 - value, "val_f1": value, "val_auroc": value}
        metrics |= {"learning_rate": 1e-4, "elapsed_s": 2.0}
        best = max(values[:epoch])
        record_epoch(storage, claimed, epoch=epoch, score=value, value=best, metrics=metrics)


def end(storage: Storage, claimed: Claim, **outcome: Any) -> None:
    """Decide a trial and finish its slot."""
    assert ledger.decide(storage, claimed, Outcome(params={"learning_rate": 0.00123456}, **outcome))
    assert ledger.finish(storage, claimed)


@pytest.fixture
def shown(storage: Storage, make_study: MakeStudy) -> Study:
    """A study with a complete, a pruned, a failed and a running trial, and one slot left."""
    study = make_study("shown", n_trials=5, lease_s=60.0)
    complete, pruned, failed = (claim(storage, study, number) for number in range(3))
    train(storage, complete, 0.5, 0.612345)
    end(storage, complete, state=EndState.COMPLETE, value=0.612345, best_score=0.612345, best_epoch=2, stopped_epoch=2)
    train(storage, pruned, 0.4)
    end(storage, pruned, state=EndState.PRUNED, value=0.4, best_score=0.4, best_epoch=1, stopped_epoch=1, reason=REASON)
    end(storage, failed, state=EndState.FAIL, value=None, reason="RuntimeError: no")
    running = claim(storage, study, 3)
    train(storage, running, 0.55)
    progress = {"stage": "search", "slot": running.slot, "trial_number": 3, "epoch": 1}
    speed = {"images_per_s": 321.0, "memory_bytes": 2 * 10**9}
    beat = heartbeat(storage, "host-3", study=study.uuid, device="cuda:1", state="training", **progress, **speed)
    storage.transaction(lambda connection: connection.execute(beat))
    return study


def test_the_overview_sums_up_each_study(user: Client, shown: Study, make_study: MakeStudy) -> None:
    """Counts, best value, pruned share, speed, time left and state of every study; and how to make the first one."""
    make_study("other")
    page = user.get("/").body

    for text in ("shown", "other", "0.6123", "1 complete, 1 pruned, 1 failed, 1 running, 1 free", "33%", "321"):
        assert text in page
    assert "active now" in page


def test_the_study_page_names_trivial_models_and_the_budget(
    user: Client, storage: Storage, make_study: MakeStudy
) -> None:
    """A trivial trial is leading and not the best; the budget says how many trials have begun."""
    study = make_study("trivial", n_trials=3)
    only = claim(storage, study, 0)
    train(storage, only, 0.5)
    end(storage, only, state=EndState.COMPLETE, value=0.5, best_epoch=1, stopped_epoch=1, is_trivial=True)
    studies.redefine(storage, study, dataclasses.replace(study.definition, max_hours=2.0))

    page = user.get("/study/trivial").body

    assert "Leading validation F1" in page
    assert "1 trial calls all validation images one class" in page
    assert "Budget: 1 of 3 trials begun; the budget is 2 device hours" in page


def test_an_empty_storage_says_how_to_begin(user: Client) -> None:
    """Without a study the page names the command."""
    assert "create-study" in user.get("/").body


def test_the_study_page_shows_trials_curves_and_workers(user: Client, shown: Study) -> None:
    """The page has readable numbers, the reason of the pruned trial, the workers, and five metrics of three trials."""
    page = user.get("/study/shown").body

    assert "0.001235" in page
    assert "0.00123456" not in page
    assert "rung 1 &lt;from 0.5&gt;" in page
    for cell in ("cuda:1", "2.0 GB", "321"):
        assert f"<td>{cell}</td>" in page
    for title in ("Training loss", "Validation loss", "Validation F1", "Validation AUROC", "Learning rate"):
        assert title in page
    assert "trial 3, running" in page
    assert "trial 0, best" in page


def test_a_new_epoch_appears_and_an_old_page_is_not_sent_again(
    user: Client, storage: Storage, shown: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unchanged page is answered with 304; after one more epoch it is sent again."""
    monkeypatch.setattr("mhist_tune.dashboard.live._FRESH_S", 0.0)
    monkeypatch.setattr("mhist_tune.dashboard.view.workers", lambda _: [])  # their lease ages
    first = user.get("/study/shown")
    again = user.get("/study/shown", HTTP_IF_NONE_MATCH=first.headers["etag"])
    [slot] = [one for one in ledger.slots(storage, shown, "search") if one.state == "leased"]
    held = Claim(shown.uuid, "search", slot.slot, slot.token, SearchPayload(), slot.trial_id, 3, 1, None)
    record_epoch(storage, held, epoch=2, score=0.7, value=0.7, metrics={"val_f1": 0.7})
    news = user.get("/study/shown", HTTP_IF_NONE_MATCH=first.headers["etag"])

    assert (again.status, again.body) == (304, "")
    assert news.status == 200
    assert "0.7000" in news.body


def test_what_has_ended_is_not_read_again(user: Client, storage: Storage, make_study: MakeStudy) -> None:
    """A second view within a second sends no statement to the database, however many trials it lists."""
    study = make_study("many", n_trials=20, lease_s=60.0)
    for number in range(20):
        end(storage, claim(storage, study, number), state=EndState.COMPLETE, value=0.5, best_score=0.5, stopped_epoch=1)
    user.get("/study/many")
    statements: list[str] = []
    for engine in (storage.engine, storage.rdb.engine):
        sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    user.get("/study/many?sort=value")

    assert statements == []


def test_trials_are_sorted_filtered_and_paged(user: Client, storage: Storage, make_study: MakeStudy) -> None:
    """Fifty a page, the newest first, or by value, or of one state."""
    study = make_study("many", n_trials=60, lease_s=60.0)
    for number in range(60):
        state = "PRUNED" if number % 2 else "COMPLETE"
        best = 0.5 + number / 1000
        outcome = {"state": state, "value": best, "best_score": best, "best_epoch": 1, "stopped_epoch": 1}
        end(storage, claim(storage, study, number), **outcome)

    def numbers(query: str) -> list[int]:
        rows = user.get(f"/study/many{query}").body.split('href="/study/many/trial/')[1:]
        return [int(row.partition('"')[0]) for row in rows]

    assert numbers("") == list(range(59, 9, -1))
    assert numbers("?page=1") == list(range(9, -1, -1))
    assert numbers("?sort=value&state=complete")[:3] == [58, 56, 54]
    assert numbers("?page=999") == numbers("?page=1")
    assert numbers("?state=nonsense&page=x") == []


def test_a_trial_has_its_own_page(user: Client, shown: Study) -> None:
    """Its curves beside the best one's, its params, and its reason; a trial that is not there is 404."""
    page = user.get("/study/shown/trial/1").body

    assert "0.001235" in page
    assert "rung 1" in page
    assert "trial 0, best" in page
    assert user.get("/study/shown/trial/77").status == 404
    assert user.get("/study/nothing").status == 404
    assert "did you mean shown" in user.get("/study/show").body


def test_the_report_is_shown_when_there_is_one(user: Client, storage: Storage) -> None:
    """Before a retraining the page says what to do; afterwards it is the report, with the script-free policy."""
    study = made_up.create(storage, "tiny")
    before = user.get("/study/tiny/report")
    made_up.open_test(storage, study)
    made_up.retrain(storage, study, n_slots=3)
    user = Client(user.app, user.cookies)
    after = user.get("/study/tiny/report")

    assert before.status == 409
    assert "mhist-tune retrain tiny" in before.body
    assert after.status == 200
    assert "Metrics on the test partition" in after.body
    assert "script-src" not in after.headers["content-security-policy"]


def test_control_is_recorded(user: Client, storage: Storage, shown: Study) -> None:
    """Pause, continue, extend, retry, veto, enqueue and stop change the ledger, and each leaves its event."""

    def act(action: str, **fields: str) -> int:
        return user.post(f"/study/shown/{action}", fields).status

    assert act("pause") == 303
    assert studies.load_study(storage, "shown").state == "paused"
    assert act("continue") == 303
    assert studies.load_study(storage, "shown").state == "active"
    assert act("extend", n_trials="3") == 303
    assert act("retry", trial="2") == 303
    assert act("veto", trial="3", reason="looks wrong") == 303
    assert act("enqueue", **{"param.learning_rate": "0.002"}) == 303
    slots = ledger.slots(storage, shown, "search")
    assert len(slots) == 5 + 3 + 1 + 1
    first = ledger.claim(storage, shown, ["search"], worker="w", observer=LeaseObserver())
    assert first is not None
    assert first.payload == SearchPayload(params={"learning_rate": 0.00123456}, retry_of=2)
    assert slots[-1].payload == SearchPayload(params={"learning_rate": 0.002})
    assert act("stop") == 303
    assert studies.load_study(storage, "shown").state == "stopped"
    assert {slot.state for slot in ledger.slots(storage, shown, "search")} == {"done", "leased", "cancelled"}
    kinds = [event.kind for event in event_log.events(storage, shown) if event.detail.get("by") == "the dashboard"]
    assert kinds == ["state", "state", "extended", "retried", "veto", "enqueued", "state"]
    assert "looks wrong" in user.get("/study/shown").body


@pytest.fixture
def waiting(storage: Storage, make_study: MakeStudy) -> Study:
    """A study with nine slots, in which trial 0 waits at its first rung and nothing has ended."""
    pruner = '{ name = "promotion", min_resource = 1, reduction_factor = 3 }'
    study = make_study("shown", n_trials=9, lease_s=60.0, pruner=pruner)
    claimed = claim(storage, study, 0)
    train(storage, claimed, 0.4321)
    unless_promoted = Outcome(
        state=EndState.PRUNED,
        value=0.4321,
        best_score=0.4321,
        best_epoch=1,
        stopped_epoch=1,
        params={"learning_rate": 0.00123456},
    )
    RungBook(storage, study, Stage.SEARCH).arrive(claimed, epoch=1, value=0.4321, if_not_promoted=unless_promoted)
    return study


def test_a_trial_at_a_rung_is_waiting(user: Client, storage: Storage, waiting: Study) -> None:
    """A waiting trial does not count as pruned or ended; its page offers to continue it, not to retry it."""
    page = user.get("/study/shown").body
    assert "1 waiting, 8 free" in page
    assert "1 pruned" not in page
    assert "pill waiting" in page
    assert "0.4321" in page
    assert user.get("/study/shown?state=pruned").body.count("pill pruned") == 0
    trial = user.get("/study/shown/trial/0").body
    assert "/study/shown/thaw" in trial
    assert "/study/shown/retry" not in trial
    assert "too few trials have arrived there" in trial

    assert user.post("/study/shown/retry", {"trial": "0"}).status == 409
    assert user.post("/study/shown/veto", {"trial": "0", "reason": "late"}).status == 409
    assert len(ledger.slots(storage, waiting, Stage.SEARCH)) == 9
    assert user.post("/study/shown/thaw", {"trial": "0"}).status == 303
    assert ledger.slots(storage, waiting, Stage.SEARCH)[0].state is SlotState.FREE
    assert user.post("/study/shown/thaw", {"trial": "0"}).status == 409


@pytest.mark.parametrize(
    ("action", "fields", "status"),
    [
        ("extend", {"n_trials": "0"}, 400),
        ("extend", {"n_trials": "1e3"}, 400),
        ("extend", {}, 400),
        ("retry", {"trial": "0"}, 409),
        ("retry", {"trial": "77"}, 409),
        ("veto", {"trial": "3", "reason": " "}, 409),
        ("veto", {"trial": "1", "reason": "late"}, 409),
        ("veto", {"trial": "3", "reason": "a" * 10_000}, 400),
        ("enqueue", {"param.learning_rate": "5"}, 409),
        ("enqueue", {"param.learning_rate": "nan"}, 409),
        ("enqueue", {"param.learning_rat": "0.01"}, 409),
    ],
)
def test_wrong_inputs_change_nothing(
    user: Client, storage: Storage, shown: Study, action: str, fields: dict[str, str], status: int
) -> None:
    """Each is answered with its reason, and neither slot nor event is added."""
    before = ledger.slots(storage, shown, "search"), event_log.events(storage, shown)
    answer = user.post(f"/study/shown/{action}", fields)

    assert answer.status == status
    assert (ledger.slots(storage, shown, "search"), event_log.events(storage, shown)) == before


def test_a_study_is_deleted_by_its_typed_name(user: Client, storage: Storage, shown: Study) -> None:
    """A wrong name or a missing login deletes nothing; after the deletion no page has the study."""
    assert user.post("/study/shown/delete", {"name": "show"}).status == 400
    assert user.post("/study/shown/delete", {}).status == 400
    assert Client(app(storage, Access(PASSWORD))).post("/study/shown/delete", {"name": "shown"}).status == 401
    assert studies.load_study(storage, "shown") == shown
    assert 'action="/study/shown/delete"' in user.get("/study/shown").body

    answer = user.post("/study/shown/delete", {"name": "shown"})
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert studies.list_studies(storage) == []
    assert user.get("/study/shown").status == 404
    assert "shown" not in user.get("/").body


def test_a_deletion_that_fails_says_what_to_do(user: Client, storage: Storage, shown: Study, tmp_path: Path) -> None:
    """If a file cannot be removed, the study stays and the answer names the command that deletes the rest."""
    storage.root = tmp_path
    blocked = storage.root / "thumbnails" / f"{shown.folder_name}.zip"
    blocked.mkdir(parents=True)
    answer = user.post("/study/shown/delete", {"name": "shown"})
    blocked.rmdir()

    assert answer.status == 409
    assert "mhist-tune delete-study shown" in answer.body
    assert studies.load_study(storage, "shown") == shown
